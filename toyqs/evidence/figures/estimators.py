"""The figure of estimators of the policy's gradient: direction, length and noise of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from toyqs.evidence.figures import marks, style

COLUMNS = {
    "cosine": "direction\ncosine with the exact gradient",
    "length": "length (log scale)\nexpected over exact",
    "noise": "noise (log scale)\nstandard deviation over length",
}
NOTES = [
    "names in italics: compared with the gradient of reward and entropy; the others: with that of the reward",
    "credit by prefix: a symbol is paid what it adds to the reward of those before it; right: that reward is",
    "the mean over the thoughts that begin so; wrong: the mean over those that begin otherwise",
    "every group of K thoughts is summed exactly; means over policies; vertical line: no bias",
]
QUESTION = "How biased and how noisy are estimators of the policy's gradient?"
SHADES, LIGHTEST = "viridis_r", 0.15  # the colours of K, darker for more thoughts


def estimators_figure(table: pd.DataFrame) -> Figure:
    """Draw three panels with a row for each estimator, in it a point for each K.

    Args:
        table: columns `estimator`, `K`, `aim` and those of COLUMNS.
    """
    names = list(dict.fromkeys(table["estimator"]))
    numbers = sorted(set(table["K"]))
    tones = np.linspace(LIGHTEST, 1.0, len(numbers))
    colours = dict(zip(numbers, colormaps[SHADES](tones), strict=True))
    drawn = style.new_figure(13.5, 0.9 + 0.3 * len(names))
    panels = drawn.subplots(1, 3, sharey=True)
    for axes, (column, title) in zip(panels, COLUMNS.items(), strict=True):
        for row, name in enumerate(names):
            own = table[table["estimator"] == name].sort_values("K")
            axes.plot(own[column], [row] * len(own), color="#BBBBBB", linewidth=style.points(1), zorder=1)
            look: dict[str, Any] = {
                "s": style.points(6) ** 2,
                "linewidths": 0.5,
                "edgecolors": "white",
                "zorder": 2,
            }
            axes.scatter(own[column], [row] * len(own), c=[colours[k] for k in own["K"]], label=name, **look)
        marks.label_rows(axes, names)
        axes.set_title(title)
        if column != "cosine":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        if column != "noise":
            axes.axvline(1.0, color="#4D4D4D", linewidth=0.8, zorder=0)
    aims = table.groupby("estimator")["aim"].first()
    for label, name in zip(panels[0].get_yticklabels(), names, strict=True):
        label.set_fontstyle("normal" if aims[name] == "reward" else "italic")
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": style.points(6)}
    drawn.legend(handles=[Line2D([], [], color=colours[k], label=f"K = {k}", **dot) for k in numbers])
    return drawn
