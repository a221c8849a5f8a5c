"""The whole step of a GRU language model without thoughts, by one native function: plain.h."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toyqs.model.backbones.kernels.calls import call, check, check_first_order, check_shapes


class PlainLoss(torch.autograd.Function):
    """The mean of −log p(target) of a GRU with a linear head on its states, over the positions that count.

    The gradients are computed along with it, so it is for training alone.

    Args:
        x: (S, V, 3 D) input rows of the tokens.
        inputs: (S, B, T) long.
        places: (S, B, T') long, the positions that predict; None: all.
        targets: (S, B, T') long.
        weights: (S, B, T').
        w_hh: (S, D, 3 D).
        b_hh: (S, 1, 3 D).
        w_head: (S, D, classes).
        b_head: (S, 1, classes).

    Returns:
        (S,).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        inputs: Tensor,
        places: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        *layers: Tensor,
    ) -> Tensor:
        """Compute the loss and its gradients."""
        for ids in (inputs, places, targets):
            check(ids, x, weights, *layers)
        seeds, width, classes = layers[2].shape
        wide, each = 3 * width, (*inputs.shape[:2], (inputs if places is None else places).shape[2])
        check_shapes(
            *((x, (seeds, x.shape[1], wide)), (inputs, (seeds, *inputs.shape[1:])), (targets, each)),
            *((weights, each), (targets if places is None else places, each)),
            *((layers[0], (seeds, width, wide)), (layers[1], (seeds, 1, wide))),
            (layers[3], (seeds, 1, classes)),
        )
        given = [
            None if y is None else y.contiguous() for y in (x, inputs, places, targets, weights, *layers)
        ]
        found = at_x, *at_layers = (torch.zeros_like(x), *map(torch.empty_like, layers))
        loss = x.new_empty(len(x))
        sizes = (*inputs.shape, targets.shape[2], x.shape[1], width, classes)
        layers_and_gradients = (*given[5:7], *at_layers[:2], *given[7:], *at_layers[2:])
        call("plain_step", x.dtype, *given[:5], *layers_and_gradients, loss, at_x, *sizes)
        ctx.save_for_backward(*found)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        check_first_order()
        at_x, *others = (found * grad.view(-1, 1, 1) for found in ctx.saved_tensors)
        return at_x, None, None, None, None, *others
