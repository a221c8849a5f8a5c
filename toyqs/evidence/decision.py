"""The verdict on thinking, by its gains over the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from toyqs.evidence.arms import CONTROLS, MATCHED
from toyqs.evidence.gain import Interval, interval
from toyqs.evidence.text import listed, plus_minus

JUDGED = ("zero_length", *MATCHED)
FEWEST_SEEDS = 4
EXPLANATIONS = {"compute_matched": "training compute", "param_matched": "capacity"}


class Verdict(NamedTuple):
    """One of the words of `verdict`, and its meaning in plain English."""

    word: str
    sentence: str


def verdict(gains: Mapping[str, pd.Series]) -> Verdict:
    """Judge whether thinking helped by paired 95 % t-intervals of its gain over the controls.

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
            lost = listed(seed for seed, value in gains[name].items() if not math.isfinite(value))
            return f"Seed {lost} diverged in thinking or in {name}; leaving it out would flatter the rest."
    fewest = min(gain.count for gain in judged.values())
    if fewest < FEWEST_SEEDS:
        return f"Seeds that can be compared: {fewest}; a verdict needs at least {FEWEST_SEEDS}."
    return None


def _difference(gain: Interval) -> str:
    side = "lower" if gain.mean >= 0 else "higher"
    unsure = ", which could be chance," if gain.lower <= 0 <= gain.upper else ""
    return f"{plus_minus(abs(gain.mean), gain.half_width, '.3f')} {side}{unsure}"


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
