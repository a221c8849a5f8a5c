"""The figure of a comparison of arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.frame import about_line, frame
from toyqs.evidence.judging.findings import Finding
from toyqs.evidence.judging.gain import column_of, mean_of
from toyqs.evidence.measures import loss_words
from toyqs.evidence.tables.comparison import setting
from toyqs.evidence.tables.references import joint_note


def comparison_figure(
    finding: Finding, curves: Mapping[str, Mapping[int, pd.DataFrame]], path: Path | str
) -> None:
    """Draw held-out learning curves of every seed (left) and every seed's final loss (right), a row per arm.

    Of more arms than colours can tell apart the left panel shows those of `marks.drawn`. Where arms train for
    different numbers of steps, the curves are drawn over FLOPs.

    Args:
        finding: as for `comparison_table`.
        curves: arm -> seed -> columns `step` and the cell's loss (held out), in the order of steps.
        path: its folder exists; the ending is replaced by each of `style.ENDINGS`, each file written whole or
            not at all.
    """
    arms, loss = finding.cell.arms, finding.cell.loss
    thinking = next(iter(arms.values()))
    floor = mean_of(thinking, "bayes_floor")
    with style.style():
        figure = style.new_figure(12, max(4.2, 1.2 + 0.35 * len(arms)))
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        drawn = marks.drawn(list(arms))
        costs = {arm: mean_of(arms[arm], "flops_per_step") for arm in drawn if len(arms[arm])}
        over_flops = _lengths_differ(arms[arm] for arm in costs) and None not in costs.values()
        for arm in reversed(drawn):  # the first arm on top
            _draw_curves(left, arm, curves.get(arm, {}), costs.get(arm) if over_flops else 1.0, loss)
        _draw_final(right, arms, floor, loss)
        marks.draw_floor(left, floor)
        style.log_axis(left)
        unit = "FLOPs of training so far" if over_flops else "training steps"
        left.set(
            xlabel=f"{unit} (log scale)", ylabel=f"held-out {loss_words([loss])}, nats per counted position"
        )
        some = "" if len(drawn) == len(arms) else "judged arms, "
        left.set_title(f"While training: {some}thin lines are seeds, thick their mean")
        right.set_title("At the end: every seed, mean and 95 % interval")
        marks.legend(figure, drawn, floor is not None)
        about = [about_line([finding.cell])]
        about += [f"Verdict: {finding.verdict.text}"] if finding.gains and finding.verdict else []
        question = "Does thinking help?" if finding.cell.thinks else "What is the loss without thoughts?"
        frame(figure, question, about, [setting(finding.cell), *joint_note([finding.cell])])
        for ending in style.ENDINGS:
            style.save(figure, Path(path).with_suffix(ending))


def _lengths_differ(frames: Iterable[pd.DataFrame]) -> bool:
    """Tell whether runs train for different numbers of steps."""
    return len({steps for frame in frames if "train_steps" in frame for steps in frame["train_steps"]}) > 1


def _draw_curves(
    axes: Axes, arm: str, curves: Mapping[int, pd.DataFrame], cost: float | None, loss: str
) -> None:
    """Draw an arm's curves over what its steps cost, `cost` each."""
    # a logarithmic axis has no place for what was measured before the first step
    seeds = {
        seed: curve[curve["step"] > 0].set_index("step")[loss].astype(float) for seed, curve in curves.items()
    }
    each = cost or 1.0
    for curve in seeds.values():
        look: dict[str, Any] = {"linewidth": style.points(0.8), "alpha": 0.45}
        axes.plot(curve.index * each, curve, color=style.arm_colour(arm), **look)
    if seeds:
        mean = pd.concat(seeds, axis=1, join="inner").mean(axis=1, skipna=False)
        marks.draw_mean(axes, arm, mean.set_axis(mean.index * each))


def _draw_final(axes: Axes, arms: Mapping[str, pd.DataFrame], floor: float | None, loss: str) -> None:
    values = {arm: column_of(frame, loss) for arm, frame in arms.items()}
    names = []
    for place, (arm, seeds) in enumerate(values.items()):
        marks.draw_arm(axes, arm, [place], [seeds], sideways=True)
        lost = int(seeds.isna().sum())
        names.append(style.arm_name(arm) + (f"\n({lost} diverged)" if lost else ""))
    added = marks.fit(
        [axes], "x", {arm: [seeds] for arm, seeds in values.items()}, [] if floor is None else [floor]
    )
    marks.draw_floor(axes, floor, sideways=True)
    marks.label_rows(axes, names)
    axes.set_xlabel(f"held-out {loss_words([loss])}, nats per counted position{added}")
