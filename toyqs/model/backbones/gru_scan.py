"""A GRU's steps along a sequence, forwards and backwards, written for narrow GRUs.

Time is the first axis here, so that every step works on contiguous (S, B, ·) blocks, and all that does not
depend on the order of the steps is computed for all of them at once. At these sizes making a view of a step
costs as much as the arithmetic on it: so the buffers and the views of all their steps are made once for each
shape and reused, and results that must outlive a call are copied out of them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from toyqs.model.layers import logistic_

REUSED_NUMBERS = 2**20  # larger buffers are not reused: views are cheap then, and memory is not


class Sequence(torch.autograd.Function):
    """T steps from a zero state, with one product for the recurrent weight's gradient.

    Args:
        x: (S, B, T, 3 D) input rows.
        weight: (S, D, 3 D).
        bias: (S, 1, 3 D).

    Returns:
        (S, B, T, D) the states.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Read the sequence."""
        x = x.permute(2, 0, 1, 3)
        at = _buffers(_Forwards, x)
        at.x.copy_(x)
        state = at.hidden[0]
        g, g_rz, g_n = at.recurrent
        for kept, x_rz, x_n, rz, r, z, n, new in at.steps:
            torch.baddbmm(bias, state, weight, out=g)
            kept.copy_(g_n)
            logistic_(torch.add(x_rz, g_rz, out=rz))
            torch.addcmul(x_n, r, g_n, out=n).tanh_()
            state = torch.lerp(n, state, z, out=new)
        hidden = at.hidden.clone()
        ctx.save_for_backward(hidden, at.g_n.clone(), at.rz.clone(), at.n.clone(), weight)
        return hidden[1:].permute(1, 2, 0, 3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients at x, weight and bias."""
        hidden, g_n, rz, n, weight = ctx.saved_tensors
        grad = grad.permute(2, 0, 1, 3)
        at = _buffers(_Backwards, grad)
        at.new.copy_(grad)  # the loop adds the gradients from later steps
        at.rz.copy_(rz)
        slope_r, slope_z = torch.addcmul(rz, rz, rz, value=-1).chunk(2, -1)
        torch.mul(hidden[:-1] - n, slope_z, out=at.new_by_z)
        torch.addcmul(1 - at.z, 1 - at.z, n * n, value=-1, out=at.new_by_n)
        torch.mul(g_n, slope_r, out=at.n_by_r)
        weight_t = weight.mT.contiguous()
        for earlier, new, g, g_r, g_z, g_n, at_n, r, z, n_by_r, new_by_z, new_by_n in at.steps:
            torch.mul(new, new_by_n, out=at_n)
            torch.mul(at_n, n_by_r, out=g_r)
            torch.mul(new, new_by_z, out=g_z)
            torch.mul(at_n, r, out=g_n)
            if earlier is not None:
                torch.baddbmm(earlier.addcmul_(new, z), g, weight_t, out=earlier)
        flat_g, flat_h = (v.transpose(0, 1).flatten(1, 2).contiguous() for v in (at.g, hidden[:-1]))
        at_weight, at_bias = torch.bmm(flat_h.mT, flat_g), flat_g.sum(1, keepdim=True)
        at.g_n.copy_(at.n)  # only here do the gradients at x and at g differ
        return at.g.permute(1, 2, 0, 3).clone(memory_format=torch.contiguous_format), at_weight, at_bias


class _Forwards:
    """Buffers of reading: input rows x, a step's recurrent rows g, gates r and z, candidate n, states."""

    def __init__(self, like: Tensor) -> None:
        length, num_seeds, batch, wide = like.shape
        width = wide // 3
        self.x, g = like.new_empty(like.shape), like.new_empty(like.shape[1:])
        self.rz = like.new_empty(length, num_seeds, batch, 2 * width)
        self.n, self.g_n = (like.new_empty(length, num_seeds, batch, width) for _ in range(2))
        self.hidden = like.new_zeros(length + 1, num_seeds, batch, width)  # the first stays zero
        x_rz, x_n = self.x.split((2 * width, width), -1)
        self.recurrent = (g, *g.split((2 * width, width), -1))
        blocks = (self.g_n, x_rz, x_n, self.rz, *self.rz.chunk(2, -1), self.n)
        self.steps = _by_step(*blocks, self.hidden[1:])


class _Backwards:
    """Buffers of the gradient: at new states, candidates n, rows g; derivatives y_by_x."""

    def __init__(self, like: Tensor) -> None:
        *sizes, width = like.shape
        self.new, self.n, self.new_by_z, self.new_by_n, self.n_by_r = (
            like.new_empty(like.shape) for _ in range(5)
        )
        self.g, self.rz = like.new_empty(*sizes, 3 * width), like.new_empty(*sizes, 2 * width)
        (g_r, g_z, self.g_n), (r, self.z) = self.g.chunk(3, -1), self.rz.chunk(2, -1)
        blocks = (self.g, g_r, g_z, self.g_n, self.n, r, self.z, self.n_by_r, self.new_by_z, self.new_by_n)
        earlier = [None, *self.new.unbind()]
        steps = _by_step(self.new, *blocks)
        self.steps = [(before, *step) for before, step in zip(earlier, steps, strict=False)][::-1]


def _by_step(*blocks: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(block.unbind() for block in blocks), strict=True))


def _buffers(kind: type, like: Tensor) -> Any:
    """Return the buffers for sequences like this one, (T, S, B, ·)."""
    # A graph has addresses of its own, which must last as long as it does.
    if like.numel() > REUSED_NUMBERS or (like.is_cuda and torch.cuda.is_current_stream_capturing()):
        return kind(like)
    return _reused_buffers(kind, like.shape, like.dtype, like.device)


@functools.lru_cache(maxsize=16)
def _reused_buffers(kind: type, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Any:
    return kind(torch.empty(shape, dtype=dtype, device=device))
