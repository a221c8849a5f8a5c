"""An affine map to few outputs by torch's product with more of them, which takes a quarter of the time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

COLUMNS = 16  # below 12 outputs of many rows torch takes a slow way


class FewColumns(torch.autograd.Function):
    """`affine` of model/layers.py with at most COLUMNS outputs, to rounding.

    Args:
        rows: (S, ..., D).
        weight: (S, D, E), E ≤ COLUMNS.
        bias: (S, 1, E) or None.

    Returns:
        (S, ..., E).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map the rows."""
        out = weight.shape[-1]
        wide, flat = _widened(weight), rows.flatten(1, -2)
        ctx.save_for_backward(flat, wide)
        ctx.shape, ctx.out, ctx.biased = rows.shape, out, bias is not None
        found = torch.bmm(flat, wide) if bias is None else torch.baddbmm(_widened(bias), flat, wide)
        return found[..., :out].reshape(*rows.shape[:-1], out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        flat, wide = ctx.saved_tensors
        grad = grad.flatten(1, -2)
        at_out = _widened(grad)
        at_rows = torch.bmm(at_out, wide.transpose(1, 2)).view(ctx.shape) if ctx.needs_input_grad[0] else None
        at_weight = torch.bmm(flat.transpose(1, 2), at_out)[..., : ctx.out]
        return at_rows, at_weight, at_out.sum(1, keepdim=True)[..., : ctx.out] if ctx.biased else None


def _widened(x: Tensor) -> Tensor:
    return functional.pad(x, (0, COLUMNS - x.shape[-1]))
