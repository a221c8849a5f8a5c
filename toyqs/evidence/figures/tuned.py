"""The figure of tuned controls: what thinking gains over each of them, a panel for each question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from toyqs.evidence.arms import arm_names
from toyqs.evidence.figures import marks, style
from toyqs.evidence.measures import NATS, measure_of

ACROSS = 3  # panels side by side
PANEL = (3.4, 0.34, 1.3)  # inches: a panel's width, the height of a row, and what a panel has beside its rows

Shown = tuple[str, str, Mapping[str, pd.Series]]  # name, measure, gains of thinking over each control


def tuned_figure(questions: Sequence[Shown]) -> Figure:
    """Draw the gain over each control: seeds, means, 95 % t-intervals; thinking is better to the right of 0.

    Args:
        questions: name, measured column, gains over each control by seed.
    """
    arms = arm_names(arm for _, _, gains in questions for arm in gains)
    across = min(ACROSS, len(questions))
    down = math.ceil(len(questions) / across)
    width, row, beside = PANEL
    figure = style.new_figure(2.2 + width * across, down * (row * len(arms) + beside))
    panels = figure.subplots(down, across, squeeze=False, sharey=True).flat
    for axes, (name, measure, gains) in zip(panels, questions, strict=False):
        words = measure_of(measure)
        scale, unit = (100.0, "points") if words.form == "%" else (1.0, words.unit.replace(NATS, "nats"))
        shown = {arm: [scale * gain] for arm, gain in gains.items()}
        axes.axvline(0, color="black", linewidth=1, zorder=1)
        for arm, series in shown.items():
            marks.draw_arm(axes, arm, [arms.index(arm)], series, sideways=True)
        added = marks.fit([axes], "x", shown, [0.0])
        axes.set(title=name, xlabel=f"gain, {unit}{added}\n{words.words}")
        marks.label_rows(axes, [style.arm_name(arm) for arm in arms])
    for axes in list(figure.axes)[len(questions) :]:
        axes.remove()
    return figure
