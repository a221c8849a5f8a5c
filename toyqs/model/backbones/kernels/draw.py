"""Symbols drawn by a native function from a linear layer's softmax: draw.h."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toyqs.model.backbones.kernels.calls import call, check, check_shapes


class Draw(torch.autograd.Function):
    """The sampling of J symbols from each row's softmax, with log-probabilities and the row's entropy.

    Args:
        hidden: (S, ..., D).
        weight: (S, D, V) of the layer before the softmax.
        bias: (S, 1, V).
        given: (S, ..., J) uniform numbers; with `forced` long, the symbols themselves.
        forced: score the given symbols instead of sampling.

    Returns:
        (S, ..., J) long symbols, (S, ..., J) their log-probabilities, (S, ...) entropies.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, given: Tensor, forced: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the symbols."""
        check(given if forced else None, hidden, weight, bias, *(() if forced else (given,)))
        classes = weight.shape[-1]
        check_shapes(
            (given, (*hidden.shape[:-1], given.shape[-1])),
            (weight, (len(hidden), hidden.shape[-1], classes)),
            (bias, (len(hidden), 1, classes)),
        )
        hidden, weight, bias, given = (x.contiguous() for x in (hidden, weight, bias, given))
        symbols = given if forced else torch.empty(given.shape, dtype=torch.long)
        log_prob, entropy = hidden.new_empty(given.shape), hidden.new_empty(given.shape[:-1])
        noise = None if forced else given
        ctx.sizes = (len(hidden), hidden.shape[1:-1].numel(), given.shape[-1], *weight.shape[1:])
        inputs = (hidden, weight, bias, None, None, noise, symbols)
        call("draw", hidden.dtype, *inputs, log_prob, entropy, *[None] * 3, *ctx.sizes)
        ctx.save_for_backward(hidden, weight, bias, symbols)
        ctx.mark_non_differentiable(symbols)
        return symbols, log_prob, entropy

    @staticmethod
    def backward(ctx: Any, _: Any, at_log_prob: Tensor, at_entropy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        hidden, weight, bias, symbols = ctx.saved_tensors
        at_hidden, *at_layer = map(torch.zeros_like, (hidden, weight, bias))
        given = (hidden, weight, bias, *at_layer, None, symbols, None, None)
        at_results = (at_log_prob.contiguous(), at_entropy.contiguous())
        call("draw", hidden.dtype, *given, *at_results, at_hidden, *ctx.sizes)
        return at_hidden, *at_layer, None, None
