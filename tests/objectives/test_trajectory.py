"""A reward of all steps of a thought, and the loss of predictions after each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.objectives.tables import BACKBONES, PATTERNS, STARTS, expected
from toyqs.config.builders import training as builder
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.objectives import prefixes, rewards
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.objectives.rewards import REWARDS
from toyqs.positions import focus, thinking_positions
from toyqs.types import Batch, Trace

ALPHAS = pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
SIZES = (2, 3, 2, 3, 4)  # S, B, T, K, L


def random(*sizes: int, seed: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(ends: bool) -> tuple[Trace, Batch, Tensor]:
    """A trace with predictions along its thoughts, which stay the same once a thought has ended."""
    logits, along = random(*SIZES[:4], 1, 3, seed=1), random(*SIZES, 1, 3, seed=2)
    trace = Trace(logits, -random(*SIZES, seed=3).abs(), random(*SIZES, seed=4), prefix_logits=along)
    if ends:
        length = torch.randint(5, SIZES[:4], generator=torch.Generator().manual_seed(5))
        ended = torch.arange(4) >= length.unsqueeze(-1)
        along = torch.where(ended[..., None, None], logits.unsqueeze(4), along)
        trace = trace._replace(length=length, prefix_logits=along)
    ones, targets = torch.ones(SIZES[:3]), torch.ones(SIZES[:3]).long()
    batch = Batch(targets, targets, random(*SIZES[:3], seed=6).abs(), ones.bool())
    return trace, batch, logits.log_softmax(-1)[..., 0, 1]


@ALPHAS
@pytest.mark.parametrize("ends", [False, True])
def test_it_is_a_weighted_mean_over_a_thoughts_own_steps(ends: bool, alpha: float) -> None:
    trace, batch, log_q = case(ends)
    found = Reinforce(reward="trajectory", trajectory_alpha=alpha).compute_reward(log_q, trace, batch)
    along = trace.prefix_logits.log_softmax(-1)[..., 0, 1]
    for *at, thought in torch.cartesian_prod(*map(torch.arange, SIZES[:4])).tolist():
        own = (*at, thought)
        length = 4 if trace.length is None else int(trace.length[own])
        after = [float(along[own][step]) for step in range(1, length)] + [float(log_q[own])]
        weights = [step**alpha for step in range(1, len(after) + 1)]
        wanted = sum(w * x for w, x in zip(weights, after, strict=True)) / sum(weights)
        assert abs(float(found[own]) - wanted) < 1e-12


def along(truth: tiny.Exact, settings: RunConfig) -> Tensor:
    """log q(y | h_≤l, x) of all thoughts by the plain reference, l = 0 … L: (9, L + 1)."""
    one, (sequence, position) = tiny.one_position(), tiny.AT
    index = int(one.think[0, sequence].nonzero()[position, 0])
    tokens, target = one.inputs[0, sequence, : index + 1], int(one.targets[0, sequence, index])
    each = [
        reference.alike(truth.built, settings, tokens, tiny.THOUGHTS[:, :length]).log_q[:, target]
        for length in range(tiny.LENGTH + 1)
    ]
    return torch.stack([x.expand(len(tiny.THOUGHTS)) for x in each], -1)


def check_reward(groups: str, start: str, alpha: float) -> None:
    """E[∇ policy] over all pairs of thoughts is −∇ Σ_h π(h) sg r(h), r by the plain reference."""
    given: dict[str, Any] = {"reward": "trajectory", "trajectory_alpha": alpha}
    settings = tiny.config(**given, weight_groups=groups, interpreter_start=start)
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    weights = torch.tensor([1.0, 2.0**alpha], dtype=torch.float64)
    earned = (along(truth, settings)[:, 1:].detach() * weights).sum(-1) / weights.sum()
    wanted = truth.gradient(-(truth.probability * earned).sum())
    tiny.close(expected(every, Reinforce(**given), "policy"), wanted)
    plain = truth.gradient(-(truth.probability * truth.log_q.detach()).sum())
    with pytest.raises(AssertionError):
        tiny.close(wanted, plain, tolerance=1e-6)


@STARTS
@PATTERNS
@BACKBONES
def test_the_policy_climbs_the_reward_of_all_steps(groups: str, start: str) -> None:
    check_reward(groups, start, 1.0)


@pytest.mark.parametrize("alpha", [0.0, 2.5])
def test_so_with_other_weights(alpha: float) -> None:
    check_reward("AABC", "onward", alpha)


def of_every_prefix(log_q: Tensor, trace: Trace, batch: Batch, alpha: float = 0.0) -> Tensor:
    """The prediction without any symbol counts, the whole thought's does not."""
    return right(rewards.log_q_of_prefixes(trace, batch)[..., -1], trace, batch, alpha)


def summed(log_q: Tensor, trace: Trace, batch: Batch, alpha: float = 0.0) -> Tensor:
    return right(log_q, trace, batch, alpha) * tiny.LENGTH


def the_other_way(log_q: Tensor, trace: Trace, batch: Batch, alpha: float = 0.0) -> Tensor:
    """Early steps count more."""
    return right(log_q, trace, batch, -alpha)


right = rewards.trajectory


@pytest.mark.parametrize(
    "mutant", [of_every_prefix, summed, the_other_way], ids=lambda mutant: mutant.__name__
)
def test_another_reward_is_caught(monkeypatch: pytest.MonkeyPatch, mutant: Callable[..., Tensor]) -> None:
    monkeypatch.setitem(REWARDS, "trajectory", mutant)
    for start in tiny.STARTS:
        with pytest.raises(AssertionError, match="off by"):
            check_reward("ABCD", start, 1.0)


@STARTS
@pytest.mark.parametrize("kind", ["gaussian", "state"])
def test_vectors_are_paid_so_too(kind: str, start: str) -> None:
    settings = tiny.config(
        thoughts=kind, latent_dim=2, reward="trajectory", interpreter_start=start, max_reasoning_len=3
    )
    model, batch, noise = tiny.sampled(settings, copies=2)
    context = model.read(batch.inputs, thinking_positions(batch))
    trace, there = model.talk(context, model.think(context, noise)), focus(batch, thinking_positions(batch))
    earned = Reinforce(reward="trajectory").earned(trace, there)
    wanted = torch.zeros_like(earned)
    for length in (1, 2, 3):
        symbols = trace.symbols[:, :, :, :, :length].detach()
        shorter = model.talk(context, model.think(context, symbols, symbols))
        wanted += rewards.target_log_prob(shorter.logits, there.targets.unsqueeze(-1)) / 3
    torch.testing.assert_close(earned, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("baseline", ["null_thought", "greedy_thought", "average_thought"])
def test_another_predictions_reward_is_its_likelihood(baseline: str) -> None:
    """It is the same after all steps; the expected gradient is the one without a baseline."""
    given = {"reward": "trajectory", "baseline": baseline}
    settings = tiny.config(**given, weight_groups="AABC")
    every, truth = tiny.enumerate_tuples(settings, 1), tiny.exact(settings)
    earned = along(truth, settings)[:, 1:].detach().mean(-1)
    wanted = truth.gradient(-(truth.probability * earned).sum())
    tiny.close(expected(every, Reinforce(**given), "policy"), wanted)


# The loss of the predictions along a thought.


def check_loss(groups: str, start: str) -> None:
    """Its expected gradient, thoughts fixed, is that of Σ_h sg π(h) mean_l −log q(y | h_≤l, x), l < L."""
    settings = tiny.config(
        prefix_nll_beta=1.0, baseline="none", weight_groups=groups, interpreter_start=start
    )
    every, truth = tiny.enumerate_tuples(settings, 1), tiny.exact(settings)
    part = build_objective(settings)(every.trace, every.batch).parts["prefix_nll"]
    each = -along(truth, settings)[:, :-1].mean(-1)
    tiny.close(every.expected(part), truth.gradient((truth.probability.detach() * each).sum()))


@STARTS
@PATTERNS
@BACKBONES
def test_the_loss_is_of_all_prefixes(groups: str, start: str) -> None:
    check_loss(groups, start)


def of_one_step(trace: Trace, batch: Batch, **weights: float) -> Tensor:
    return loss(trace._replace(prefix_logits=trace.prefix_logits[..., 1:, :, :]), batch, **weights)


def of_equal_positions(trace: Trace, batch: Batch, **weights: float) -> Tensor:
    return loss(trace, batch._replace(weights=torch.ones_like(batch.weights)), **weights)


def without_gradient(trace: Trace, batch: Batch, **weights: float) -> Tensor:
    return loss(trace, batch, **weights).detach() + 0.0 * trace.logits.sum((1, 2, 3, 4, 5))


loss = prefixes.prefix_nll


@pytest.mark.parametrize(
    "mutant", [of_one_step, of_equal_positions, without_gradient], ids=lambda mutant: mutant.__name__
)
def test_another_loss_is_caught(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    monkeypatch.setattr(builder, "prefix_nll", mutant)
    for start in tiny.STARTS:
        with pytest.raises(AssertionError, match="off by"):
            check_loss("ABCD", start)


def test_a_thoughts_own_prefixes_count() -> None:
    trace, batch, _ = case(ends=True)
    found = prefixes.prefix_nll(trace, batch)
    every = -trace.prefix_logits.log_softmax(-1)[..., 0, 1]
    for seed in range(SIZES[0]):
        total = 0.0
        for *at, thought in torch.cartesian_prod(*map(torch.arange, SIZES[1:4])).tolist():
            own = every[(seed, *at, thought)][: int(trace.length[(seed, *at, thought)])]
            total += float(batch.weights[(seed, *at)] * (own.mean() if len(own) else 0.0)) / SIZES[3]
        assert abs(float(found[seed]) - total / float(batch.weights[seed].sum())) < 1e-12
    with pytest.raises(ValueError, match=r"needs trace\.prefix_logits"):
        prefixes.prefix_nll(trace._replace(prefix_logits=None), batch)


def test_later_tokens_weigh_as_in_the_nll() -> None:
    settings = tiny.config(
        prefix_nll_beta=0.7,
        n_tokens_ahead=2,
        ahead_decay=0.5,
        teacher_forcing_weight=0.4,
        max_reasoning_len=1,
    )
    model, batch, noise = tiny.sampled(settings)
    positions = thinking_positions(batch)
    there, trace = focus(batch, positions, 2), model(batch.inputs, positions, noise)
    parts = build_objective(settings)(trace, there).parts
    log_q = rewards.token_log_prob(trace.prefix_logits[:, :, :, :, 0], there.ahead.targets)
    each = (
        (log_q * there.ahead.weights.unsqueeze(3) * torch.tensor([1.0, 0.2], dtype=torch.float64))
        .sum(-1)
        .mean(-1)
    )
    wanted = -(each * there.weights).sum((1, 2)) / there.weights.sum((1, 2))
    torch.testing.assert_close(parts["prefix_nll"], wanted, rtol=0, atol=1e-12)
    assert build_training_params(settings).weights["prefix_nll"].value == 0.7
