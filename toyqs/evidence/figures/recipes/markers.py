"""The figure of how much thoughts are used by how fast their markers learn."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from toyqs.evidence.figures import style

PUBLISHED = {1: 0.42, 10: 0.68, 100: 0.89, 1000: 0.94}  # scale -> share of answers with thinking tokens
COLOURS = {"lr_multiplier": "#0072B2", "reparameterise": "#D55E00", "grad_scale": "#009E73"}
MARKERS = {"lr_multiplier": "o", "reparameterise": "s", "grad_scale": "D"}
PANELS = {
    "exchanged": "another sequence's thoughts cost\nnats",
    "changed": "thoughts that change the answer\n%",
    "non_empty": "thoughts that are not empty\n%",
    "nll": "held-out NLL\nnats",
}
PLAIN = "none"
SHIFT = 1.12  # of each mode's points along the axis of scales, a factor


def markers_figure(table: pd.DataFrame) -> Figure:
    """Draw a panel for each measure, in it a line for each mode; all begin at the plain markers, scale 1.

    Args:
        table: of analysis/marker_use.py. Where all thoughts have a symbol, or nothing tells, there is no
            panel of those that are not empty.
    """
    panels = [name for name in PANELS if name != "non_empty" or (table[name] < 1).any()]
    drawn = style.new_figure(4.2 * len(panels), 4.2)
    modes = [mode for mode in COLOURS if mode in set(table["mode"])]
    for axes, name in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for place, mode in enumerate(modes):
            own = table[table["mode"].isin([PLAIN, mode])].sort_values("scale")
            _line(axes, own, name, mode, SHIFT ** (place - (len(modes) - 1) / 2))
        if name in ("changed", "non_empty"):
            said = [100 * share for share in PUBLISHED.values()]
            axes.plot(list(PUBLISHED), said, linestyle="none", marker="*", color="#4D4D4D")
        axes.set_title(PANELS[name])
        axes.set_xscale("log")
        scales = sorted(set(table["scale"]))
        axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("meta_token_scale")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_ylim(bottom=0.0)
    said_line = Line2D([], [], linestyle="none", marker="*", color="#4D4D4D", label="published use")
    handles = [Line2D([], [], color=COLOURS[mode], marker=MARKERS[mode], label=mode) for mode in modes]
    drawn.legend(handles=[*handles, said_line])
    return drawn


def _line(axes: Axes, own: pd.DataFrame, name: str, mode: str, shift: float) -> None:
    """Draw the means of one measure with their intervals."""
    factor = 100 if name in ("changed", "non_empty") else 1
    look: dict[str, Any] = {
        "color": COLOURS[mode],
        "marker": MARKERS[mode],
        "markersize": style.points(5),
        "capsize": 2,
    }
    axes.errorbar(own["scale"] * shift, factor * own[name], factor * own[f"{name}_half_width"], **look)
