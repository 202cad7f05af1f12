"""How all figures look, and how they become files: shared by the views of a cost and by the reports of studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1d2127", "#5b6470", "#dfe3e8", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a6761d", "#56b4e9", "#7f3c8d", "#666a70")
PARTS = (
    "#332288",
    "#88ccee",
    "#44aa99",
    "#117733",
    "#999933",
    "#ddcc77",
    "#cc6677",
    "#882255",
    "#aa4499",
    "#b0b4ba",
    "#6699cc",
    "#e08a3c",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

WIDE, NARROW = 7.4, 4.1
"""widths in inches; a phone gets the narrow drawing instead of a shrunken wide one"""


@dataclass
class Drawing:
    """A figure with the hover text of its marks, by the id that the mark has in the SVG."""

    figure: Figure
    titles: dict[str, str] = field(default_factory=dict)


UNDATED: Mapping[str, Mapping[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
"""what is left out of a file of each format: it changes without the figure"""

OPTIONS: Mapping[str, Any] = {"png": {"pil_kwargs": {"compress_level": 3}}}
"""of the writer of a format; the default level of PNG takes twice as long for files a tenth smaller"""

Painter = Callable[[float], Drawing]
"""Draws the figure at a width in inches."""


@contextmanager
def style(salt: str) -> Iterator[None]:
    """Draw in the style of all figures; files of equal figures with one `salt` are equal.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "report") from None
    settings: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.size": 9.0,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.facecolor": "none",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "figure.facecolor": PAPER,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "svg.fonttype": "none",  # text stays text: selectable, and in the reader's font
        "svg.hashsalt": salt,  # the same figure gives the same file
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of a size in inches with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def render_files(
    painter: Painter, path: Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write `path` in each of the formats (PNG with 200 dots an inch); return the files' paths."""
    with style(path.name):
        return save_files(painter(WIDE).figure, path, formats)


def save_files(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure as `render_files` does, within its `style`; it is laid out once."""
    lay_out(figure)
    written = []
    for ending in formats:
        written.append(path.with_suffix(f".{ending}"))
        figure.savefig(written[-1], dpi=200, metadata=UNDATED[ending], **OPTIONS.get(ending, {}))
    return written


def lay_out(figure: Figure) -> None:
    """Give everything its place once; with its engine a figure is laid out, and drawn, twice for every file."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
