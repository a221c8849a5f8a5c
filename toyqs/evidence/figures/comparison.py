"""The figure of a comparison of arms."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from toyqs.evidence.comparison import setting
from toyqs.evidence.figures import style
from toyqs.evidence.findings import Finding
from toyqs.evidence.gain import column_of, interval, mean_of


def comparison_figure(
    finding: Finding, curves: Mapping[str, Mapping[int, pd.DataFrame]], path: Path | str
) -> None:
    """Draw held-out learning curves of every seed (left) and every seed's final loss (right).

    Args:
        finding: as for `comparison_table`.
        curves: arm -> seed -> columns `step`, `nll` (held out), in the order of steps.
        path: its folder exists; written whole or not at all.
    """
    arms = finding.cell.arms
    thinking = next(iter(arms.values()))
    with style.style():
        figure = style.new_figure()
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
        for place, (arm, frame) in enumerate(arms.items()):
            _draw_curves(left, arm, curves.get(arm, {}))
            _draw_final(right, arm, place, frame)
        floor = mean_of(thinking, "bayes_floor")
        if floor is not None:
            for axes in (left, right):
                axes.axhline(floor, color="black", linestyle="--", linewidth=1.2)
            note = {"xytext": (-3, 3), "textcoords": "offset points", "ha": "right", "fontsize": 10}
            left.annotate("best possible (Bayes)", (1, floor), xycoords=("axes fraction", "data"), **note)
        style.log_axis(left)
        if any(curves.values()):
            left.legend(loc="best")
        left.set(xlabel="training steps (log scale)", ylabel="held-out NLL, nats per counted position")
        left.set_title("While training: thin lines are seeds, thick their mean")
        right.set_title("At the end: every seed, mean and 95 % interval")
        right.set_xticks(range(len(arms)), [style.ARM_LABELS.get(arm, arm) for arm in arms], fontsize=10)
        right.grid(False, axis="x")
        title = setting(finding.cell).replace(", ", "\n", 1)
        if finding.gains and finding.verdict:
            title += "\n" + textwrap.fill(f"verdict: {finding.verdict.text}", 140)
        figure.suptitle(title, fontsize=12)
        style.save(figure, path)


def _draw_curves(axes: Axes, arm: str, curves: Mapping[int, pd.DataFrame]) -> None:
    colour = style.arm_colour(arm)
    # a logarithmic axis has no place for what was measured before the first step
    seeds = {
        seed: curve[curve["step"] > 0].set_index("step")["nll"].astype(float)
        for seed, curve in curves.items()
    }
    for curve in seeds.values():
        axes.plot(curve.index, curve, color=colour, linewidth=0.8, alpha=0.45)
    if seeds:
        mean = pd.concat(seeds, axis=1, join="inner").mean(axis=1, skipna=False)
        axes.plot(mean.index, mean, color=colour, linewidth=2.6, label=style.arm_name(arm))


def _draw_final(axes: Axes, arm: str, place: int, frame: pd.DataFrame) -> None:
    colour = style.arm_colour(arm)
    values = column_of(frame, "nll").to_numpy()
    spread = np.linspace(-0.22, 0.0, len(values)) if len(values) > 1 else np.zeros(len(values))
    axes.scatter(place + spread, values, color=colour, s=26, alpha=0.6, linewidths=0)
    if not len(values):
        return
    mean, half_width, _ = interval(values)
    if math.isnan(mean):
        lost = int(np.isnan(values).sum())
        axes.annotate(
            f"{lost} diverged", (place, 0.97), xycoords=("data", "axes fraction"), ha="center", color=colour
        )
        return
    error = 0.0 if math.isnan(half_width) else half_width
    axes.errorbar(place + 0.18, mean, error, color=colour, fmt="_", markersize=13, capsize=4, linewidth=2)
