"""Tiny runs that think, and their controls as the planner makes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests import tiny
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import canonical
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.positions import thinking_positions
from toyqs.rng import stream
from toyqs.training.batches import TrainingBatch, prepare
from toyqs.training.loop import accumulate
from toyqs.types import Batch, Trace


def run(**changes: Any) -> RunConfig:
    """Return the settings of a tiny run that thinks, with all controls."""
    return tiny.config(**{"controls": "all", "thought_vocab": 5} | changes)


def control(name: str, **changes: Any) -> RunConfig:
    """Return the settings of one of the controls of `run`."""
    return resolved(canonical(unmatched_controls(run(**changes))[name]))


def traced(settings: RunConfig, seed: int = 0, shift: int = 0) -> tuple[LatentReasoner, Batch, Trace]:
    """Build a model; think and talk with noise of a seed, in contexts whose tokens are shifted."""
    model, batch, noise = tiny.sampled(settings)
    noise = tiny.noise(noise.shape, seed)
    inputs = (batch.inputs + shift) % tiny.SYMBOLS
    return model, batch, model(inputs, thinking_positions(batch), noise)


def cores(model: LatentReasoner, *roles: str) -> set[str]:
    """Return the prefixes of the parameters of some roles' backbones."""
    return {f"cores.{model.letters[role]}.backbone" for role in roles}


def moved(grads: tiny.Gradients) -> set[str]:
    """Return the names of the parameters that have a gradient."""
    return {name for name, grad in grads.items() if float(grad.abs().max()) > 0}


def step_gradients(settings: RunConfig, shuffle: Tensor | None = None) -> tiny.Gradients:
    """Return the gradients of one training step, all weighted parts of the loss together."""
    model, batch, noise = tiny.sampled(settings)
    params = build_training_params(settings)
    ready: TrainingBatch = prepare(batch, noise)._replace(shuffle=shuffle)
    weights = {name: weight.at(0.0) for name, weight in params.weights.items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    accumulate(model, build_objective(settings), ready, weights, params, torch.zeros(1).double())
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def uniform(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Draw float64 numbers in [0, 1)."""
    return torch.rand(shape, generator=stream(seed, "of a test"), dtype=torch.float64)
