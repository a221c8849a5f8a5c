"""Transformers under the tables of tiny.py: they take one seed, so the tuples lie along the batch.

The trace is folded back to a seed for each tuple before an objective hears it.
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
    """The settings of a GRU's table for a transformer of two heads: widths up to 3 are 4, others 8.

    What a run refuses with a transformer, the tables skip.
    """
    if plain.get("thoughts") == "state" or plain.get("ahead") == "continue":
        pytest.skip("refused with a transformer: see tests/config/checks/test_backbone.py")
    found = {"model_n_layer": 2, "model_n_head": 2} | plain
    for name, width in plain.items():
        if name.endswith("hidden_dim") and width is not None:
            found[name] = 4 if width <= 3 else 8
    return found


def stirred(name: str, parameter: Tensor, scale: float) -> Tensor:
    """A core's weights far from where they start: there they are too small for any mistake to show."""
    drawn = torch.randn(parameter.shape[1:], generator=stream(0, f"stirred/{name}"), dtype=torch.float64)
    return parameter + (0.1 if ".backbone." in name else 1.0) * scale * drawn


def norm_in_float64(norm: Any, x: Tensor) -> Tensor:
    """A Llama norm in the precision of its input, where the library's computes in float32."""
    return norm.weight * x * (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()


RIGHT = latent_reasoner._average_of_others


class Folded(LatentReasoner):
    """One model that many tuples go through side by side: from outside it has a seed for each of them."""

    def read(self, inputs: Tensor, positions: Tensor | None) -> Context:
        return self.one.read(fold(inputs), fold(positions))

    def think(self, context: Context, noise: Tensor, *rest: Any, **how: Any) -> Thoughts | None:
        thoughts = self.one.think(context, fold(noise), *map(fold, rest), **how)
        return self._unfold(thoughts)

    def average_of_others(self, reading: Tensor) -> Tensor:
        """Of the other positions of the same tuple."""
        return fold(RIGHT(reading[0].unflatten(0, (self.copies, -1))))

    def talk(self, context: Context, thoughts: Thoughts | None, gate_floor: float = 0.0) -> Trace:
        if thoughts is not None:
            thoughts = Thoughts(*map(fold, thoughts))
        with mock.patch.object(latent_reasoner, "_average_of_others", self.average_of_others):
            return self._unfold(self.one.talk(context, thoughts, gate_floor))

    def forward(self, *given: Any, **more: Any) -> Trace:
        given, more = map(fold, given), {name: fold(value) for name, value in more.items()}
        with mock.patch.object(latent_reasoner, "_average_of_others", self.average_of_others):
            return self._unfold(self.one(*given, **more))

    @property
    def one(self) -> LatentReasoner:
        """The same modules with one seed."""
        found = copy.copy(self)
        found.__class__ = LatentReasoner
        return found

    def _unfold(self, found: Any) -> Any:
        return type(found)(
            *(x[0].unflatten(0, (self.copies, -1)) if isinstance(x, Tensor) else x for x in found)
        )


def folded(model: LatentReasoner, copies: int) -> LatentReasoner:
    """The model for so many tuples side by side."""
    if copies > 1:
        model.__class__, model.copies = Folded, copies
    return model


def fold(x: Any) -> Any:
    """(S, B, ...) -> (1, S B, ...); what has no such axes stays."""
    return x.flatten(0, 1).unsqueeze(0) if isinstance(x, Tensor) and x.dim() > 1 else x
