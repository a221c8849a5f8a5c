"""A GRU's native steps, as functions with a gradient: gru.h."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toyqs.model.backbones.kernels import KEPT_FROM
from toyqs.model.backbones.kernels.calls import call, check, check_shapes


class BranchStep(torch.autograd.Function):
    """One step of branches; arguments, result and gradients as of `_Branch` in ../gru.py.

    Kept for the gradient are the arguments, and of wide states the recurrent rows: the gates are computed
    again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, ids: Tensor | None, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Step the branches."""
        check(ids, x, h, weight, bias)
        places = _broadcast(x.shape[:-1] if ids is None else ids.shape, h.shape[:-1])
        _check_shapes(places[0], h.shape[-1], x, ids, weight, bias)
        if ids is not None:
            ids, x = ids.expand(places).contiguous(), x.contiguous()
        ctx.x_shape, ctx.h_shape = x.shape, h.shape
        x, h = (x if ids is not None else _leading(x, places)), _leading(h, places)
        ctx.sizes = sizes = _sizes(x, h, places)
        new = h.new_empty(*places, h.shape[-1])
        weight, bias = weight.contiguous(), bias.contiguous()
        kept = None
        if h.shape[-1] >= KEPT_FROM and any(ctx.needs_input_grad):
            kept = h.new_empty(*h.shape[:-1], 3 * padded(h))
        call("gru", h.dtype, x, ids, h, weight, bias, None, None, new, None, None, None, kept, *sizes)
        ctx.save_for_backward(x, ids, h, weight, bias, kept)
        return new

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        x, ids, h, weight, bias, kept = ctx.saved_tensors
        at_x, *at_layer = map(torch.zeros_like, (x, weight, bias))
        at_h = torch.empty_like(h)
        given, now = (x, ids, h, weight, bias, *at_layer), grad.contiguous()
        call("gru", h.dtype, *given, None, now, at_x, at_h, kept, *ctx.sizes)
        at_x, at_h = (
            y if y.shape == shape else y.sum_to_size(shape)
            for y, shape in ((at_x, ctx.x_shape), (at_h, ctx.h_shape))
        )
        return at_x, None, at_h, *at_layer


class Scan(torch.autograd.Function):
    """Steps along sequences from zero states.

    Args:
        x: (S, B, T, 3 D) input rows; or, with ids, a table (S, n, 3 D) of such.
        ids: (S, B, T) of each position's row in the table; None: x has the rows.
        weight: (S, D, 3 D).
        bias: (S, 1, 3 D).

    Returns:
        (S, B, T, D) the states.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
        """Read the sequences."""
        return _scan(ctx, x, ids, None, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        own = grad.clone(memory_format=torch.contiguous_format)  # later steps' gradients are added to it
        at_x, _, *at_layer = _scan_back(ctx, own)
        return at_x, None, *at_layer


class LastState(torch.autograd.Function):
    """The states after steps along sequences from given states; arguments as of `Scan`.

    Args:
        table: (S, n, 3 D) input rows.
        ids: (S, B, T) of each position's row, T ≥ 1.
        h: (S, B, D) states.
        weight: (S, D, 3 D).
        bias: (S, 1, 3 D).

    Returns:
        (S, B, D).
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Read the sequences."""
        check_shapes((h, (*ids.shape[:2], weight.shape[1])))
        return _scan(ctx, table, ids, h.contiguous(), weight, bias)[:, :, -1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        own = torch.zeros_like(ctx.saved_tensors[-1])
        own[:, :, -1] = grad
        at_x, at_h, *at_layer = _scan_back(ctx, own)
        return at_x, None, at_h, *at_layer


def _scan(ctx: Any, x: Tensor, ids: Tensor | None, h: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    """Step along sequences from states (S, B, D) or zeros; return all states (S, B, T, D)."""
    check(ids, x, weight, bias, *(() if h is None else (h,)))
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    ids = None if ids is None else ids.contiguous()
    places = x.shape[:3] if ids is None else ids.shape
    _check_shapes(places[0], weight.shape[1], x, ids, weight, bias)
    states = x.new_empty(*places, weight.shape[1])
    seeds, batch, length = places
    ctx.sizes = (seeds, batch, 1, length, x.shape[1:-1].numel(), *[weight.shape[1]] * 2)
    call("gru", x.dtype, x, ids, h, weight, bias, None, None, states, *[None] * 4, *ctx.sizes)
    ctx.save_for_backward(x, ids, h, weight, bias, states)
    return states


def _scan_back(ctx: Any, own: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients at rows, first states, weight and bias; `own`, those at all states, is used up."""
    x, ids, h, weight, bias, states = ctx.saved_tensors
    at_x, *at_layer = (torch.zeros_like(y) for y in (x, weight, bias))
    at_h = None if h is None else torch.empty_like(h)
    layer = (weight, bias, *at_layer)
    call("gru", x.dtype, x, ids, h, *layer, states, own, at_x, at_h, None, *ctx.sizes)
    return at_x, at_h, *at_layer


def padded(rows: Tensor) -> int:
    """Return the width of rows in whole vectors of 32 bytes."""
    lanes = 32 // rows.element_size()
    return -(-rows.shape[-1] // lanes) * lanes


def _check_shapes(
    seeds: int, width: int, x: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor
) -> None:
    """Check the input rows, or the table that they are in, and the layer of states so wide."""
    rows = (len(x) if ids is None else seeds, *x.shape[1:-1], 3 * width)
    check_shapes((x, rows), (weight, (seeds, width, 3 * width)), (bias, (seeds, 1, 3 * width)))


def _broadcast(one: torch.Size, other: torch.Size) -> torch.Size:
    """Broadcast two shapes of as many axes; torch.broadcast_shapes takes half the time of a small step.

    Raises:
        ValueError: they do not fit.
    """
    for a, b in zip(one, other, strict=True):
        if a != b and a != 1 != b:
            raise ValueError(f"rows of shape {tuple(one)} for states of shape {tuple(other)}")
    return torch.Size(b if a == 1 else a for a, b in zip(one, other, strict=True))


def _leading(rows: Tensor, places: torch.Size) -> Tensor:
    """Return rows (S, ..., D) as they are where they repeat along the last of all places alone, else all."""
    own, axes = rows.shape[:-1], range(1, len(places) + 1)
    if not any(own[:i] == places[:i] and set(own[i:]) <= {1} for i in axes):
        rows = rows.expand(*places, rows.shape[-1])
    return rows.contiguous()


def _sizes(x: Tensor, h: Tensor, places: torch.Size) -> tuple[int, ...]:
    """Return the sizes that the native function has to know, in its order."""
    starts = h.shape[1:-1].numel()
    each = torch.Size(places[1:]).numel() // max(1, starts)
    return places[0], starts, each, 1, x.shape[1:-1].numel(), h.shape[-1], h.shape[-1]
