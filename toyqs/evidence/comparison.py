"""A comparison of arms: a table to read, a table to load, a figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from toyqs.evidence import style
from toyqs.evidence.decision import verdict
from toyqs.evidence.divergence import divergence_notes
from toyqs.evidence.findings import OTHERS_ALONE, without_thought
from toyqs.evidence.gain import CONTROLS, estimate, interval, paired_gains
from toyqs.evidence.text import WIDTH, aligned, human, listed, plus_minus, short, task_words
from toyqs.files import write_text

COSTS = ("parameters", "recurrent_steps_per_token", "flops_per_token", "train_steps", "cpu_seconds")
HEADINGS = (
    ("", "NLL", "accuracy", "gain of thinking", "used", "recurrent", "FLOPs", "train", "CPU s"),
    ("arm", "nats", "%", "over this arm, nats", "params", "steps/tok", "/token", "steps", "/seed"),
)


def comparison_table(arms: Mapping[str, pd.DataFrame]) -> str:
    """Return the comparison as plain text, at most 110 columns wide, with the verdict under it.

    Args:
        arms: one row per seed in each; the thinking arm first, then its controls in the order of display.

    Returns:
        Lines without a newline at the end.

    Raises:
        ValueError: the thinking arm has no rows, or an arm two rows for one seed.
    """
    lines = ["", *_grid(comparison_frame(arms)), ""]
    thinking, gains = next(iter(arms.values())), paired_gains(arms)
    if gains:
        symbols = "±: half of a 95 % t-interval over seeds; "
        symbols += "gain: this arm's NLL minus thinking's, paired by seed"
        lines += [symbols, *(f"{arm}: {CONTROLS[arm]}" for arm in gains if arm in CONTROLS), ""]
    lines += _notes(arms)
    if gains:
        word, sentence = verdict(gains)
        lines += ["", f"Verdict: {word}.", *textwrap.wrap(sentence, WIDTH)]
    return "\n".join([*_title(thinking), *lines]).rstrip("\n")


def comparison_frame(arms: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the comparison as numbers, one row per arm.

    Args:
        arms: as for `comparison_table`.

    Returns:
        Indexed by arm: `seeds` (their number); `nll`, `accuracy` and `gain` (of thinking over the arm), each
        with its `_half_width` (95 % t over seeds); the costs, each a mean over seeds.

    Raises:
        ValueError: as `comparison_table`.
    """
    if next(iter(arms.values())).empty:
        raise ValueError("the thinking arm has no complete run, so there is nothing to compare")
    gains, rows = paired_gains(arms), {}
    for arm, frame in arms.items():
        row: dict[str, float] = {"seeds": len(frame)}
        values = {
            "nll": _column(frame, "nll"),
            "accuracy": _column(frame, "accuracy"),
            "gain": gains.get(arm),
        }
        for name, column in values.items():
            mean, half_width, _ = estimate(column)
            row |= {name: mean, f"{name}_half_width": half_width}
        rows[arm] = row | {name: float(_column(frame, name).mean()) for name in COSTS}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def comparison_csv(arms: Mapping[str, pd.DataFrame], path: Path | str) -> None:
    """Write `comparison_frame` as CSV so that a reader sees the whole file or none.

    Args:
        arms: as for `comparison_table`.
        path: its folder exists.
    """
    write_text(path, comparison_frame(arms).to_csv())


def comparison_figure(
    arms: Mapping[str, pd.DataFrame], curves: Mapping[str, Mapping[int, pd.DataFrame]], path: Path | str
) -> None:
    """Draw held-out learning curves of every seed (left) and every seed's final loss (right).

    Args:
        arms: as for `comparison_table`.
        curves: arm -> seed -> columns `step`, `nll` (held out), in the order of steps.
        path: its folder exists; written whole or not at all.
    """
    thinking = next(iter(arms.values()))
    with style.style():
        figure = style.new_figure()
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
        for place, (arm, frame) in enumerate(arms.items()):
            _draw_curves(left, arm, curves.get(arm, {}))
            _draw_final(right, arm, place, frame)
        floor = _mean(thinking, "bayes_floor")
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
        figure.suptitle(_setting(thinking).replace(", ", "\n", 1), fontsize=12)
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
    values = _column(frame, "nll").to_numpy()
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


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return the metric as floats, NaN where a row has none; empty where no row has any."""
    if name not in frame or (name != "nll" and frame[name].isna().all()):
        return pd.Series(dtype=float)
    return pd.to_numeric(frame[name]).astype(float)


def _mean(frame: pd.DataFrame, name: str) -> float | None:
    column = _column(frame, name)
    return None if column.empty else float(column.mean())


def _title(frame: pd.DataFrame) -> list[str]:
    floor = _mean(frame, "bayes_floor")
    best = "not known" if floor is None else f"{floor:.3f} nats"
    return [
        *textwrap.wrap(_setting(frame), WIDTH),
        f"Best possible NLL (Bayes), per counted position: {best}",
    ]


def _setting(frame: pd.DataFrame) -> str:
    row = frame.iloc[0]
    widths = {"base width": "base_lm_hidden_dim", "reasoner width": "reasoner_hidden_dim"}
    parts = [f"{word} {row[name]:g}" for word, name in widths.items() if pd.notna(row.get(name))]
    return ", ".join([task_words(row.to_dict()), *parts, f"seeds {listed(frame['seed'])}"])


def _grid(frame: pd.DataFrame) -> list[str]:
    lines: list[Sequence[str]] = [*HEADINGS]
    for arm, row in frame.iterrows():
        nll = plus_minus(row["nll"], row["nll_half_width"], ".3f", nothing="diverged")
        accuracy = plus_minus(100 * row["accuracy"], 100 * row["accuracy_half_width"], ".1f")
        gain = plus_minus(row["gain"], row["gain_half_width"], "+.3f")
        costs = [f"{row[name]:,.0f}" if name == "train_steps" else human(row[name]) for name in COSTS]
        lines.append((str(arm), nll, accuracy, gain, *costs))
    return aligned(list(zip(*lines, strict=True)), left=[0], rule=True)


def _notes(arms: Mapping[str, pd.DataFrame]) -> list[str]:
    (_, thinking), *_ = arms.items()
    notes, started = [], []
    for arm, frame in arms.items():
        have = set() if frame.empty else set(frame["seed"])
        if lacking := set(thinking["seed"]) - have:
            notes.append(f"Not finished: {arm}, seed {listed(lacking)}.")
        if "started" in frame and frame["started"].notna().any():
            never = frame.loc[frame["started"].eq(False), "seed"]
            names = f" (never: seed {listed(never)})" if len(never) else ""
            started.append(f"{arm} {len(frame) - len(never)} of {len(frame)} seeds{names}")
    for note in divergence_notes(arms):
        notes += textwrap.wrap(note, WIDTH)
    if started:
        alone = "" if without_thought(thinking) else f" This is {OTHERS_ALONE}."
        notes += textwrap.wrap(f"Started to think: {'; '.join(started)}.{alone}", WIDTH)
    return notes + _thoughts(thinking)


def _thoughts(frame: pd.DataFrame) -> list[str]:
    """Return two sentences on whether the thoughts are used, from means over seeds."""
    words = {
        "nll": "with its own thought",
        "nll_shuffled": "with a thought from another place",
        "nll_no_thought": "without a thought",
        "nll_marginal": "averaging the predictions of all its thoughts",
    }
    more = ("thought_entropy", "information", "information_shuffled")
    means = {name: _mean(frame, name) for name in (*words, *more)}
    if means["nll_shuffled"] is None:
        return []
    known = {text: mean for name, text in words.items() if (mean := means[name]) is not None}
    losses = [f"{short(mean, '.3f')} {text}" for text, mean in known.items()]
    sentences = f"NLL of the thinking model: {', '.join(losses)}."
    if means["thought_entropy"] is not None:
        sentences += f" Entropy of a thought: {short(means['thought_entropy'], '.2f')} nats."
    if means["information"] is not None:
        sentences += f" A thought tells {short(means['information'], '.2f')} nats about what was read"
        chance = means["information_shuffled"]
        sentences += "." if chance is None else f"; one from another place tells {short(chance, '.2f')}."
    return textwrap.wrap(sentences, WIDTH)
