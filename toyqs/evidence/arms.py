"""The arms of a comparison: the thinking run and its controls, by name."""

from __future__ import annotations

from collections.abc import Iterable

THINKING = "thinking"

MATCHED = ("state_handed_on", "pause", "compute_matched", "param_matched")
JUDGED = ("zero_length", "policy_off", *MATCHED)  # the controls by which thinking is judged

CONTROLS = {
    "no_reasoner": "the base model without thoughts, trained for as many steps",
    "zero_length": "the same model with zero-length thoughts",
    "policy_off": "the same model with thoughts that are never rewarded",
    "compute_matched": "the base model without thoughts given as much training compute",
    "param_matched": "a plain model with as many parameters",
}


def arm_names(arms: Iterable[str]) -> list[str]:
    """Return the arms, each once, in the order of display."""
    names = dict.fromkeys(arms)
    known = [arm for arm in (THINKING, *CONTROLS) if arm in names]
    return [*known, *(arm for arm in names if arm not in known)]
