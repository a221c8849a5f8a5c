"""The GRU backbone: nn.GRU's equations, stacked over seeds, branchable at every position.

    r = σ(x_r + W_r h + b_r)      z = σ(x_z + W_z h + b_z)
    n = tanh(x_n + r ⊙ (W_n h + b_n))      h' = n + z ⊙ (h − n)

with x = e W_ih + b_ih taken from a table (the inlet). The branch point is the hidden vector.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.model.backbone import Backbone
from toyqs.model.layers import Stacked, affine, logistic_, uniform


class Gates(NamedTuple):
    """One or many updates: what the gradient needs of them."""

    new: Tensor  # (..., D) the new state
    rz: Tensor  # (..., 2 D) reset and update gate side by side
    n: Tensor  # (..., D) candidate


class GRU(Stacked, Backbone):
    """One GRU layer; hidden width = embedding width = D, inlet width I = 3 D."""

    def __init__(self, num_seeds: int, width: int) -> None:
        super().__init__()
        self.width = width
        rule = uniform(1.0 / math.sqrt(width))
        self.weight_ih = self.declare("weight_ih", (num_seeds, width, 3 * width), rule)
        self.weight_hh = self.declare("weight_hh", (num_seeds, width, 3 * width), rule)
        self.bias_ih = self.declare("bias_ih", (num_seeds, 1, 3 * width), rule)
        self.bias_hh = self.declare("bias_hh", (num_seeds, 1, 3 * width), rule)

    def inlet(self, embeddings: Tensor) -> Tensor:
        """(S, n, D) -> (S, n, 3 D)."""
        return affine(embeddings, self.weight_ih, self.bias_ih)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(S, B, T, 3 D) -> outputs (S, B, T, D) and the branch points (S, B, T, 1, D)."""
        outputs = _Sequence.apply(x, self.weight_hh, self.bias_hh)
        return outputs, outputs.unsqueeze(3)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(S, B, T, K, 3 D) and hidden vectors (S, B, T, K, D) -> the new hidden vectors, twice."""
        hidden = _Branch.apply(x, affine(state, self.weight_hh, self.bias_hh), state)
        return hidden, hidden

    def gather(self, state: Tensor, index: Tensor) -> Tensor:
        """(S, B, T, K, D) -> (S, B, T', K, D)."""
        index = index.view(*index.shape, 1, 1).expand(*index.shape, *state.shape[3:])
        return state.gather(2, index)


def _parts(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 3 D) -> the rows of both gates (..., 2 D) and those of the candidate (..., D)."""
    gates, candidate = rows.split((2 * rows.shape[-1] // 3, rows.shape[-1] // 3), -1)
    return gates, candidate


def _gates(x: tuple[Tensor, Tensor], g: tuple[Tensor, Tensor], h: Tensor, out: Gates | None = None) -> Gates:
    """One update from the `_parts` of inlet rows x and recurrent rows g, and the state h (..., D)."""
    new, rz, n = out or (None, None, None)
    rz = logistic_(torch.add(x[0], g[0], out=rz))
    r, z = rz.chunk(2, -1)
    n = torch.addcmul(x[1], r, g[1], out=n).tanh_()
    return Gates(torch.lerp(n, h, z, out=new), rz, n)


class _Branch(torch.autograd.Function):
    """`_gates` for branches: one step whose arguments broadcast.

    The rows are many and narrow, so memory traffic is the cost, not arithmetic: the gradients at x and
    at g differ in the candidate's columns alone, and share one buffer until then.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, h: Tensor) -> Tensor:
        gates = _gates(_parts(x), _parts(g), h)
        ctx.save_for_backward(*gates, g, h)
        ctx.x_shape = x.shape
        return gates.new

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        new, rz, n, g, h = ctx.saved_tensors
        r, z = rz.chunk(2, -1)
        rows = grad.new_empty(*grad.shape[:-1], 3 * n.shape[-1])
        at_r, at_z, at_n = rows.chunk(3, -1)
        at_h = grad * z
        at_candidate = grad - at_h
        torch.mul(at_candidate, new - n, out=at_z)  # new − n = z ⊙ (h − n)
        torch.addcmul(at_candidate, at_candidate * n, n, value=-1, out=at_n)
        through = at_n * r
        at_reset = through * _parts(g)[1]
        torch.addcmul(at_reset, at_reset, r, value=-1, out=at_r)
        at_x = rows.clone() if ctx.x_shape == rows.shape else rows.sum_to_size(ctx.x_shape)
        _parts(rows)[1].copy_(through)
        return at_x, rows.sum_to_size(g.shape), at_h.sum_to_size(h.shape)


class Slopes(NamedTuple):
    """Derivatives of an update, each (..., D); a gradient at h' meets them elementwise."""

    z: Tensor  # of h' by h, along the direct path
    at_z: Tensor  # of h' by the update gate's argument
    at_n: Tensor  # of h' by the candidate's argument
    at_r: Tensor  # of the candidate's argument by the reset gate's
    r: Tensor  # of the candidate's argument by g_n


def _slopes(gates: Gates, g: Tensor, h: Tensor) -> Slopes:
    _, rz, n = gates
    r, z = rz.chunk(2, -1)
    slope_r, slope_z = torch.addcmul(rz, rz, rz, value=-1).chunk(2, -1)
    at_n = torch.addcmul(1 - z, 1 - z, n * n, value=-1)
    return Slopes(z, (h - n).mul_(slope_z), at_n, g[..., 2 * n.shape[-1] :] * slope_r, r)


class _Sequence(torch.autograd.Function):
    """T steps from a zero state, with one product for the recurrent weight's gradient.

    Time is the first axis inside, so that every step works on contiguous (S, B, ·) blocks, and what
    does not depend on the order of the steps is computed for all of them at once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = x.permute(2, 0, 1, 3).contiguous()
        length, *seeds_and_batch, wide = x.shape
        width = wide // 3
        hidden = x.new_zeros(length + 1, *seeds_and_batch, width)
        n = torch.empty_like(hidden[1:])
        rz, recurrent = x.new_empty(*n.shape[:-1], 2 * width), torch.empty_like(x)
        states = hidden.unbind()
        # Split and unbound once: at these sizes a view costs as much as the arithmetic on it.
        x_t, g_t = (list(zip(*(v.unbind() for v in _parts(rows)), strict=True)) for rows in (x, recurrent))
        outs = list(map(Gates, states[1:], rz.unbind(), n.unbind()))
        for t, rows in enumerate(recurrent.unbind()):
            torch.baddbmm(bias, states[t], weight, out=rows)
            _gates(x_t[t], g_t[t], states[t], outs[t])
        ctx.save_for_backward(hidden, recurrent, rz, n, weight)
        return hidden[1:].permute(1, 2, 0, 3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, recurrent, rz, n, weight = ctx.saved_tensors
        slopes = _slopes(Gates(hidden[1:], rz, n), recurrent, hidden[:-1])
        grads = grad.permute(2, 0, 1, 3).unbind()
        at_g, at_n = torch.empty_like(recurrent), torch.empty_like(n)
        weight_t = weight.transpose(1, 2).contiguous()
        total = grads[-1]
        unbound = zip(*(v.unbind() for v in (at_g, *at_g.chunk(3, -1), at_n, *slopes)), strict=True)
        for t, step in reversed(list(enumerate(unbound))):
            g, g_r, g_z, g_n, out_n, z, at_z, slope_n, at_r, r = step
            torch.mul(total, slope_n, out=out_n)
            torch.mul(out_n, at_r, out=g_r)
            torch.mul(total, at_z, out=g_z)
            torch.mul(out_n, r, out=g_n)
            if t:
                total = torch.baddbmm(torch.addcmul(grads[t - 1], total, z), g, weight_t)
        at_x = at_g.clone()
        at_x[..., 2 * n.shape[-1] :] = at_n
        flat_g, flat_h = (v.transpose(0, 1).flatten(1, 2).contiguous() for v in (at_g, hidden[:-1]))
        at_weight = torch.bmm(flat_h.transpose(1, 2), flat_g)
        return at_x.permute(1, 2, 0, 3), at_weight, flat_g.sum(1, keepdim=True)
