"""The figure of a sensitivity: a bar from one end to the other, the widest on top."""

from __future__ import annotations

from hwsim.report.figure import MUTED, SERIES, Drawing, Painter, new_figure
from hwsim.report.sensitivity import Sensitivity
from hwsim.report.table import energy_unit

MOST_BARS = 24


def tornado(s: Sensitivity, most: int = MOST_BARS) -> Painter:
    """Draw the widest bars of the unknowns, then those of the keys, about the nominal value.

    Args:
        s: the bars.
        most: how many of unknowns and keys together.
    """
    full = [b for b in (*s.unknowns, *s.keys) if b.at_low is not None and b.at_high is not None]
    bars = sorted(full, key=lambda b: -b.width)[:most]
    factor, unit = energy_unit(s.nominal) if len(s.sides) == 1 else (1.0, "")
    label = f"Energy ({unit})" if unit else f"Energy of {s.sides[-1]} / energy of {s.sides[0]}"

    def paint(width: float) -> Drawing:
        figure, axes = new_figure(width, 1.2 + 0.19 * len(bars))
        middle = s.nominal / factor
        low = [b.at_low or 0.0 for b in bars]
        high = [b.at_high or 0.0 for b in bars]
        for ends, name, colour in ((low, "low end", SERIES[0]), (high, "high end", SERIES[1])):
            lengths = [end / factor - middle for end in ends]
            axes.barh(range(len(bars)), lengths, left=middle, height=0.76, color=colour, label=name)
        axes.axvline(middle, color=MUTED, linewidth=0.8)
        axes.set_yticks(range(len(bars)), [b.name for b in bars], fontsize=7)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(True, axis="x")
        axes.set_xlabel(label)
        axes.set_title(f"{s.model} on {', '.join(s.sides)}, steady", loc="left", fontsize=9)
        figure.legend(loc="outside lower center", ncols=2, handlelength=1.0, handleheight=1.0)
        return Drawing(figure)

    return paint
