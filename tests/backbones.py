"""Transformers in the tables of tiny.py: they take one seed, so the tuples lie along the batch.

The trace is unfolded to one seed per tuple before an objective receives it.
"""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from toyqs.model import latent_reasoner
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import stream
from toyqs.types import Context, Thoughts, Trace

TRANSFORMERS = ("gpt2", "llama")
BACKBONES = ("gru", *TRANSFORMERS)


def sizes(plain: dict[str, Any]) -> dict[str, Any]:
    """Adapt a GRU's settings to a transformer of two heads: widths up to 3 become 4, others 8.

    Tests of settings that a transformer refuses are skipped.
    """
    if plain.get("thoughts") == "state":
        pytest.skip("refused with a transformer: see tests/config/checks/test_backbone.py")
    found = {"model_n_layer": 2, "model_n_head": 2} | plain
    for name, width in plain.items():
        if name.endswith("hidden_dim") and width is not None:
            found[name] = 4 if width <= 3 else 8
    return found


def perturbed(name: str, parameter: Tensor, scale: float) -> Tensor:
    """Add noise to a core's initial weights, which are too small for any mistake to show."""
    noise = torch.randn(parameter.shape[1:], generator=stream(0, f"stirred/{name}"), dtype=torch.float64)
    return parameter + (0.1 if ".backbone." in name else 1.0) * scale * noise


def norm_in_float64(norm: Any, x: Tensor) -> Tensor:
    """Compute a Llama norm in the precision of its input, where the library's uses float32."""
    return norm.weight * x * (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()


RIGHT = latent_reasoner.average_of_others


class Folded(LatentReasoner):
    """A model of one seed that computes many tuples side by side and looks like one with a seed for each."""

    def read(self, inputs: Tensor, positions: Tensor | None, first: int = 0) -> Context:
        return self.one.read(fold(inputs), fold(positions), first)

    def think(self, context: Context, noise: Tensor, *rest: Any, **how: Any) -> Thoughts | None:
        thoughts = self.one.think(context, fold(noise), *map(fold, rest), **how)
        return self._unfold(thoughts)

    def average_of_others(self, reading: Tensor) -> Tensor:
        """Average the readings of the other positions of the same tuple."""
        return fold(RIGHT(reading[0].unflatten(0, (self.copies, -1))))

    def talk(self, context: Context, thoughts: Thoughts | None, gate_floor: float = 0.0) -> Trace:
        if thoughts is not None:
            thoughts = Thoughts(*map(fold, thoughts))
        with mock.patch.object(latent_reasoner, "average_of_others", self.average_of_others):
            return self._unfold(self.one.talk(context, thoughts, gate_floor))

    def forward(self, *given: Any, **more: Any) -> Trace:
        given, more = map(fold, given), {name: fold(value) for name, value in more.items()}
        with mock.patch.object(latent_reasoner, "average_of_others", self.average_of_others):
            return self._unfold(self.one(*given, **more))

    @property
    def one(self) -> LatentReasoner:
        """Return the same modules as a plain model of one seed."""
        found = copy.copy(self)
        found.__class__ = self.kind
        return found

    def _unfold(self, output: Any) -> Any:
        return type(output)(
            *(x[0].unflatten(0, (self.copies, -1)) if isinstance(x, Tensor) else x for x in output)
        )


def folded(model: LatentReasoner, copies: int) -> LatentReasoner:
    """Make a model compute a number of tuples side by side."""
    if copies > 1:
        model.kind, model.__class__, model.copies = type(model), Folded, copies
    return model


def fold(x: Any) -> Any:
    """Reshape (S, B, ...) to (1, S B, ...); leave alone what has no such axes."""
    return x.flatten(0, 1).unsqueeze(0) if isinstance(x, Tensor) and x.dim() > 1 else x
