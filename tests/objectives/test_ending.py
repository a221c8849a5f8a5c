"""Thoughts of variable length: every one of them summed exactly, what their length costs, broken versions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.model import interpreter, latent_reasoner, thoughts
from toyqs.model.core import step_live
from toyqs.model.thoughts import Symbols
from toyqs.objectives.policy.maxent import MaxEnt, maxent
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.objectives.rewards import penalty
from toyqs.types import Thoughts, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
EXTRAS: list[dict[str, Any]] = [
    {},
    {"share_lm_head": True, "mixing": "add"},
    {"thought_vocab": 2},
    {"thought_vocab": 2, "max_reasoning_len": 1},
]


def world(**changes: Any) -> tuple[Any, Tensor]:
    """Settings of variable length, and all thoughts."""
    settings = tiny.config(variable_len=True, **changes)
    return settings, tiny.ending(settings.thought_vocab or tiny.SYMBOLS, settings.max_reasoning_len)


def check(**changes: Any) -> None:
    """The probabilities add up to 1, and E[∇ reinforce] = ∇ Σ_h π(h) log q(y | h)."""
    settings, every = world(**changes)
    total = float(tiny.enumerate_tuples(settings, 1, every).probability.sum())
    assert abs(total - 1.0) < 1e-12, f"off by {total - 1.0:.3g}"
    tiny.check_expected_gradient(settings, Reinforce(), 2, every)


def test_the_thoughts_are_all_there_are_each_once() -> None:
    assert tiny.ending(2).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 2]]
    assert len(tiny.ending(3)) == 1 + 3 + 9 and tiny.ending(2, 1).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_reinforce_is_unbiased(groups: str, start: str, extra: dict[str, Any]) -> None:
    check(weight_groups=groups, interpreter_start=start, **extra)


# What is taken from the reward.

COSTS = {"length_penalty": 0.3, "punish_unfinished": 0.8}


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "ABBA", "ABCD"])
@BACKBONES
def test_maxent_climbs_reward_less_costs_and_entropy(groups: str, start: str) -> None:
    settings, all_thoughts = world(weight_groups=groups, interpreter_start=start, thought_vocab=2)
    every, truth = tiny.enumerate_tuples(settings, 2, all_thoughts), tiny.exact(settings, all_thoughts)
    trace = every.trace._replace(penalty=penalty(every.trace, COSTS))
    parts = MaxEnt(temperature=0.4)(trace, every.batch).parts
    length = (all_thoughts < 2).sum(-1).double()
    cost = 0.3 * length + 0.8 * (length == 2).double()
    log_prob = truth.log_prob.sum(-1)
    wanted = -(truth.probability * (truth.log_q - cost - 0.4 * log_prob)).sum()
    tiny.close(every.expected(parts["policy"] + parts["nll"]), truth.gradient(wanted))


def test_the_best_policy_weighs_length_against_reward() -> None:
    """A table of four thoughts of two lengths descends to π* ∝ exp((r − c · length) / β)."""
    length, beta = torch.tensor([1, 1, 3, 3]), 0.5
    reward = torch.tensor([0.1, -0.4, 0.9, 0.3], dtype=torch.float64)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    group = torch.arange(4).view(1, 1, 1, 4)  # every thought once, each as likely as the policy has it
    trace = Trace(torch.zeros(1, dtype=torch.float64), length=length[group], unfinished=length[group] == 3)
    charged = reward[group] - penalty(trace, COSTS)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    for _ in range(400):
        log_prob = logits.log_softmax(0)
        each = maxent(charged[0, 0, 0, pairs][:, None, None], log_prob[pairs][:, None, None], beta)
        loss = (log_prob.detach().exp()[pairs].prod(-1) * each[:, 0, 0]).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        logits.data -= 2.0 * gradient
    costs = 0.3 * length.double() + 0.8 * (length == 3).double()
    wanted = ((reward - costs) / beta).softmax(0)
    torch.testing.assert_close(logits.softmax(0), wanted, rtol=0, atol=1e-8)


def test_nothing_is_taken_where_nothing_costs() -> None:
    trace = Trace(torch.zeros(1), length=torch.ones(1, 1, 1, 2).long())
    assert penalty(trace, {}) is None and penalty(trace, {"length_penalty": 0.0}) is None
    with pytest.raises(ValueError, match=r"trace\.unfinished"):
        penalty(trace, COSTS)


# Broken versions: each must fail the oracle.


def caught(start: str) -> None:
    for groups in ("AAAA", "AABB", "ABCD"):
        with pytest.raises(AssertionError, match="off by"):
            check(weight_groups=groups, interpreter_start=start)


@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_a_state_that_is_not_held(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    """After the end the reasoner goes on (onward), the interpreter reads on (afresh)."""
    memory = type(tiny.model(tiny.config()).cores["A"].backbone)
    monkeypatch.setattr(memory, "keep_ended", lambda self, new, old, live: new)
    caught(start)


def on_padding(core: Any, symbols: Tensor, rows: Tensor, state: Any, live: Tensor) -> Any:
    return step_live(core, torch.where(live, symbols, 0), rows, state, None)


@pytest.mark.parametrize("where", [interpreter, thoughts], ids=["interpreter", "reasoner"])
@BACKBONES
def test_padding_that_is_consumed(monkeypatch: pytest.MonkeyPatch, where: Any) -> None:
    def careless(core: Any, symbols: Tensor, rows: Tensor, state: Any, live: Tensor | None) -> Any:
        return (step_live if live is None else on_padding)(core, symbols, rows, state, live)

    monkeypatch.setattr(where, "step_live", careless)
    caught("onward")


@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_padding_that_counts(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    right = thoughts._draw

    def counting(
        head: Any, hidden: Tensor, given: Tensor, drawing: Tensor | None, *, forced: bool
    ) -> Symbols:
        found = right(head, hidden, given, drawing, forced=forced)
        if drawing is None:
            return found
        return found._replace(log_prob=head.draw(hidden, found.values, forced=True).log_prob)

    monkeypatch.setattr(thoughts, "_draw", counting)
    caught(start)


@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_a_forced_end_that_counts(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    right = latent_reasoner.think

    def charging(core: Any, head: Any, *args: Any, **kwargs: Any) -> Thoughts:
        found = right(core, head, *args, **kwargs)
        last = found.symbols.select(4, -1)
        hidden, _ = step_live(core, last, core.thought_rows(), found.branches, found.live(tiny.LENGTH - 1))
        end = head(hidden).log_softmax(-1)[..., -1] * found.unfinished
        return found._replace(log_prob=torch.cat([found.log_prob, end.unsqueeze(-1)], -1))

    monkeypatch.setattr(latent_reasoner, "think", charging)
    caught(start)
