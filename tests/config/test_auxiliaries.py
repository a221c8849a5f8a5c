"""What stands beside the thoughts: only what the run reads."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.tiny import SYMBOLS, config
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import assemble
from toyqs.config.identity import run_key

TEMPERED = {"objective": "listwise"}


def tells(**changes: Any) -> set[str]:
    return set(assemble(config(**changes), 1).extra_predictions)


@pytest.mark.parametrize(
    "idle",
    [
        TEMPERED | {"baseline": "null_thought"},
        TEMPERED | {"baseline": "average_thought"},
        {"reference": "no_thought"},
        {"reference": "no_thought", **TEMPERED},
    ],
)
def test_what_nothing_reads_is_not_computed(idle: dict[str, Any]) -> None:
    """So that two spellings of one run also cost the same."""
    plain = config(**{key: value for key, value in idle.items() if key == "objective"})
    assert run_key(config(**idle), 0) == run_key(plain, 0)
    assert not tells(**idle)
    assert count_cost(config(**idle)) == count_cost(plain)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"baseline": "null_thought"}, {"base"}),
        ({"baseline": "average_thought"}, {"average"}),
        ({"baseline": "value", "value_sees": "base_prediction"}, {"base"}),
        ({"reward": "log_ratio", "reference": "no_thought"}, {"base"}),
        ({"reward": "log_ratio", "reference": "no_thought", **TEMPERED}, {"base"}),
    ],
)
def test_what_something_reads_is(changes: dict[str, Any], told: set[str]) -> None:
    assert tells(**changes) == told


def test_greedy_thoughts_are_decoded_for_the_baseline_that_reads_them_alone() -> None:
    assert assemble(config(baseline="greedy_thought"), 1).greedy_head is not None
    assert assemble(config(baseline="greedy_thought", **TEMPERED), 1).greedy_head is None


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"value_sees": "context"}, -math.log(SYMBOLS)),
        ({"value_sees": "target", "n_tokens_ahead": 2}, -math.log(SYMBOLS)),
        ({"value_sees": "average_thought"}, 0.0),
        ({"value_sees": "context", "reward": "accuracy"}, 0.0),
    ],
)
def test_a_value_that_knows_no_prediction_starts_from_a_uniform_one(
    changes: dict[str, Any], start: float
) -> None:
    """From its likelihood, token by token."""
    assert assemble(config(baseline="value", **changes), 1).critic.start == start


def test_a_learned_reward_starts_there_too() -> None:
    for reward, start in (("likelihood", -2 * math.log(SYMBOLS)), ("accuracy", 0.0)):
        model = assemble(config(learned_reward=True, n_tokens_ahead=2, reward=reward), 1)
        assert model.reward_model.start == pytest.approx(start)
