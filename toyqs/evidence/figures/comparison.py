"""The figure of a comparison of arms."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from toyqs.evidence.figures import marks, style
from toyqs.evidence.judging.findings import Finding
from toyqs.evidence.judging.gain import column_of, mean_of
from toyqs.evidence.tables.comparison import setting


def comparison_figure(
    finding: Finding, curves: Mapping[str, Mapping[int, pd.DataFrame]], path: Path | str
) -> None:
    """Draw held-out learning curves of every seed (left) and every seed's final loss (right), a row per arm.

    Of more arms than colours can tell apart the left panel shows those of `marks.drawn`.

    Args:
        finding: as for `comparison_table`.
        curves: arm -> seed -> columns `step`, `nll` (held out), in the order of steps.
        path: its folder exists; written whole or not at all.
    """
    arms = finding.cell.arms
    thinking = next(iter(arms.values()))
    floor = mean_of(thinking, "bayes_floor")
    with style.style():
        figure = style.new_figure(12, max(5.0, 2.0 + 0.33 * len(arms)))
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        drawn = marks.drawn(list(arms))
        for arm in reversed(drawn):  # the first arm on top
            _draw_curves(left, arm, curves.get(arm, {}))
        _draw_final(right, arms, floor)
        marks.draw_floor(left, floor)
        style.log_axis(left)
        left.set(xlabel="training steps (log scale)", ylabel="held-out NLL, nats per counted position")
        some = "" if len(drawn) == len(arms) else "judged arms, "
        left.set_title(f"While training: {some}thin lines are seeds, thick their mean")
        right.set_title("At the end: every seed, mean and 95 % interval")
        marks.legend(figure, drawn, floor is not None)
        title = setting(finding.cell).replace(", ", "\n", 1)
        if finding.gains and finding.verdict:
            title += "\n" + textwrap.fill(f"verdict: {finding.verdict.text}", 140)
        figure.suptitle(title, fontsize=12)
        style.save(figure, path)


def _draw_curves(axes: Axes, arm: str, curves: Mapping[int, pd.DataFrame]) -> None:
    # a logarithmic axis has no place for what was measured before the first step
    seeds = {
        seed: curve[curve["step"] > 0].set_index("step")["nll"].astype(float)
        for seed, curve in curves.items()
    }
    for curve in seeds.values():
        axes.plot(curve.index, curve, color=style.arm_colour(arm), linewidth=0.8, alpha=0.45)
    if seeds:
        marks.draw_mean(axes, arm, pd.concat(seeds, axis=1, join="inner").mean(axis=1, skipna=False))


def _draw_final(axes: Axes, arms: Mapping[str, pd.DataFrame], floor: float | None) -> None:
    values = {arm: column_of(frame, "nll") for arm, frame in arms.items()}
    for place, (arm, seeds) in enumerate(values.items()):
        marks.draw_arm(axes, arm, [place], [seeds], sideways=True)
        if lost := int(seeds.isna().sum()):
            where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "ha": "right"}
            axes.annotate(f"{lost} diverged", (0.99, place), color=style.arm_colour(arm), **where)
    added = marks.fit(
        [axes], "x", {arm: [seeds] for arm, seeds in values.items()}, [] if floor is None else [floor]
    )
    marks.draw_floor(axes, floor, sideways=True)
    marks.label_rows(axes, [style.arm_name(arm) for arm in arms])
    axes.set_xlabel(f"held-out NLL, nats per counted position{added}")
