"""The training loop and the sampler: what is drawn, what is scored, what evaluation draws from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import latents, tiny
from tests.objectives.test_samplers import BACKBONES, SAMPLERS, config
from toyqs.config.builders.training import build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_heads import normals
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.losses import position_mean
from toyqs.objectives.objective import Loss
from toyqs.objectives.rewards import tokens
from toyqs.positions import thinking_positions
from toyqs.training import loop
from toyqs.training.batches import prepare
from toyqs.training.loop import accumulate
from toyqs.training.sampling.ahead import sample_thoughts
from toyqs.types import Batch, Trace


def in_the_loop(settings: RunConfig, copies: int = 2) -> tuple[LatentReasoner, loop.TrainingBatch, Trace]:
    """A model, a batch with the thoughts drawn for it, and the trace that a training step makes of it."""
    model, batch, noise = tiny.sampled(settings, copies=copies)
    drawn = sample_thoughts(model, prepare(batch, noise))
    seen: list[Trace] = []

    def watching(trace: Trace, counted: Batch) -> Loss:
        seen.append(trace)
        return Loss({"nll": position_mean(trace.logits.mean((3, 4, 5)), counted.weights)})

    numbers = build_training_params(settings)
    assert numbers.inner_steps == 1
    accumulate(model, watching, drawn, {"nll": 1.0}, numbers, torch.zeros(copies).double())
    return model, drawn, seen[0]


KINDS = {
    "uniform": {"sampler": "uniform"},
    "tempered": {"sampler": "tempered"},
    "gaussian": {"sampler": "tempered", "thoughts": "gaussian"},
    "state": {"sampler": "tempered", "thoughts": "state"},
    "prior": {"sampler": "prior", "thoughts": "gaussian"},
    "inference": {"sampler": "inference", "objective": "wake_sleep"},
}


def check_loop(name: str) -> None:
    """The step trains on what was drawn; the trace has the sampler's density beside the policy's own."""
    settings = config(**({"objective": "vargrad"} | KINDS[name]))
    model, drawn, trace = in_the_loop(settings)
    assert torch.equal(trace.symbols, drawn.forced)
    context = model.read(drawn.inputs, drawn.positions)
    for off_policy, found in ((True, trace.sampler_log_prob), (False, trace.log_prob)):
        how = {"off_policy": off_policy, "targets": tokens(drawn.counted)}
        scored = model.think(context, torch.empty(0), drawn.forced, **how)
        torch.testing.assert_close(found, scored.log_prob, rtol=0, atol=1e-12)
    assert not trace.sampler_log_prob.requires_grad and trace.log_prob.requires_grad
    other = trace.sampler_log_prob - trace.log_prob.detach()
    assert float(other.abs().max()) > 1e-3


@pytest.mark.parametrize("name", KINDS)
@BACKBONES
def test_the_loop_trains_on_what_the_sampler_drew(name: str) -> None:
    check_loop(name)


@pytest.mark.parametrize("name", KINDS)
def test_a_loop_that_calls_log_pi_the_density_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = LatentReasoner.think

    def mistaken(
        self: LatentReasoner, context: Any, noise: Tensor, forced: Any = None, *rest: Any, **how: Any
    ) -> Any:
        thoughts = right(self, context, noise, forced, *rest, **how)
        return thoughts if forced is not None else right(self, context, noise, thoughts.symbols)

    monkeypatch.setattr(LatentReasoner, "think", mistaken)
    with pytest.raises(AssertionError):
        check_loop(name)


@SAMPLERS
def test_symbols_are_drawn_as_often_as_the_law_says(sampler: str) -> None:
    """From evenly spaced noise each first symbol comes as often as it is likely, within one."""
    settings, count = config(sampler, max_reasoning_len=1, trice_samples=1000), 1000
    model, batch, noise = tiny.sampled(settings, copies=1)
    noise[..., 0] = (torch.arange(count) + 0.5) / count
    drawn = sample_thoughts(model, prepare(batch, noise))
    context = model.read(drawn.inputs, drawn.positions)
    for symbol in range(tiny.SYMBOLS):
        forced = torch.full_like(drawn.forced[..., :1, :], symbol)
        own = model.think(context, torch.empty(0), forced, off_policy=True).log_prob.detach().exp()[..., 0, 0]
        found = (drawn.forced == symbol).sum((3, 4))
        assert float((found - count * own).abs().max()) <= 1.0


def test_continuous_symbols_of_the_sampler() -> None:
    """With the same noise: √τ times as far from the mean; or the noise itself."""
    noise_of = {}
    for name in ("policy", "tempered", "prior"):
        settings = latents.config("gaussian", "vargrad", sampler=name, trice_samples=3, latent_dim=2)
        model, batch, noise = tiny.sampled(settings)
        drawn = sample_thoughts(model, prepare(batch, noise))
        noise_of[name] = drawn.forced, drawn.sampler_log_prob, normals(noise)
    policy, flatter, prior = noise_of["policy"], noise_of["tempered"], noise_of["prior"]
    # σ ε is the difference of a symbol from its mean.
    std_times_noise = (flatter[0] - policy[0]) / (math.sqrt(2.0) - 1)
    std = std_times_noise / policy[2]
    wanted = torch.distributions.Normal(policy[0] - std_times_noise, std * math.sqrt(2.0)).log_prob(
        flatter[0]
    )
    torch.testing.assert_close(flatter[1], wanted.sum(-1), rtol=0, atol=1e-9)
    assert bool((std > 0).all())
    torch.testing.assert_close(prior[0], prior[2], rtol=0, atol=1e-12)
    wanted = torch.distributions.Normal(0.0, 1.0).log_prob(prior[0])
    torch.testing.assert_close(prior[1], wanted.sum(-1), rtol=0, atol=1e-12)


def test_evaluation_draws_from_the_policy() -> None:
    """A sampler has no parameters, and nothing but the training loop asks it."""
    models = []
    for sampler in ("policy", "uniform"):
        settings = config(sampler)
        model, batch, noise = tiny.sampled(settings)
        models.append((model, model(batch.inputs, thinking_positions(batch), noise)))
    (first, own), (second, with_sampler) = models
    names = [[name for name, _ in model.named_parameters()] for model in (first, second)]
    assert names[0] == names[1] and not any("sampler" in name for name in names[1])
    assert torch.equal(own.symbols, with_sampler.symbols) and torch.equal(own.logits, with_sampler.logits)
