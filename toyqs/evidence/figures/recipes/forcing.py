"""The figure of teacher forcing against a policy loss alone: learning curves of each way of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from toyqs.evidence.figures import style
from toyqs.evidence.judging.gain import estimate

COLOURS = ("#4D4D4D", "#999999", "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MARKERS = "osD^v<>P"


def forcing_figure(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the held-out NLL by step, a line for each way, with 95 % t-intervals over seeds.

    Args:
        curves: name -> held-out loss, a row for each step, a column for each seed.
    """
    drawn = style.new_figure(9.0, 4.8)
    axes = drawn.subplots()
    for place, (name, curve) in enumerate(curves.items()):
        found = [estimate(row.dropna()) for _, row in curve.iterrows()]
        mean, half = (
            pd.Series([getattr(x, part) for x in found], curve.index) for part in found[0]._fields[:2]
        )
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": style.points(4)}
        axes.plot(curve.index, mean, label=name, linewidth=style.points(1.5), **look)
        axes.fill_between(curve.index, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("step of training, after the start")
    axes.set_ylabel("held-out NLL of the first token, nats")
    drawn.legend(*axes.get_legend_handles_labels())
    return drawn
