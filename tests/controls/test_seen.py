"""What a run hides from its steps: which controls hide it too, and which have to see it."""

from __future__ import annotations

import pytest

from tests.controls.arms import control, run
from tests.model.test_steps_alone import ALL
from toyqs.config.controls import unmatched_controls
from toyqs.tasks.iterate import Iterate

SETTINGS = {
    **ALL,
    **{"task": Iterate(n=5, k=3), "adaptive_len": True, "max_reasoning_len": 3, "use_base_lm": False},
}
DEFAULT = {
    **{"markov_reasoner": False, "interpreter_reads": "all", "hide_last_token": False},
    **{"thought_logits": "linear", "thought_logit_scale": 7.0},
}
SHOWN = {"hide_last_token": False}  # without steps nothing but the last token tells how many there would be
LINEAR = {"thought_logits": "linear", "thought_logit_scale": 7.0}  # no policy chooses symbols
CARRIED = {"markov_reasoner": False}  # such a symbol cannot carry on what its step knows
WHOLE = {"interpreter_reads": "all"}
CHANGED: dict[str, dict[str, object]] = {
    "no_reasoner": DEFAULT,
    "zero_length": DEFAULT,
    "state_handed_on": DEFAULT,
    "pause": LINEAR | CARRIED | WHOLE,
    "policy_off": {},
    "deterministic": LINEAR,
    "random": LINEAR | CARRIED,
    "constant": LINEAR | CARRIED | WHOLE,
    "reward_shuffled": {},
    "policy_reversed": {},
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_a_control_keeps_and_what_it_puts_back(name: str) -> None:
    found = control(name, **SETTINGS)
    wanted = {key: SETTINGS[key] for key in DEFAULT} | CHANGED[name]
    assert {key: getattr(found, key) for key in DEFAULT} == wanted


def test_the_table_has_every_control() -> None:
    assert set(unmatched_controls(run(**SETTINGS))) == set(CHANGED)
