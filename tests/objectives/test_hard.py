"""Thinking at the hardest positions only: the gradient of both kinds of positions, by enumeration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from toyqs.config.builders.training import build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.objectives.objective import Loss
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.training.batches import TrainingBatch, prepare
from toyqs.training.loop import accumulate
from toyqs.types import Batch

BACKBONES = pytest.mark.usefixtures("backbone")
COUNT = 2  # thoughts per position
WEIGHTS = {"nll": 1.0, "policy": 1.0, "entropy": 0.0}


def hard(**changes: Any) -> RunConfig:
    """Of two marked positions the harder one thinks."""
    return tiny.config(think_at="hard", hard_quantile=0.5, **changes)


def one_sequence() -> Batch:
    """Two of its four positions might think; each has a weight of its own."""
    drawn = tiny.batch(1, seed=5)
    return drawn._replace(weights=drawn.weights * drawn.think)


def enumerated(settings: RunConfig) -> tuple[tiny.Gradients, Tensor]:
    """Gradients (S, ...) that the loop adds up for every tuple of thoughts, and the tuples (S, K)."""
    index = torch.cartesian_prod(*[torch.arange(len(tiny.THOUGHTS))] * COUNT).view(-1, COUNT)
    if settings.backbone == "gru":
        return of_loop(tiny.model(settings, len(index)), settings, index), index
    built = tiny.model(settings)  # takes one seed: tuple by tuple
    each = [of_loop(built, settings, one[None]) for one in index]
    return {name: torch.cat([grads[name] for grads in each]) for name in each[0]}, index


def of_loop(built: Any, settings: RunConfig, tuples: Tensor) -> tiny.Gradients:
    """Gradients that the loop adds up for tuples (S, K), one for each copy of the model."""
    batch, running = tiny.repeated(one_sequence(), len(tuples)), torch.zeros(len(tuples)).double()
    drawn: TrainingBatch = prepare(batch, torch.empty(0))
    drawn = drawn._replace(forced=tiny.THOUGHTS[tuples][:, None, None])
    built.zero_grad()
    objective = Reinforce(baseline="leave_one_out")
    accumulate(built, objective, drawn, WEIGHTS, build_training_params(settings), running)
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in built.named_parameters()}


def alone(built: Any, settings: RunConfig, tokens: Tensor) -> Tensor:
    """The plain model's log-probabilities (V,) of the token after these, without a thought."""
    weights = reference.Weights(built, settings)
    features = weights.read("base_lm", tokens)
    if settings.mixer == "concat":
        features = torch.cat([features, features.new_zeros(1, settings.reasoner_hidden_dim)], -1)
    return weights.head(features)[0].log_softmax(-1)


def plainly(settings: RunConfig) -> tuple[tiny.Gradients, Tensor]:
    """−∇ of the expectation over all counted positions, and π(h) of all thoughts at the harder one."""
    built, batch = tiny.model(settings), one_sequence()
    tokens, targets, weights = batch.inputs[0, 0], batch.targets[0, 0], batch.weights[0, 0]
    places = [int(t) for t in batch.think[0, 0].nonzero()[:, 0]]
    without = {t: alone(built, settings, tokens[: t + 1]) for t in places}
    entropy = {t: -float((p.exp() * p).sum().detach()) for t, p in without.items()}
    harder, easier = sorted(places, key=lambda t: -entropy[t])
    assert entropy[harder] - entropy[easier] > 1e-5, "one is harder"
    told = reference.predict(built, settings, tokens[: harder + 1], tiny.THOUGHTS)
    probability = told.log_prob.sum(-1).exp()
    value = weights[harder] * (probability * told.log_q[:, targets[harder]]).sum()
    value = value + weights[easier] * without[easier][targets[easier]]
    grads = tiny.gradients(-value / weights.sum(), built)
    return {name: g[0] for name, g in grads.items()}, probability.detach()


def check(settings: RunConfig) -> None:
    (every, index), (wanted, probability) = enumerated(settings), plainly(settings)
    share = probability[index].prod(-1)
    tiny.close({n: torch.einsum("s,s...->...", share, g) for n, g in every.items()}, wanted)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_the_expected_gradient_is_that_of_thinking_and_other_positions(groups: str, start: str) -> None:
    check(hard(weight_groups=groups, interpreter_start=start))


@pytest.mark.parametrize("mixing", ["add", "concat", "gate", "hidden", "residual"])
@BACKBONES
def test_the_same_with_other_mixers(mixing: str) -> None:
    check(hard(weight_groups="ABBC", mixing=mixing))


def own_mean(loss: Loss, chosen: Any) -> Loss:
    """Broken: the thinking positions count as if there were no others."""
    others = (chosen.nll * chosen.weights).sum((1, 2)) / chosen.weights.sum((1, 2))
    return loss._replace(parts=loss.parts | {"nll": loss.parts["nll"] + others})


def no_others(loss: Loss, chosen: Any) -> Loss:
    """Broken: the other positions train nothing."""
    share = chosen.batch.weights.sum((1, 2)) / (chosen.batch.weights + chosen.weights.sum(2, True)).sum(
        (1, 2)
    )
    return loss._replace(parts={name: value * share for name, value in loss.parts.items()})


@pytest.mark.parametrize("broken", [own_mean, no_others])
@BACKBONES
def test_a_broken_sum_is_found(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toyqs.training.pieces.combine", broken)
    with pytest.raises(AssertionError, match="off by"):
        check(hard())


def easiest(entropy: Tensor, count: int) -> Tensor:
    """Broken: the positions of the lowest entropy."""
    return entropy.argsort(dim=-1, stable=True)[..., :count].sort(-1).values


@BACKBONES
def test_a_wrong_choice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toyqs.training.hard_positions.highest_entropy", easiest)
    with pytest.raises(AssertionError, match="off by"):
        check(hard())
