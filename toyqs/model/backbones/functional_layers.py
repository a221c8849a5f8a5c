"""Layers of the library that run on weights which they are lent, as all of a `Decoder`'s code does.

To save memory a layer may run again when its gradient is wanted. The library's own switch for that runs it
with whatever weights its modules hold then, and a `Decoder` lends them only while it runs: so a layer takes
along those that it was lent. And a layer may gather its weights from several processes (sharding.py). Needs
the package transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from toyqs.model.backbones.sharding import Shards

INSIDE = "toyqs_inside"  # tells a layer that it has its weights


class _Lent:
    """Stands before a layer's own class."""

    recompute = False
    shards: Shards | None = None

    def forward(self, hidden: Tensor, *args: Any, **told: Any) -> Tensor:
        """As the layer's own."""
        layer: Any = self
        recompute = self.recompute and torch.is_grad_enabled()
        if told.pop(INSIDE, False) or not (recompute or self.shards):
            return super().forward(hidden, *args, **told)  # type: ignore[misc]
        if recompute:
            return _recomputed(layer, self.shards or dict(layer.named_parameters()), (hidden, *args), told)
        assert self.shards is not None
        weights = self.shards.gathered()
        with self.shards.let_go(weights):
            return functional_call(layer, weights, (hidden, *args), {**told, INSIDE: True})


def _recomputed(
    layer: nn.Module, lent: Shards | Mapping[str, Tensor], args: tuple[Any, ...], told: dict[str, Any]
) -> Tensor:
    """Keep a layer's inputs alone; what its attention keeps leaves the layer by the front door.

    `toyqs_kept` is filled once, with tensors of the first run: a second run has a dictionary of its own.
    """
    kept = told.pop("toyqs_kept")
    first = [True]

    def run(hidden: Tensor) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
        caught: dict[int, tuple[Tensor, Tensor]] = {}
        kwargs = {**told, "toyqs_kept": caught, INSIDE: True}
        # Out of sight of whoever counts products: a step's cost does not hang on how it saves memory.
        with nullcontext() if first else _disable_current_modes():
            first.clear()
            weights = lent.gathered() if isinstance(lent, Shards) else lent
            return functional_call(layer, dict(weights), (hidden, *args[1:]), kwargs), caught

    out, caught = checkpoint(run, args[0], use_reentrant=False, preserve_rng_state=False)
    kept.update(caught)
    return out


def lent_layers(code: nn.Module) -> dict[str, Any]:
    """The layers of a model of the library's by their names, each now a `_Lent` one."""
    modules = code.named_modules()
    layers = {name: module for name, module in modules if isinstance(module, GradientCheckpointingLayer)}
    for module in layers.values():
        kind = type(module)
        module.__class__ = type(kind.__name__, (_Lent, kind), {})
    return layers
