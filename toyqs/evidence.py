"""What rows say: gain paired by seed, mean and interval over seeds, verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

MATCHED = ("compute_matched", "param_matched")
JUDGED = ("zero_length", *MATCHED)
FEWEST_SEEDS = 4

CONTROLS = {
    "no_reasoner": "the base model without thoughts, trained for as many steps",
    "zero_length": "the same model with zero-length thoughts",
    "policy_off": "the same model with thoughts that are never rewarded",
    "compute_matched": "the base model without thoughts given as much training compute",
    "param_matched": "a plain model with as many parameters",
}
EXPLANATIONS = {"compute_matched": "training compute", "param_matched": "capacity"}


class Interval(NamedTuple):
    """A mean over seeds and half the width of its confidence interval."""

    mean: float
    half_width: float
    count: int  # type: ignore[assignment]  # tuple.count is of no use here

    @property
    def lower(self) -> float:
        """The interval's lower end."""
        return self.mean - self.half_width

    @property
    def upper(self) -> float:
        """The interval's upper end."""
        return self.mean + self.half_width


class Verdict(NamedTuple):
    """Whether thinking helped: one of the words of `verdict`, and what it means in plain English."""

    word: str
    sentence: str


def interval(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """Mean over seeds with Student's t-interval.

        x̄ ± t((1 + confidence) / 2; n − 1) · s / √n

    A value that is not finite (a diverged seed, a missing metric) makes mean and half width NaN: a mean
    over the seeds that happened to survive would flatter the arm.

    Args:
        values: one per seed, at least one.
        confidence: of the interval, between 0 and 1.

    Returns:
        half_width is NaN for one value and 0 for equal ones.

    Raises:
        ValueError: there are no values.
    """
    numbers = np.asarray(list(values), dtype=float)
    count = len(numbers)
    if not count:
        raise ValueError("interval: no values; give one per seed")
    if not np.isfinite(numbers).all():
        return Interval(math.nan, math.nan, count)
    if count == 1:
        return Interval(float(numbers[0]), math.nan, 1)
    # measured from the first value, so that equal values have a spread of exactly 0
    spread = float((numbers - numbers[0]).std(ddof=1))
    quantile = float(stdtrit(count - 1, (1 + confidence) / 2))
    return Interval(float(numbers.mean()), quantile * spread / math.sqrt(count), count)


def reasoning_gain(thinking: pd.DataFrame, control: pd.DataFrame, metric: str = "nll") -> pd.Series:
    """What thinking gains over a control, run by run.

        gain(seed) = control's metric(seed) − thinking's metric(seed)

    Runs of one seed saw the same data from the same initial base model, so their difference is paired.

    Args:
        thinking: one row per seed.
        control: one row per seed.
        metric: a column where less is better.

    Returns:
        Indexed by the seeds both arms have, ascending; nats per counted position for `nll`;
        NaN where either run diverged.

    Raises:
        ValueError: an arm has two rows for one seed, or the arms have no seed in common.
    """
    columns = []
    for frame in (thinking, control):
        column = pd.Series() if frame.empty else pd.to_numeric(frame.set_index("seed")[metric])
        if not column.index.is_unique:
            raise ValueError("reasoning_gain: two rows for one seed; give one row per seed in each arm")
        columns.append(column)
    seeds = columns[0].index.intersection(columns[1].index).sort_values()
    if seeds.empty:
        raise ValueError("reasoning_gain: the two arms have no seed in common, so nothing can be paired")
    return (columns[1].loc[seeds] - columns[0].loc[seeds]).rename("gain").rename_axis("seed")


def onset(thinking: pd.DataFrame, control: pd.DataFrame) -> int | None:
    """The evaluation from which on thinking is better than a control beyond chance.

    That it stays so is part of it: in the first steps the arms differ by a hundredth of a nat that is gone
    at the next evaluation.

    Args:
        thinking: held-out NLL, a row for each step and a column for each seed.
        control: likewise; the steps and seeds that both have are compared.

    Returns:
        The first step at which, as at all later ones, the 95 % t-interval of the paired gain lies above 0;
        None: there is none, or there are fewer than two seeds in common.
    """
    gains = (control - thinking).dropna(axis=0, how="all").dropna(axis=1, how="all")
    found = None
    for step, row in gains.sort_index(ascending=False).iterrows():
        if not interval(row).lower > 0:
            break
        found = int(step)
    return found


def verdict(gains: Mapping[str, pd.Series]) -> Verdict:
    """Whether thinking helped, judged by paired 95 % t-intervals of its gain over the controls.

    The matched controls are compute_matched and param_matched; only they and zero_length are judged.
    The first line that holds gives the word:

        no verdict                       none of the judged controls was run, or one has fewer than 4 seeds in
                                         common with thinking, or a gain is not finite (a seed diverged)
        hurts                            upper end < 0 against zero_length
        helps                            lower end > 0 against every matched control in the set, at least one
        helps at this base width only    lower end > 0 against zero_length
        no evidence                      otherwise

    So a contradiction (above the matched controls, below zero_length) is *hurts*. Above the matched controls
    without being above zero_length is *helps*, and the sentence adds that the thoughts' content is not shown
    to matter. Without a matched control *helps* is out of reach, for nothing rules capacity or compute out.
    Equal gains at every seed have an interval of width 0, and a gain of exactly 0 is neither above nor below.

    Args:
        gains: `reasoning_gain` over each control, by the control's name.

    Returns:
        The word, and sentences with every number behind it.
    """
    judged = {name: interval(gains[name]) for name in JUDGED if name in gains}
    if reason := _no_verdict(judged, gains):
        return Verdict("no verdict", reason)
    zero = judged.get("zero_length")
    matched = {name: judged[name] for name in MATCHED if name in judged}
    if zero and zero.upper < 0:
        word, meaning = "hurts", "The thoughts make the predictions worse than having none."
    elif matched and all(gain.lower > 0 for gain in matched.values()):
        word, meaning = "helps", _meaning_helps(zero, matched)
    elif zero and zero.lower > 0:
        word, meaning = "helps at this base width only", _meaning_width(matched)
    else:
        word, meaning = "no evidence", "These seeds show thinking neither to help nor to hurt."
    clauses = [f"{_difference(gain)} than {CONTROLS[name]}" for name, gain in judged.items()]
    numbers = f"Thinking's loss, in nats per counted position, is {'; '.join(clauses)}."
    return Verdict(word, f"{numbers} {meaning}")


def _no_verdict(judged: Mapping[str, Interval], gains: Mapping[str, pd.Series]) -> str | None:
    if not judged:
        return "Neither zero_length nor a matched control was run, so there is nothing to judge thinking by."
    for name, gain in judged.items():
        if not math.isfinite(gain.mean):
            lost = ", ".join(str(seed) for seed, value in gains[name].items() if not math.isfinite(value))
            return f"Seed {lost} diverged in thinking or in {name}; leaving it out would flatter the rest."
    fewest = min(gain.count for gain in judged.values())
    if fewest < FEWEST_SEEDS:
        return f"Seeds that can be compared: {fewest}; a verdict needs at least {FEWEST_SEEDS}."
    return None


def _difference(gain: Interval) -> str:
    side = "lower" if gain.mean >= 0 else "higher"
    unsure = ", which could be chance," if gain.lower <= 0 <= gain.upper else ""
    return f"{abs(gain.mean):.3f} ± {gain.half_width:.3f} {side}{unsure}"


def _meaning_helps(zero: Interval | None, matched: Mapping[str, Interval]) -> str:
    ruled_out, *more = (EXPLANATIONS[name] for name in matched)
    meaning = f"More {ruled_out} alone does not explain the gain"
    if more:
        meaning = f"Neither more {ruled_out} nor more {more[0]} explains the gain"
    else:
        meaning += "; the other matched control was not run"
    if zero and zero.lower <= 0:
        meaning += ". But zero-length thoughts do about as well: what the thoughts say is not shown to matter"
    return f"{meaning}."


def _meaning_width(matched: Mapping[str, Interval]) -> str:
    if not matched:
        return "No control with as much capacity or compute was run, so either may explain the gain."
    reasons = []
    for name, gain in matched.items():
        if gain.upper < 0:
            reasons.append(f"{CONTROLS[name]} does better: {EXPLANATIONS[name]} explains the gain")
        elif gain.lower <= 0:
            reasons.append(f"{CONTROLS[name]} may do as well: {EXPLANATIONS[name]} may explain the gain")
    return f"Thoughts lift a base model of this width, but {'; '.join(reasons)}."
