"""A comparison of arms: a table to read, a table to load."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from toyqs.evidence.arms import CONTROLS, NONE, one_run
from toyqs.evidence.decision import verdict
from toyqs.evidence.divergence import divergence_notes
from toyqs.evidence.findings import OTHERS_ALONE, without_thought
from toyqs.evidence.gain import estimate, paired_gains
from toyqs.evidence.text import WIDTH, aligned, human, listed, plus_minus, short, task_words
from toyqs.files import write_text

COSTS = ("parameters", "recurrent_steps_per_token", "flops_per_token", "train_steps", "cpu_seconds")
HEADINGS = (
    ("", "NLL", "accuracy", "gain of thinking", "used", "recurrent", "FLOPs", "train", "CPU s"),
    ("arm", "nats", "%", "over this arm, nats", "params", "steps/tok", "/token", "steps", "/seed"),
)


def comparison_table(arms: Mapping[str, pd.DataFrame], same: Mapping[str, str] = NONE) -> str:
    """Return the comparison as plain text, at most 110 columns wide, with the verdict under it.

    Args:
        arms: one row per seed in each; the thinking arm first, then its controls in the order of display.
        same: control -> the arm that is one run with it, and is shown for both.

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
        lines += [symbols, *(f"{arm}: {CONTROLS[arm]}" for arm in gains if arm in CONTROLS)]
        lines += [*one_run(same), ""]
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
            "nll": column_of(frame, "nll"),
            "accuracy": column_of(frame, "accuracy"),
            "gain": gains.get(arm),
        }
        for name, column in values.items():
            mean, half_width, _ = estimate(column)
            row |= {name: mean, f"{name}_half_width": half_width}
        rows[arm] = row | {name: float(column_of(frame, name).mean()) for name in COSTS}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def comparison_csv(arms: Mapping[str, pd.DataFrame], path: Path | str) -> None:
    """Write `comparison_frame` as CSV so that a reader sees the whole file or none.

    Args:
        arms: as for `comparison_table`.
        path: its folder exists.
    """
    write_text(path, comparison_frame(arms).to_csv())


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return the metric as floats, NaN where a row has none; empty where no row has any."""
    if name not in frame or (name != "nll" and frame[name].isna().all()):
        return pd.Series(dtype=float)
    return pd.to_numeric(frame[name]).astype(float)


def mean_of(frame: pd.DataFrame, name: str) -> float | None:
    """Return a metric's mean over seeds; None where no row has it."""
    column = column_of(frame, name)
    return None if column.empty else float(column.mean())


def _title(frame: pd.DataFrame) -> list[str]:
    floor = mean_of(frame, "bayes_floor")
    best = "not known" if floor is None else f"{floor:.3f} nats"
    return [
        *textwrap.wrap(setting(frame), WIDTH),
        f"Best possible NLL (Bayes), per counted position: {best}",
    ]


def setting(frame: pd.DataFrame) -> str:
    """Return the task, the widths and the seeds of an arm in one line."""
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
    return notes + _thoughts(thinking) + _language(thinking)


def _thoughts(frame: pd.DataFrame) -> list[str]:
    """Return two sentences on whether the thoughts are used, from means over seeds."""
    words = {
        "nll": "with its own thought",
        "nll_shuffled": "with a thought from another place",
        "nll_no_thought": "without a thought",
        "nll_marginal": "averaging the predictions of all its thoughts",
    }
    more = ("thought_entropy", "information", "information_shuffled")
    means = {name: mean_of(frame, name) for name in (*words, *more)}
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


def _language(frame: pd.DataFrame) -> list[str]:
    """Return a line on thoughts whose symbols are tokens: how far they are a code for the answers."""
    names = ("homogeneity", "completeness", "distinct_thoughts", "pass_at_k")
    means = [mean_of(frame, name) for name in names]
    if means[0] is None:
        return []
    tells, told, distinct, passes = (math.nan if mean is None else mean for mean in means)
    return [
        f"Thoughts as a code: homogeneity {plus_minus(tells, math.nan, '.2f')}, completeness "
        f"{plus_minus(told, math.nan, '.2f')} (0 by chance, 1 at most), {distinct:.0f} distinct, "
        f"pass@K {100 * passes:.1f} %."
    ]
