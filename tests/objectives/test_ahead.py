"""Several tokens ahead: rewards and NLL over them against plain loops, and what must not leak into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from toyqs import positions as places_of
from toyqs.config.builders.training import build_objective
from toyqs.config.run_config import RunConfig
from toyqs.model import interpreter, latent_reasoner
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives import rewards
from toyqs.objectives.objective import LikelihoodObjective
from toyqs.objectives.policy.reinforce import MultiSample, Reinforce
from toyqs.objectives.rewards import REWARDS
from toyqs.positions import focus
from toyqs.types import Ahead, Batch, BranchState, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
MODES = ("persist", "continue")
PATTERNS = pytest.mark.parametrize("groups", tiny.PATTERNS)
STARTS = pytest.mark.parametrize("start", tiny.STARTS)


def config(num: int = 2, **changes: Any) -> RunConfig:
    return tiny.config(n_tokens_ahead=num, **changes)


@pytest.mark.parametrize("ahead", MODES)
@STARTS
@PATTERNS
@BACKBONES
def test_the_expected_gradient_of_two_tokens(groups: str, start: str, ahead: str) -> None:
    settings = config(weight_groups=groups, interpreter_start=start, ahead=ahead)
    tiny.check_expected_gradient(settings, Reinforce(), 2)


@pytest.mark.parametrize("extra", [{"mixing": "gate", "thought_vocab": 3}, {"use_base_lm": False}])
@PATTERNS
def test_the_same_where_the_reading_goes_on_and_symbols_have_a_table(groups: str, extra: Any) -> None:
    settings = config(weight_groups=groups, ahead="continue", **extra)
    tiny.check_expected_gradient(settings, Reinforce(baseline="none"), 1)


@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
@BACKBONES
def test_decay_weighs_reward_and_nll_and_teacher_forcing_the_nll_alone(groups: str) -> None:
    settings = config(weight_groups=groups, ahead_decay=0.8, teacher_forcing_weight=0.5)
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    parts = build_objective(settings)(every.trace, every.batch).parts
    reward = truth.each[:, 0] + 0.8 * truth.each[:, 1]
    taught = truth.each[:, 0] + 0.8 * 0.5 * truth.each[:, 1]
    probability = truth.probability
    wanted = truth.gradient(-(probability * reward.detach() + probability.detach() * taught).sum())
    tiny.close(every.expected(parts["policy"] + parts["nll"]), wanted)


@BACKBONES
def test_the_bound_of_several_samples_over_two_tokens() -> None:
    settings = config(weight_groups="ABCD")
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    parts = MultiSample()(every.trace, every.batch).parts
    index = torch.cartesian_prod(torch.arange(9), torch.arange(9))
    bound = truth.log_q[index].logsumexp(-1) - torch.tensor(2.0).log()
    wanted = truth.gradient(-(truth.log_prob.sum(-1)[index].sum(-1).exp() * bound).sum())
    tiny.close(every.expected(parts["policy"] + parts["nll"]), wanted)


def everywhere(size: int = 3) -> Batch:
    """Every position thinks, and some do not count."""
    drawn = tiny.batch(size)
    weights = drawn.weights.clone()
    weights[0, 1, 2] = weights[0, 2, 0] = 0.0
    return drawn._replace(think=torch.ones_like(drawn.think), weights=weights)


def told(settings: RunConfig, batch: Batch) -> tuple[LatentReasoner, Trace, Tensor]:
    """A model, its trace at all positions, and the thoughts (S, B, T, K, L) forced there."""
    model = tiny.model(settings)
    shape = (*batch.inputs.shape, settings.trice_samples, settings.max_reasoning_len)
    forced = torch.randint(tiny.SYMBOLS, shape, generator=torch.Generator().manual_seed(2))
    return model, model(batch.inputs, None, torch.empty(0), forced), forced


def naive_rewards(settings: RunConfig, model: LatentReasoner, batch: Batch, forced: Tensor) -> Tensor:
    """(1, B, T, K): the sum of N log-probabilities, each computed by itself, where there is a token."""
    size, length = batch.inputs.shape[1:]
    out = torch.zeros(forced.shape[:-1], dtype=torch.float64)
    for b in range(size):
        tokens = batch.inputs[0, b]
        for t in range(length):
            for place in range(t, min(t + settings.n_tokens_ahead, length)):
                if batch.weights[0, b, place] > 0:
                    plain = reference.predict(
                        model, settings, tokens[: t + 1], forced[0, b, t], tokens[t + 1 : place + 1]
                    )
                    out[0, b, t] += plain.log_q[:, batch.targets[0, b, place]]
    return out


def check_sums(settings: RunConfig) -> None:
    """Rewards and NLL of a batch that thinks everywhere, to its very end."""
    batch = everywhere()
    model, trace, forced = told(settings, batch)
    there = focus(batch, None, settings.n_tokens_ahead)
    with torch.no_grad():
        wanted = naive_rewards(settings, model, batch, forced)
        loss = Reinforce()(trace, there)
        got = rewards.over_tokens(rewards.token_log_prob(trace.logits, rewards.tokens(there)), there)
    counted = (batch.weights > 0).unsqueeze(-1)
    torch.testing.assert_close(got * counted, wanted * counted, rtol=0, atol=1e-12)
    nll = (-wanted.mean(-1) * batch.weights).sum() / batch.weights.sum()
    torch.testing.assert_close(loss.parts["nll"][0], nll, rtol=0, atol=1e-12)
    torch.testing.assert_close(loss.reward[0], -nll, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num", [1, 2, 3, 4])
@pytest.mark.parametrize("ahead", MODES)
@STARTS
@BACKBONES
def test_rewards_are_sums_of_separate_log_probabilities(start: str, ahead: str, num: int) -> None:
    check_sums(config(num, interpreter_start=start, ahead=ahead, mixing="gate"))


def wrapping(inputs: Tensor, at: Tensor | None, num_ahead: int) -> tuple[Tensor, Tensor]:
    """What lies beyond the end is taken from the beginning."""
    at = torch.arange(inputs.shape[-1]).expand(inputs.shape) if at is None else at
    places = (at.unsqueeze(-1) + torch.arange(num_ahead)) % inputs.shape[-1]
    return places, torch.ones_like(places, dtype=torch.bool)


def clamping(inputs: Tensor, at: Tensor | None, num_ahead: int) -> tuple[Tensor, Tensor]:
    """The last token stands in for those beyond the end."""
    places, _ = places_of.places_ahead(inputs, at, num_ahead)
    return places, torch.ones_like(places, dtype=torch.bool)


def shifted(inputs: Tensor, at: Tensor | None, num_ahead: int) -> tuple[Tensor, Tensor]:
    """All tokens but the first come one position late."""
    places, there = places_of.places_ahead(inputs, at, num_ahead)
    late = (places + (places != places[..., :1])).clamp(max=inputs.shape[-1] - 1)
    return late, there


Places = Callable[[Tensor, Tensor | None, int], tuple[Tensor, Tensor]]


@pytest.mark.parametrize("mutant", [wrapping, clamping, shifted], ids=lambda mutant: mutant.__name__)
def test_tokens_from_the_wrong_places_are_caught(monkeypatch: pytest.MonkeyPatch, mutant: Places) -> None:
    right = places_of.places_ahead

    def planted(*args: Any) -> tuple[Tensor, Tensor]:
        with monkeypatch.context() as inside:
            inside.setattr(places_of, "places_ahead", right)
            return mutant(*args)

    monkeypatch.setattr(places_of, "places_ahead", planted)
    monkeypatch.setattr(latent_reasoner, "places_ahead", planted)
    with pytest.raises(AssertionError):
        check_sums(config(3, ahead="continue"))


def test_a_reading_that_forgets_the_token_it_read_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(core: Core, reading: Tensor, state: BranchState, following: Tensor) -> Tensor:
        return torch.stack([reading] * (following.shape[-1] + 1), -2)

    monkeypatch.setattr(interpreter, "_read_on", stuck)
    with pytest.raises(AssertionError):
        check_sums(config(3, ahead="continue"))


def test_what_is_beyond_the_end_is_masked() -> None:
    batch = everywhere()
    ahead = focus(batch, None, 3).ahead
    assert torch.equal(ahead.targets[..., 0], batch.targets)
    assert torch.equal(ahead.targets[:, :, :-2, 2], batch.targets[:, :, 2:])
    assert not ahead.weights[:, :, -1, 1:].any() and not ahead.weights[:, :, -2, 2].any()
    assert torch.equal(ahead.weights[..., 0], (batch.weights > 0).double())
    assert ahead.weights[0, 0].tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert focus(batch, None).ahead is None


def random_case(num: int) -> tuple[Trace, Batch]:
    shape = (2, 3, 4)

    def random(*more: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, *more, generator=generator, dtype=torch.float64)

    targets = torch.randint(5, (*shape, num), generator=torch.Generator().manual_seed(0))
    weights = (random(num, seed=1) > -0.5).double()
    one = torch.ones(shape, dtype=torch.float64)
    batch = Batch(targets[..., 0], targets[..., 0], one, one > 0, ahead=Ahead(targets, weights))
    known = random(num, 5, seed=2).log_softmax(-1)
    trace = Trace(random(6, num, 5, seed=3), reference_log_probs=known, base_logits=random(num, 5, seed=4))
    trace = trace._replace(log_prob=random(6, 2, seed=5), entropy=random(6, 2, seed=6).abs())
    without = random(6, num, 5, seed=8)
    return trace._replace(prefix_logits=random(6, 2, num, 5, seed=7), without_logits=without), batch


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_is_a_weighted_sum_of_rewards_of_one_token(name: str) -> None:
    trace, batch = random_case(3)
    got = []
    for baseline in ("none", "null_thought"):
        objective = Reinforce(reward=name, ahead_decay=0.7, baseline=baseline)
        discounted = rewards.discounted(batch, 0.7)
        each = rewards.token_log_prob(trace.logits, rewards.tokens(batch))
        reward = objective.compute_reward(rewards.over_tokens(each, discounted), trace, discounted)
        got.append(objective.advantages(reward, trace, discounted))
    wanted = [torch.zeros(2, 3, 4, 6).double() for _ in got]
    for n in range(3):
        one = batch._replace(targets=batch.ahead.targets[..., n], ahead=None)
        cut = trace._replace(
            logits=trace.logits[..., n : n + 1, :],
            reference_log_probs=trace.reference_log_probs[..., n : n + 1, :],
            base_logits=trace.base_logits[..., n : n + 1, :],
            prefix_logits=trace.prefix_logits[..., n : n + 1, :],
            without_logits=trace.without_logits[..., n : n + 1, :],
        )
        log_q = rewards.target_log_prob(cut.logits, one.targets.unsqueeze(-1))
        reward, factor = REWARDS[name](log_q, cut, one), 0.7**n * batch.ahead.weights[..., n : n + 1]
        wanted[0] += factor * reward
        wanted[1] += factor * Reinforce(reward=name, baseline="null_thought").advantages(reward, cut, one)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_impossible_tokens_beyond_the_end_leave_no_trace() -> None:
    trace, batch = random_case(3)
    gone = batch.ahead.weights == 0
    known = trace.reference_log_probs.masked_fill(gone.unsqueeze(-1), -torch.inf)
    logits = trace.logits.clone().requires_grad_()
    trace = trace._replace(reference_log_probs=known, logits=logits)
    loss = Reinforce(reward="kl_forward")(trace, batch)
    (grad,) = torch.autograd.grad(loss.parts["nll"].sum(), logits)
    assert bool(grad.isfinite().all()) and bool(loss.reward.isfinite().all())
    assert not grad.masked_select(gone.unsqueeze(3).unsqueeze(-1)).any()


def test_a_model_without_symbols_learns_from_all_tokens() -> None:
    trace, batch = random_case(2)
    trace = trace._replace(logits=trace.logits[:, :, :, :1])
    found = LikelihoodObjective(ahead_decay=0.5, teacher_forcing_weight=0.4)(trace, batch).parts["nll"]
    log_p = rewards.token_log_prob(trace.logits, batch.ahead.targets).squeeze(3) * batch.ahead.weights
    wanted = -(log_p[..., 0] + 0.2 * log_p[..., 1]).mean((1, 2))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
