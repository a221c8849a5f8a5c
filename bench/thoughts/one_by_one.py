"""The gradient of a step with K thoughts at each of T positions: all in one batch, or some of them at a time.

All ways compute the same. The context is read once, the symbols are sampled from the same numbers, and one
backward pass goes through whatever was made. They differ in how many thoughts one call of the model makes:

    in one batch           all K thoughts of all T positions
    thought by thought     K calls, each of one thought at all positions
    position by position   T calls, each of all thoughts of one position
    one by one             K · T calls, each of one thought of one position

What all thoughts of a call have in common, the start markers of reasoner and interpreter, each call computes
once, so that more calls make a few more products; `flops` counts them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.step import CONFIG, RandomCharacters
from toyqs.config.builders.kernels import settled
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.rewards import tokens
from toyqs.training.batches import TrainingBatch, draw_batches
from toyqs.training.flops import measure
from toyqs.training.pieces import LossFn
from toyqs.types import Context, Trace

SYMBOLS = 8  # of the thoughts, few: tables with a row for each are made once by each call


class Way(NamedTuple):
    """What one call of the model makes."""

    one_thought: bool  # of a position; else all K
    one_position: bool  # else all T


ONE_BATCH = "in one batch"
WAYS = {
    ONE_BATCH: Way(one_thought=False, one_position=False),
    "thought by thought": Way(one_thought=True, one_position=False),
    "position by position": Way(one_thought=False, one_position=True),
    "one by one": Way(one_thought=True, one_position=True),
}


class Size(NamedTuple):
    """The size of a step; all widths are one."""

    backbone: str = "gru"
    thoughts: int = 4  # K
    positions: int = 16  # T
    length: int = 8  # L
    width: int = 32
    sequences: int = 1  # B

    @property
    def config(self) -> RunConfig:
        """Return the settings of a run whose step has this size, resolved, and its kernels settled.

        A single thought has no others to be compared with, so that its baseline is `none`.
        """
        config = replace(
            CONFIG,
            backbone=self.backbone,
            base_lm_hidden_dim=self.width,
            reasoner_hidden_dim=self.width,
            trice_samples=self.thoughts,
            thought_vocab=SYMBOLS,
            max_reasoning_len=self.length,
            data_loader_batch_size=self.sequences,
            seq_len=self.positions,
            baseline="leave_one_out" if self.thoughts > 1 else "none",
            task=RandomCharacters(),
        )
        (config,), _ = settled([resolved(config)])
        return config


class Step(NamedTuple):
    """A model, a batch and all that makes a loss of them."""

    model: LatentReasoner
    batch: TrainingBatch
    objective: LossFn
    weights: dict[str, float]

    def gradients(self, way: Way) -> dict[str, Tensor]:
        """Compute the gradient of the step's loss, by the parameters' names."""
        self.model.zero_grad(set_to_none=True)
        self.descend(way)
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}

    def descend(self, way: Way) -> None:
        """Add the gradient of the step's loss to the parameters'."""
        loss = self.objective(traced(self.model, self.batch, way), self.batch.counted)
        terms = [self.weights[name] * part.sum() for name, part in loss.parts.items() if self.weights[name]]
        torch.stack(terms).sum().backward()

    @torch.no_grad()
    def sample(self, context: Context, way: Way) -> Tensor:
        """Sample the symbols of all thoughts after a context, (1, B, T, K, L), and make nothing of them."""
        columns = []
        for here, span in places(self.model, context, way):
            noise = self.batch.noise[:, :, span]
            parts = [self.model.think(here, each) for each in noise.split(thoughts_of(noise, way), 3)]
            columns.append(torch.cat([part.symbols for part in parts if part is not None], 3))
        return torch.cat(columns, 2)

    def read(self) -> Context:
        """Read the sequences."""
        return self.model.read(self.batch.inputs, self.batch.positions)


def build(config: RunConfig, *, forced: bool = False) -> Step:
    """Build a step of one seed.

    Args:
        config: of `Size.config`.
        forced: give its thoughts symbols drawn uniformly, in place of sampling them.
    """
    params, model = build_training_params(config), build_model(config, [0])
    batch = next(draw_batches(config.task, [0], params, next(model.parameters())))
    if forced:
        batch = batch._replace(forced=(batch.noise * model.num_symbols).long())
    weights = {name: weight.at(0.0) for name, weight in params.weights.items()}
    return Step(model, batch, build_objective(config), weights)


def traced(model: LatentReasoner, batch: TrainingBatch, way: Way) -> Trace:
    """Read, then think and talk by as many calls as the way makes; return the trace of all thoughts."""
    columns = []
    for here, span in places(model, model.read(batch.inputs, batch.positions), way):
        noise, targets = batch.noise[:, :, span], tokens(batch.counted)[:, :, span]
        size = thoughts_of(noise, way)
        forced = None if batch.forced is None else batch.forced[:, :, span].split(size, 3)
        parts = [
            model.respond(here, each, None if forced is None else forced[index], targets)
            for index, each in enumerate(noise.split(size, 3))
        ]
        columns.append(joined(parts, 3))
    return joined(columns, 2)


def places(model: LatentReasoner, context: Context, way: Way) -> Iterator[tuple[Context, slice]]:
    """Yield the context of each call's positions, and which they are."""
    assert context.base is not None
    if not way.one_position:
        yield context, slice(None)
        return
    *rows, count = context.base.shape[:3]
    for place in range(count):
        index = torch.full((*rows, 1), place, device=context.base.device)
        yield model.at(context, index), slice(place, place + 1)


def thoughts_of(noise: Tensor, way: Way) -> int:
    """Return how many thoughts of a position one call makes, of noise (1, B, T, K, L)."""
    return 1 if way.one_thought else noise.shape[3]


def joined(traces: list[Trace], axis: int) -> Trace:
    """Join the traces of several calls along the axis of positions, 2, or of thoughts, 3."""
    if len(traces) == 1:
        return traces[0]
    fields = zip(*traces, strict=True)
    return Trace(*(None if each[0] is None else torch.cat(each, axis) for each in fields))


class Apart(NamedTuple):
    """How far the gradients of a way are from those in one batch."""

    difference: float  # the largest, of all parameters
    largest: float  # the largest number in a gradient


def compare_gradients(size: Size, ways: dict[str, Way]) -> dict[str, Apart]:
    """Compare the ways' gradients with those in one batch, with the same forced thoughts, in float64."""
    step = build(replace(size.config, dtype="float64"), forced=True)
    expected = step.gradients(WAYS[ONE_BATCH])
    largest = float(torch.stack([gradient.abs().max() for gradient in expected.values()]).max())
    found = {}
    for name, way in ways.items():
        actual = step.gradients(way)
        if actual.keys() != expected.keys():
            found[name] = Apart(float("inf"), largest)
            continue
        # torch's max, unlike Python's, returns a NaN if there is one
        apart = torch.stack([(actual[each] - expected[each]).abs().max() for each in expected]).max()
        found[name] = Apart(float(apart), largest)
    return found


def flops(size: Size, way: Way) -> int:
    """Count the products of a step, forward and backward, with torch's kernels."""
    step = build(resolved(replace(size.config, kernels="torch")))
    tokens_of_step = size.sequences * size.positions
    return measure([step.model], lambda: step.descend(way), tokens_of_step).flops_per_step
