"""The figure of a step's time as its sizes grow: a panel for each size that doubles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from toyqs.evidence.figures import style
from toyqs.evidence.figures.frame import frame

QUESTION = "How does the time of a training step grow with its sizes?"
AXES = {
    **{"B": "sequences B", "T": "positions T", "K": "thoughts K"},
    **{"L": "symbols L", "D": "widths D", "V": "vocabulary V"},
}
LABELS = {
    "reference": "plain reference",
    "torch": "toyqs, torch's kernels",
    "native": "toyqs, native kernels",
}
COLOURS = {"reference": "#4D4D4D", "torch": "#0072B2", "native": "#D55E00"}


def growth_figure(rows: Sequence[Mapping[str, Any]], about: str) -> Figure:
    """Draw a panel for each size, in it a line for each program; both axes logarithmic.

    Args:
        rows: of one size each: `axis`, a key of AXES, its `value`, and `ms`, program -> milliseconds.
        about: where they were measured; the footer.
    """
    drawn = style.new_figure(12.0, 5.6)
    panels = drawn.subplots(2, 3, sharey=True)
    for axes, (axis, title) in zip(panels.flat, AXES.items(), strict=True):
        own = [row for row in rows if row["axis"] == axis]
        values = [row["value"] for row in own]
        for name in own[0]["ms"]:
            times = [row["ms"][name] for row in own]
            axes.plot(values, times, marker="o", color=COLOURS[name], linewidth=style.points(1.5))
            along = [times[0] * value / values[0] for value in values]
            axes.plot(values, along, linestyle=":", color=COLOURS[name], linewidth=style.points(1))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(values, [str(value) for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
        axes.set_title(title)
    for axes in panels[:, 0]:
        axes.set_ylabel("milliseconds a step")
    lines = [Line2D([], [], color=COLOURS[name], marker="o", label=LABELS[name]) for name in rows[0]["ms"]]
    lines.append(Line2D([], [], color="#4D4D4D", linestyle=":", label="in proportion"))
    drawn.legend(handles=lines)
    first = {row["axis"]: row["value"] for row in reversed(rows)}
    others = ", ".join(f"{axis} {first[axis]}" for axis in AXES)
    frame(drawn, QUESTION, [f"A thinking GRU; where a size does not grow it is {others}"], [about])
    return drawn
