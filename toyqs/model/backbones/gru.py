"""The GRU backbone: nn.GRU's equations, stacked over seeds, branchable at every position.

    r = σ(x_r + W_r h + b_r)      z = σ(x_z + W_z h + b_z)
    n = tanh(x_n + r ⊙ (W_n h + b_n))      h' = n + z ⊙ (h − n)

with x = e W_ih + b_ih, which `project_input` computes once for a whole table of symbols. The branch point is
the hidden vector.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from toyqs.model.backbones.backbone import Backbone
from toyqs.model.backbones.gru_scan import Sequence
from toyqs.model.layers import Linear, SeedStacked, affine, logistic_, uniform


class GRU(SeedStacked, Backbone):
    """One GRU layer; hidden width = embedding width = D, input width I = 3 D."""

    def __init__(self, num_seeds: int, width: int) -> None:
        super().__init__()
        self.width = width
        rule = uniform(1.0 / math.sqrt(width))
        self.weight_ih = self.declare("weight_ih", (num_seeds, width, 3 * width), rule)
        self.weight_hh = self.declare("weight_hh", (num_seeds, width, 3 * width), rule)
        self.bias_ih = self.declare("bias_ih", (num_seeds, 1, 3 * width), rule)
        self.bias_hh = self.declare("bias_hh", (num_seeds, 1, 3 * width), rule)

    def project_input(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (S, n, D) to x (S, n, 3 D)."""
        return affine(embeddings, self.weight_ih, self.bias_ih)

    def read(self, x: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Read x (S, B, T, 3 D); return outputs (S, B, T, D) and the branch points (S, B, T, 1, D)."""
        outputs = Sequence.apply(x, self.weight_hh, self.bias_hh)
        return outputs, outputs.unsqueeze(3)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Step hidden vectors (S, B, T, K, D) with x (S, B, T, K, 3 D); return the new ones, twice."""
        hidden = _Branch.apply(x, affine(state, self.weight_hh, self.bias_hh), state)
        return hidden, hidden

    def handover(self, num_seeds: int, width: int) -> Linear:
        """Return a map of hidden vectors (S, B, T, K, D)."""
        return Linear(num_seeds, self.width, width)

    def gather(self, state: Tensor, index: Tensor) -> Tensor:
        """Gather hidden vectors (S, B, T, K, D) to (S, B, T', K, D)."""
        index = index.view(*index.shape, 1, 1).expand(*index.shape, *state.shape[3:])
        return state.gather(2, index)

    def keep_ended(self, new: Tensor, old: Tensor, live: Tensor) -> Tensor:
        """Return the new hidden vectors of live branches, the old ones of others, (S, B, T, K, D)."""
        return torch.where(live.unsqueeze(-1), new, old)


def _parts(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Split (..., 3 D) into the rows of both gates (..., 2 D) and of the candidate (..., D)."""
    gates, candidate = rows.split((2 * rows.shape[-1] // 3, rows.shape[-1] // 3), -1)
    return gates, candidate


class _Branch(torch.autograd.Function):
    """One step of branches from input rows x, recurrent rows g and states h, which broadcast.

    The rows are many and narrow, so memory traffic is the cost, not arithmetic: the gradients at x and
    at g differ in the candidate's columns alone, and share one buffer until then.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, h: Tensor) -> Tensor:
        (x_rz, x_n), (g_rz, g_n) = _parts(x), _parts(g)
        rz = logistic_(x_rz + g_rz)
        r, z = rz.chunk(2, -1)
        n = torch.addcmul(x_n, r, g_n).tanh_()
        new = torch.lerp(n, h, z)
        ctx.save_for_backward(new, rz, n, g_n.clone(), h)  # a view would keep the whole of g
        ctx.g_shape = g.shape
        ctx.x_shape = x.shape
        return new

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        new, rz, n, g_n, h = ctx.saved_tensors
        r, z = rz.chunk(2, -1)
        rows = grad.new_empty(*grad.shape[:-1], 3 * n.shape[-1])
        at_r, at_z, at_n = rows.chunk(3, -1)
        at_h = grad * z
        at_candidate = grad - at_h
        torch.mul(at_candidate, new - n, out=at_z)  # new − n = z ⊙ (h − n)
        torch.addcmul(at_candidate, at_candidate * n, n, value=-1, out=at_n)
        through = at_n * r
        at_reset = through * g_n
        torch.addcmul(at_reset, at_reset, r, value=-1, out=at_r)
        at_x = rows.clone() if ctx.x_shape == rows.shape else rows.sum_to_size(ctx.x_shape)
        _parts(rows)[1].copy_(through)
        return at_x, rows.sum_to_size(ctx.g_shape), at_h.sum_to_size(h.shape)
