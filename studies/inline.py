"""A figure as an element of a page: colours become CSS variables, marks get hover titles, no address is named.

Light, dark and print each give the variables their own values; an inlined SVG needs no XML namespaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from io import StringIO
from pathlib import Path

from hwsim.report.figure import (
    GRID,
    INK,
    MUTED,
    NARROW,
    PAPER,
    PARTS,
    SERIES,
    UNDATED,
    WIDE,
    Painter,
    lay_out,
    save_files,
    style,
)

# light value -> CSS variable; the report's style sheet gives each variable its light and dark value
VARIABLES: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{colour: f"--series-{i}" for i, colour in enumerate(SERIES)},
    **{colour: f"--part-{i}" for i, colour in enumerate(PARTS)},
}


def write_figure(painter: Painter, path: Path, description: str, narrow: bool) -> str:
    """Write a figure as PNG and SVG; return that SVG as HTML.

    With `narrow`, also one for narrow screens: the style sheet shows one of the two.
    """
    with style(path.name):
        drawing = painter(WIDE)
        save_files(drawing.figure, path, ("png", "svg"))
    svg = path.with_suffix(".svg").read_text("utf-8")
    wide = _inline(svg, drawing.titles, f"{path.name}-wide", description)
    if not narrow:
        return wide
    with style(f"{path.name}-narrow"):
        drawing = painter(NARROW)
        lay_out(drawing.figure)
        text = StringIO()
        drawing.figure.savefig(text, format="svg", metadata=UNDATED["svg"])
    other = _inline(text.getvalue(), drawing.titles, f"{path.name}-narrow", description)
    return f'<div class="wide">{wide}</div>\n<div class="narrow">{other}</div>'


def _inline(svg: str, titles: Mapping[str, str], prefix: str, description: str) -> str:
    """Turn a matplotlib SVG file into an element of an HTML page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    for key, title in titles.items():
        svg = svg.replace(
            f'<g id="{key}">', f'<g class="mark" tabindex="0"><title>{escape(title)}</title>', 1
        )
    return _own_ids(svg, prefix)


def _own_ids(svg: str, prefix: str) -> str:
    """Keep only the ids that something refers to, and make them unique in the page."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))

    def rename(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in used else ""

    svg = re.sub(r'\s+id="([^"]+)"', rename, svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    return svg.replace("url(#", f"url(#{prefix}-")
