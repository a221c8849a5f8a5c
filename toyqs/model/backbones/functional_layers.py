"""Layers of the library that run again when their gradient is wanted, to save memory.

The library's own switch for that runs a layer with whatever weights its modules hold then, and a `Decoder`
lends them only while it runs: so here a layer takes along those that it was lent. Needs the package
transformers.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

INSIDE = "toyqs_inside"  # tells a layer that it has its weights


class _FunctionalLayer:
    """Stands before a layer's own class."""

    def forward(self, hidden: Tensor, *args: Any, **told: Any) -> Tensor:
        """Run as the layer's own does."""
        if told.pop(INSIDE, False) or not torch.is_grad_enabled():
            return super().forward(hidden, *args, **told)  # type: ignore[misc]
        layer: Any = self
        return _recomputed(layer, (hidden, *args), told)


def _recomputed(layer: nn.Module, args: tuple[Any, ...], told: dict[str, Any]) -> Tensor:
    """Keep a layer's inputs alone; what its attention keeps leaves the layer by the front door.

    `toyqs_kept` is filled once, with tensors of the first run: a second run has a dictionary of its own.
    """
    lent: dict[str, Tensor] = dict(layer.named_parameters())
    kept = told.pop("toyqs_kept")
    first = [True]

    def run(hidden: Tensor) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
        caught: dict[int, tuple[Tensor, Tensor]] = {}
        kwargs = {**told, "toyqs_kept": caught, INSIDE: True}
        # Out of sight of whoever counts products: a step's cost does not hang on how it saves memory.
        with nullcontext() if first else _disable_current_modes():
            first.clear()
            return functional_call(layer, lent, (hidden, *args[1:]), kwargs), caught

    out, caught = checkpoint(run, args[0], use_reentrant=False, preserve_rng_state=False)
    kept.update(caught)
    return out


def recompute_layers(code: nn.Module) -> None:
    """Let the layers of a model of the library's run again when their gradient is wanted."""
    for module in code.modules():
        if isinstance(module, GradientCheckpointingLayer):
            kind = type(module)
            module.__class__ = type(kind.__name__, (_FunctionalLayer, kind), {})
