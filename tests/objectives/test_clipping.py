"""Clipped ratios, of each thought and of each symbol: against plain loops and summed over all thoughts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives.tables import BACKBONES, PATTERNS
from toyqs.objectives.policy.reinforce import ClippedReinforce
from toyqs.types import Batch, Trace

EACH = pytest.mark.parametrize("each", ["thought", "symbol"])
EPSILON, NEVER = 0.2, 1e9
SIZES = (2, 3, 2, 3, 4)  # S, B, T, K, L


def random(*sizes: int, seed: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_a_loop(
    objective: ClippedReinforce, reward: Tensor, log_prob: Tensor, drawn: Tensor
) -> tuple[Any, Tensor]:
    """The loss of each position, and its gradient in log_prob, from the cases of the clipped minimum."""
    loss, gradient = torch.zeros(SIZES[:3]).double(), torch.zeros(SIZES).double()
    number, length = SIZES[3:]
    for *at, k in torch.cartesian_prod(*map(torch.arange, SIZES[:4])).tolist():
        thought = (*at, k)
        advantage = float(reward[thought] - (reward[tuple(at)].sum() - reward[thought]) / (number - 1))
        differences = [float(log_prob[thought][i] - drawn[thought][i]) for i in range(length)]
        parts = [[i] for i in range(length)] if objective.clip_each == "symbol" else [list(range(length))]
        for part in parts:
            ratio = math.exp(sum(differences[i] for i in part))
            stopped = ratio > 1 + EPSILON if advantage > 0 else ratio < 1 - EPSILON
            edge = 1 + EPSILON if advantage > 0 else 1 - EPSILON
            loss[tuple(at)] -= (edge if stopped else ratio) * advantage / number
            for i in part:
                gradient[(*thought, i)] = 0.0 if stopped else -ratio * advantage / number
    return loss, gradient


@EACH
def test_loss_and_gradient_against_a_loop(each: str) -> None:
    """The second and fourth symbols of some thoughts are padding: log-probability 0, then and now."""
    objective = ClippedReinforce(clip_each=each, clip_ratio=EPSILON)
    reward, log_prob = random(*SIZES[:4], seed=1), -random(*SIZES, seed=2).abs()
    drawn = log_prob + 0.3 * random(*SIZES, seed=3)
    padding = torch.zeros(SIZES, dtype=torch.bool)
    padding[:, 0, :, :, 1:] = padding[:, 1, :, 0, 3:] = True
    log_prob, drawn = (x.masked_fill(padding, 0.0) for x in (log_prob, drawn))
    moving = log_prob.clone().requires_grad_()
    ones = torch.ones(SIZES[:3]).double()
    batch = Batch(ones.long(), ones.long(), ones, ones.bool())
    got = objective.policy_loss(reward, Trace(torch.empty(0), moving, sampler_log_prob=drawn), batch)
    loss, gradient = in_a_loop(objective, reward, log_prob, drawn)
    torch.testing.assert_close(got, loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), moving)[0], gradient, rtol=0, atol=1e-12)
    assert bool((gradient[:, 2] == 0).any()) and bool((gradient[:, 2] != 0).any()), "both cases"


def before(log_prob: Tensor, thoughts: Tensor) -> Tensor:
    """log π of the symbols drawn (n, L) under a policy of some steps ago; 0 in padding, as that has none."""
    moved = log_prob.detach() + 0.4 * random(*log_prob.shape, seed=7)
    return moved.masked_fill(~drawn_at(thoughts), 0.0)


def drawn_at(thoughts: Tensor) -> Tensor:
    """Which symbols (n, L) a thought drew, its end the last of them."""
    ended = (thoughts == tiny.SYMBOLS).long()
    return ended.cumsum(1) - ended == 0


def check(groups: str, each: str, **changes: Any) -> None:
    """E[∇ policy] over all pairs of thoughts is the gradient of the plain reference's surrogate."""
    settings = tiny.config(weight_groups=groups, objective="ppo_clip", **changes)
    thoughts = tiny.ending(tiny.SYMBOLS) if "variable_len" in changes else tiny.THOUGHTS
    every, truth = tiny.enumerate_tuples(settings, 2, thoughts), tiny.exact(settings, thoughts)
    pairs = torch.cartesian_prod(*[torch.arange(len(thoughts))] * 2)
    old = before(truth.log_prob, thoughts)
    density = torch.zeros_like(every.trace.log_prob)
    density[:, tiny.AT[0], tiny.AT[1]] = old[pairs]
    objective = ClippedReinforce(clip_each=each, clip_ratio=EPSILON)
    got = every.expected(
        objective(every.trace._replace(sampler_log_prob=density), every.batch).parts["policy"]
    )
    differences = (truth.log_prob - old).where(drawn_at(thoughts), 0.0)
    ratios = differences.sum(-1, keepdim=True).exp() if each == "thought" else differences.exp()
    reward = truth.log_q.detach()
    advantages = (reward[pairs] - reward[pairs.flip(1)]).unsqueeze(-1)
    surrogate = torch.minimum(
        ratios[pairs] * advantages, ratios[pairs].clamp(1 - EPSILON, 1 + EPSILON) * advantages
    )
    if each == "symbol":
        surrogate = surrogate.where(drawn_at(thoughts)[pairs], 0.0)
    probability = truth.probability.detach()[pairs].prod(1)
    wanted = truth.gradient(-(probability * surrogate.sum(-1).mean(-1)).sum())
    assert float(tiny.flat({n: g[None] for n, g in wanted.items()}).norm()) > 1e-3, "nothing to compare"
    tiny.close(got, wanted)


@EACH
@PATTERNS
@BACKBONES
def test_the_expected_gradient_is_the_surrogates(groups: str, each: str) -> None:
    check(groups, each)


@EACH
@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
@BACKBONES
def test_so_with_thoughts_that_end_themselves(groups: str, each: str) -> None:
    check(groups, each, variable_len=True)


def averaged(self: ClippedReinforce, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """Divided by the number of symbols."""
    return right(self, reward, trace, batch) / trace.log_prob.shape[-1]


def of_all_before(self: ClippedReinforce, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """The ratio of a symbol and all before it."""
    own, drawn = trace.log_prob.cumsum(-1), trace.sampler_log_prob.cumsum(-1)
    return right(self, reward, trace._replace(log_prob=own, sampler_log_prob=drawn), batch)


def of_the_thought(self: ClippedReinforce, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
    return right(ClippedReinforce(clip_each="thought"), reward, trace, batch)


def unclipped(self: ClippedReinforce, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
    return right(ClippedReinforce(clip_each="symbol", clip_ratio=NEVER), reward, trace, batch)


right = ClippedReinforce.policy_loss


@pytest.mark.parametrize(
    "mutant", [averaged, of_all_before, of_the_thought, unclipped], ids=lambda mutant: mutant.__name__
)
@pytest.mark.parametrize("changes", [{}, {"variable_len": True}])
def test_another_ratio_is_caught(
    monkeypatch: pytest.MonkeyPatch, mutant: Any, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(ClippedReinforce, "policy_loss", mutant)
    for groups in ("AAAA", "ABCD"):
        with pytest.raises(AssertionError, match="off by"):
            check(groups, "symbol", **changes)


@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_the_bias_of_unclipped_ratios_of_symbols(groups: str) -> None:
    """Thoughts drawn uniformly: the thought's ratio makes up for it, those of its symbols do so in part."""
    settings = tiny.config(weight_groups=groups, objective="ppo_clip", sampler="uniform")
    every, truth = tiny.enumerate_tuples(settings, 1), tiny.exact(settings)
    uniform = torch.full_like(every.trace.log_prob, -math.log(tiny.SYMBOLS))
    trace = every.trace._replace(sampler_log_prob=uniform)
    every = every._replace(trace=trace, probability=torch.full((9,), 1 / 9, dtype=torch.float64))
    wanted = truth.gradient(-(truth.probability * truth.log_q.detach()).sum())
    found = {}
    for each in ("thought", "symbol"):
        objective = ClippedReinforce(baseline="none", clip_each=each, clip_ratio=NEVER)
        found[each] = every.expected(objective(every.trace, every.batch).parts["policy"])
    tiny.close(found["thought"], wanted)
    exact, symbol = (tiny.flat({n: g[None] for n, g in x.items()})[0] for x in (wanted, found["symbol"]))
    cosine = float(torch.cosine_similarity(exact, symbol, dim=0))
    assert 0.5 < cosine < 0.9999, cosine


def test_a_density_of_whole_thoughts_is_refused() -> None:
    trace = Trace(torch.empty(0), torch.zeros(SIZES), sampler_log_prob=torch.zeros(*SIZES[:4], 1))
    ones = torch.ones(SIZES[:3])
    batch = Batch(ones.long(), ones.long(), ones, ones.bool())
    with pytest.raises(ValueError, match="sampler_log_prob has shape"):
        ClippedReinforce().policy_loss(torch.zeros(SIZES[:4]), trace, batch)
