"""Thoughts that are handed on: the expected gradient, over all thoughts of all chains, and mutants of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.chains import plain_chain
from toyqs.model.chains import chain_reasoner
from toyqs.objectives import advantages
from toyqs.objectives.policy import reinforce
from toyqs.objectives.policy.reinforce import Reinforce, ReinforceInChains
from toyqs.positions import focus, thinking_positions
from toyqs.types import Batch, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
CHAINS = 2  # K


def check(objective: Reinforce, **changes: Any) -> None:
    """Check that E[∇(policy + nll)] is −∇ E_h[Σ_t w_t log q(y_t | h_≤t)] / Σ_t w_t."""
    settings = plain_chain.config(**changes)
    every = plain_chain.EVERY
    index = torch.cartesian_prod(*[torch.arange(len(every))] * CHAINS)  # of the chains' thoughts, 8^K tuples
    forced = every[index].transpose(1, 2).unsqueeze(1)  # (S, 1, T, K, L)
    built, copies = tiny.model(settings, len(index)), plain_chain.batch(len(index))
    positions = thinking_positions(copies)
    focused = focus(copies, positions)
    trace = built(copies.inputs, positions, torch.empty(0), forced, focused.targets.unsqueeze(-1))
    parts = objective(trace, focused).parts
    probability = trace.log_prob.detach().sum((1, 2, 3, 4)).exp()
    error = float((probability.sum() - 1).abs())
    assert error < 1e-10, f"probabilities: off by {error:.3g}"
    got = tiny.Enumeration(built, trace, focused, probability).expected(parts["policy"] + parts["nll"])
    close(got, wanted(plain_chain.config(**changes)))


def wanted(settings: Any) -> tiny.Gradients:
    built, one = tiny.model(settings), plain_chain.batch()
    focused, value = focus(one, thinking_positions(one)), torch.zeros(()).double()
    for thoughts in plain_chain.EVERY:
        found = plain_chain.chain(built, settings, one.inputs[0, 0], thoughts)
        log_q = found.log_q.gather(-1, focused.targets[0, 0].unsqueeze(-1)).squeeze(-1)
        value = value + found.log_prob.sum().exp() * (focused.weights[0, 0] * log_q).sum()
    return {name: g[0] for name, g in tiny.gradients(-value / focused.weights.sum(), built).items()}


def close(got: tiny.Gradients, truth: tiny.Gradients) -> None:
    assert float(truth["carry.weight"].norm()) > 1e-4, "nothing is handed on"
    tiny.close(got, truth)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD", "ABAB"])
@BACKBONES
def test_the_reward_of_all_that_follows_is_unbiased(groups: str, start: str) -> None:
    check(ReinforceInChains(baseline="leave_one_out"), weight_groups=groups, interpreter_start=start)


@pytest.mark.parametrize("mixing", ["base", "add", "gate", "logits"])
@pytest.mark.parametrize("groups", ["AABC", "ABCD"])
def test_the_same_with_other_mixers(groups: str, mixing: str) -> None:
    check(ReinforceInChains(baseline="none"), weight_groups=groups, mixing=mixing)


def test_a_thought_that_is_all_there_is_to_predict_from() -> None:
    check(ReinforceInChains(baseline="leave_one_out"), weight_groups="AABC", mixing="thought")


def own_position(reward: Tensor, weights: Tensor) -> Tensor:
    return reward * weights.unsqueeze(-1)


def of_other_positions(reward: Tensor) -> Tensor:
    return (reward.sum(2, keepdim=True) - reward) / (reward.shape[2] - 1)


def caught(objective: Reinforce, **changes: Any) -> None:
    for groups in ("AABC", "ABCD"):
        with pytest.raises(AssertionError, match="off by"):
            check(objective, weight_groups=groups, **changes)


LEAVE_ONE_OUT = ReinforceInChains(baseline="leave_one_out")


def test_a_reward_of_the_own_position_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reinforce, "to_go", own_position)
    caught(LEAVE_ONE_OUT)


def test_a_baseline_of_other_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = advantages.Baseline(of_other_positions)
    monkeypatch.setitem(advantages.BASELINES, "leave_one_out", mutant)
    caught(LEAVE_ONE_OUT)


def test_a_reading_that_is_handed_to_its_own_position(monkeypatch: pytest.MonkeyPatch) -> None:
    right = chain_reasoner.put_positions
    monkeypatch.setattr(chain_reasoner, "put_positions", lambda x, at, size: right(x, at - 1, size))
    caught(LEAVE_ONE_OUT)


def test_a_thought_that_counts_by_its_own_positions_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    def weighted(self: Reinforce, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        return Reinforce.policy_loss(self, reinforce.to_go(reward, batch.weights), trace, batch)

    monkeypatch.setattr(ReinforceInChains, "policy_loss", weighted)
    caught(LEAVE_ONE_OUT)


def test_an_objective_that_knows_no_chains() -> None:
    caught(Reinforce(baseline="leave_one_out"))
