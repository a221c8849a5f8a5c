"""Layers of the library that keep their inputs alone and are run again when their gradient is wanted.

The library's own switch runs a layer again with whatever weights its modules hold then, and a `Decoder` lends
them only while it runs. So a layer takes along those that it was lent. Needs the package transformers.
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

AGAIN = "toyqs_again"  # tells a layer that it is inside of `checkpoint`


class _Recomputed:
    """Stands before a layer's own class."""

    def forward(self, hidden: Tensor, *args: Any, **told: Any) -> Tensor:
        """As the layer's own; what its attention keeps leaves the layer by the front door.

        `toyqs_kept` is filled once, with tensors of the first run: a second run has a dictionary of its own.
        """
        layer: Any = self
        if told.pop(AGAIN, False) or not torch.is_grad_enabled():
            return super().forward(hidden, *args, **told)  # type: ignore[misc]
        lent, kept = dict(layer.named_parameters()), told.pop("toyqs_kept")

        first = [True]

        def run(hidden: Tensor) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
            caught: dict[int, tuple[Tensor, Tensor]] = {}
            kwargs = {**told, "toyqs_kept": caught, AGAIN: True}
            # Out of sight of whoever counts products: a step's cost does not hang on how it saves memory.
            with nullcontext() if first else _disable_current_modes():
                first.clear()
                return functional_call(layer, lent, (hidden, *args), kwargs), caught

        out, caught = checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)
        kept.update(caught)
        return out


def recompute_layers(code: nn.Module) -> None:
    """Let every layer of a model of the library's be run again in the backward pass."""
    for module in code.modules():
        if isinstance(module, GradientCheckpointingLayer):
            kind = type(module)
            module.__class__ = type(kind.__name__, (_Recomputed, kind), {})
