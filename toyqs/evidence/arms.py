"""The arms of a comparison: the thinking run and its controls, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

THINKING = "thinking"

NONE: Mapping[str, str] = MappingProxyType({})  # no control is one run with another arm

MATCHED = ("state_handed_on", "pause", "compute_matched", "param_matched")
# The controls by which thinking is judged.
JUDGED = ("zero_length", "state_handed_on", "pause", "policy_off", "compute_matched", "param_matched")
WITHOUT_CONTENT = ("pause", "random", "constant")  # whose symbols can tell nothing of what was read

CONTROLS = {
    "no_reasoner": "the base model without thoughts, trained for as many steps",
    "zero_length": "zero-length thoughts (read afresh: without base_reasoner and reasoner)",
    "state_handed_on": "the same parts without symbols, the reasoner's state handed on to the interpreter",
    "pause": "the same parts with as many steps of one constant symbol, back-propagated",
    "policy_off": "the same model with thoughts that are never rewarded",
    "deterministic": "the reasoner's own states as thoughts, back-propagated (Coconut)",
    "random": "thoughts drawn at random, whatever the context",
    "constant": "thoughts of one constant symbol",
    "reward_shuffled": "thoughts rewarded by what those of another position earned",
    "policy_reversed": "thoughts with the sign of the policy loss reversed",
    "compute_matched": "the base model without thoughts given as much training compute",
    "param_matched": "a plain model with as many parameters",
}


def own_arm(settings: Mapping[str, Any]) -> str:
    """Return which arm a run itself is: thinking, or the control that it is where it has no thoughts."""
    if not settings.get("use_reasoner", True):
        return "no_reasoner"
    return THINKING if settings.get("max_reasoning_len", 1) else "zero_length"


def control_words(control: str, settings: Mapping[str, Any]) -> str:
    """Return what a control of a run with these settings is, in a few words; "" of one that is not known."""
    if control == "zero_length" and settings.get("interpreter_start") == "onward":
        return "zero-length thoughts (the interpreter goes on from the reasoner's state)"
    if control == "zero_length" and not settings.get("use_base_lm", True):
        return "zero-length thoughts (read afresh and without a base LM: it sees nothing of the context)"
    return CONTROLS.get(control, "")


def arm_names(arms: Iterable[str]) -> list[str]:
    """Return the arms, each once, in the order of display."""
    names = dict.fromkeys(arms)
    known = [arm for arm in (THINKING, *CONTROLS) if arm in names]
    return [*known, *(arm for arm in names if arm not in known)]


def one_run(same: Mapping[str, str]) -> list[str]:
    """Return a line on each control that is one run with another arm, and is shown under that arm's name.

    Args:
        same: control -> the arm under whose name it is shown.
    """
    return [f"{control}: one run with {arm}, and shown as that" for control, arm in same.items()]
