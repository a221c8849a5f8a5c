"""A learned reward's settings: what is refused, what cannot matter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.checks.checking import accepted, refused
from tests.keys import same

LEARNED = {"learned_reward": True}
ON_A_PATH = {"objective": "pathwise", "thoughts": "gaussian", "latent_dim": 2}


def test_what_it_goes_with() -> None:
    for changes in ({}, {"objective": "vargrad"}, {"baseline": "value"}, {"n_tokens_ahead": 2}):
        assert accepted(**LEARNED, **changes) == []


def test_an_objective_without_a_policy_is_refused() -> None:
    refused("learned_reward=true: objective=pathwise .*give learned_reward=false", **LEARNED, **ON_A_PATH)


def test_a_bound_is_not_learned() -> None:
    said = "learned_reward=true: objective=multi_sample .*give learned_reward=false"
    refused(said, **LEARNED, objective="multi_sample")


@pytest.mark.parametrize("baseline", ["null_thought", "average_thought"])
def test_a_baseline_that_was_earned_is_refused(baseline: str) -> None:
    refused(f"baseline={baseline}: .*give learned_reward=false or baseline", **LEARNED, baseline=baseline)


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (3, 1), (8, 8)])
def test_one_sequence_has_no_halves(size: int, parts: int) -> None:
    given = {"data_loader_batch_size": size, "grad_acc": parts}
    refused(f"data_loader_batch_size={size}: .* give at least 4, .* grad_acc={parts}", **LEARNED, **given)
    assert accepted(**given) == []


IDLE: list[dict[str, Any]] = [
    {"policy_loss_beta": 0.0},
    {"max_reasoning_len": 0},
    {"use_reasoner": False},
    {"policy_loss_beta": 0.0, "objective": "multi_sample"},
]


@pytest.mark.parametrize("changes", IDLE)
def test_where_nobody_is_paid_it_is_the_same_run(changes: dict[str, Any]) -> None:
    assert same(changes, LEARNED | changes)
    assert accepted(**LEARNED, **changes) == accepted(**changes)


def test_its_weight_is_the_critics() -> None:
    assert not same(LEARNED, LEARNED | {"critic_loss_beta": 2.0})
    assert same({}, {"critic_loss_beta": 2.0})


PREDICTION = LEARNED | {"reward_sees": "prediction"}


def test_a_reward_of_the_prediction_is_one_tokens_likelihood() -> None:
    assert accepted(**PREDICTION) == []
    refused("reward_sees=prediction: .*reward=accuracy is not; give reward=", **PREDICTION, reward="accuracy")
    refused("n_tokens_ahead=2: .*give n_tokens_ahead=1", **PREDICTION, n_tokens_ahead=2)
    refused("trice_samples=1: .*give trice_samples=2", **PREDICTION, trice_samples=1, baseline="none")
    assert same({}, {"reward_sees": "prediction"}) and not same(LEARNED, PREDICTION)
    hard = {"think_at": "hard"}
    refused("think_at=hard: a learned reward .*give learned_reward=false", **LEARNED, **hard)
