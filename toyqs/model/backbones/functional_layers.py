"""Layers of the library that are run again in the backward pass, instead of keeping what it needs.

The library's own switch for that runs a layer again with whatever weights its module holds by then, but a
`Decoder` puts its weights into the modules only during a call. So here each layer is called with the weights
that it had the first time. Needs the package transformers.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

AS_IT_IS = "toyqs_as_it_is"  # keyword of a call that runs the layer's own code

KeysValues = dict[int, tuple[Tensor, Tensor]]  # layer -> its keys and values


class _FunctionalLayer:
    """Comes before a layer's own class among its bases."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run the layer, with recomputation where a gradient is wanted."""
        if kwargs.pop(AS_IT_IS, False) or not torch.is_grad_enabled():
            return super().forward(hidden, *args, **kwargs)  # type: ignore[misc]
        layer: Any = self
        return _recomputed(layer, (hidden, *args), kwargs)


def _recomputed(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Run a layer of which only the inputs are kept for the backward pass.

    The attention function stores a layer's keys and values in the dictionary `toyqs_keys_values`. A gradient
    reaches them only as outputs of the checkpointed call: so each run fills a dictionary of its own, and that
    of the first one is copied into the caller's.
    """
    weights: dict[str, Tensor] = dict(layer.named_parameters())
    keys_values: KeysValues = kwargs.pop("toyqs_keys_values")
    runs = count()

    def run(hidden: Tensor) -> tuple[Tensor, KeysValues]:
        own: KeysValues = {}
        call = {**kwargs, "toyqs_keys_values": own, AS_IT_IS: True}
        # The second run is hidden from FLOP counters: a step's cost must not depend on how it saves memory.
        with _disable_current_modes() if next(runs) else nullcontext():
            return functional_call(layer, weights, (hidden, *args[1:]), call), own

    out, own = checkpoint(run, args[0], use_reentrant=False, preserve_rng_state=False)
    keys_values.update(own)
    return out


def recompute_layers(code: nn.Module) -> None:
    """Let the layers of one of the library's models be run again in the backward pass."""
    for module in code.modules():
        if isinstance(module, GradientCheckpointingLayer):
            kind = type(module)
            module.__class__ = type(kind.__name__, (_FunctionalLayer, kind), {})
