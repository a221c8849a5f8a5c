"""The GRU backbone: nn.GRU's equations, stacked over seeds, branchable at every position.

    r = σ(x_r + W_r h + b_r)      z = σ(x_z + W_z h + b_z)
    n = tanh(x_n + r ⊙ (W_n h + b_n))      h' = n + z ⊙ (h − n)

with x = e W_ih + b_ih, which `project_input` computes once for a whole table of symbols. The branch point is
the hidden vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from toyqs.model.backbones.backbone import Backbone, Rows, gathered
from toyqs.model.backbones.gru_scan import Sequence
from toyqs.model.backbones.kernels.gru import BranchStep, LastState, Scan
from toyqs.model.layers import Linear, SeedStacked, affine, flat_ids, logistic_, uniform
from toyqs.types import Maps

SPARED = 2**13  # numbers whose native step takes as long as what torch does around it


class GRU(SeedStacked, Backbone):
    """One GRU layer; hidden width = embedding width = D, input width I = 3 D."""

    matrices: Mapping[str, Maps] = {"weight_ih": Maps(3), "weight_hh": Maps(3)}  # of each gate one

    def __init__(self, num_seeds: int, width: int, native: bool = False) -> None:
        """Declare the weights; with `native` the steps are those of kernels/."""
        super().__init__()
        self.width, self.native = width, native
        self.worth_a_step = SPARED if native else 0
        rule = uniform(1.0 / math.sqrt(width))
        self.weight_ih = self.declare("weight_ih", (num_seeds, width, 3 * width), rule)
        self.weight_hh = self.declare("weight_hh", (num_seeds, width, 3 * width), rule)
        self.bias_ih = self.declare("bias_ih", (num_seeds, 1, 3 * width), rule)
        self.bias_hh = self.declare("bias_hh", (num_seeds, 1, 3 * width), rule)

    def project_input(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (S, n, D) to x (S, n, 3 D)."""
        return affine(embeddings, self.weight_ih, self.bias_ih)

    def read(self, x: Tensor | Rows, first: int = 0) -> tuple[Tensor, Tensor]:
        """Read x (S, B, T, 3 D); return outputs (S, B, T, D) and the branch points (S, B, T, 1, D)."""
        if self.native:
            outputs = Scan.apply(*_rows(x), self.weight_hh, self.bias_hh)
        else:
            outputs = Sequence.apply(gathered(x), self.weight_hh, self.bias_hh)
        return outputs, outputs.unsqueeze(3)

    def step(self, x: Tensor | Rows, state: Tensor) -> tuple[Tensor, Tensor]:
        """Step hidden vectors (S, B, T, K, D) with x (S, B, T, K, 3 D); return the new ones, twice."""
        weights = self.weight_hh, self.bias_hh
        if self.native:
            hidden = BranchStep.apply(*_rows(x), state, *weights)
        else:
            hidden = _Branch.apply(*_rows(x), state, state, *weights)
        return hidden, hidden

    def follow(self, x: Rows, end: int, state: Tensor) -> tuple[Tensor, Tensor]:
        """Step hidden vectors (S, B, T, K, D) along several symbols and one more; see `Backbone.follow`."""
        if not self.native:
            return super().follow(x, end, state)
        ids = functional.pad(x.ids, (0, 1), value=end).flatten(1, 3)
        hidden = LastState.apply(x.table, ids, state.flatten(1, 3), self.weight_hh, self.bias_hh)
        hidden = hidden.view(*x.ids.shape[:4], -1)
        return hidden, hidden

    def step_by_each(self, rows: Tensor, first: int, count: int, state: Tensor) -> Tensor:
        """Step hidden vectors (S, 1, P, 1, D) by each row of a table; see `Backbone.step_by_each`."""
        if not self.native:
            return super().step_by_each(rows, first, count, state)
        ids = torch.arange(first, rows.shape[1]).expand(len(rows), 1, 1, -1)
        return self.step(Rows(rows, ids), state)[1].flatten(2, 3).unsqueeze(3)

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


def _rows(x: Tensor | Rows) -> tuple[Tensor, Tensor | None]:
    """Return input rows and None, or a table of such and the ids of the rows."""
    return (x, None) if isinstance(x, Tensor) else x


def _parts(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Split (..., 3 D) into the rows of both gates (..., 2 D) and of the candidate (..., D)."""
    gates, candidate = rows.split_with_sizes((2 * rows.shape[-1] // 3, rows.shape[-1] // 3), -1)
    return gates, candidate


class _Branch(torch.autograd.Function):
    """One step of branches from states h, with input rows x, or those of a table x with some ids.

    Rows and states broadcast. They are many and narrow, so memory traffic is the cost, not arithmetic: the
    gradients at input and recurrent rows differ in the candidate's columns alone, and share one buffer. The
    states are given twice, for the gate and for the recurrent rows, so that autograd adds their gradients in
    that order.

    Args:
        x: input rows; or, with ids, a table (S, n, 3 D) of such.
        ids: of each branch's row in the table; None: x has the rows.
        h: (S, B, T, K, D).
        same_h: h once more.
        weight: (S, D, 3 D).
        bias: (S, 1, 3 D).

    Returns:
        (S, B, T, K, D) the new states.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, ids: Tensor | None, h: Tensor, same_h: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        ctx.table_shape, index = x.shape, None
        if ids is not None:
            index = flat_ids(x, ids)
            x = x.flatten(0, 1).index_select(0, index).view(*ids.shape, -1)
        g = affine(same_h, weight, bias)
        (x_rz, x_n), (g_rz, g_n) = _parts(x), _parts(g)
        rz = logistic_(x_rz + g_rz)
        r, z = rz.chunk(2, -1)
        n = torch.addcmul(x_n, r, g_n).tanh_()
        new = torch.lerp(n, h, z)
        ctx.save_for_backward(new, rz, n, g_n.clone(), h, weight, index)  # a view would keep the whole of g
        ctx.x_shape = x.shape
        return new

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        new, rz, n, g_n, h, weight, index = ctx.saved_tensors
        r, z = rz.chunk(2, -1)
        rows = grad.new_empty(*grad.shape[:-1], 3 * n.shape[-1])
        at_r, at_z, at_n = rows.chunk(3, -1)
        at_h = grad * z
        at_candidate = grad - at_h
        torch.sub(new, n, out=at_z).mul_(at_candidate)  # new − n = z ⊙ (h − n)
        torch.addcmul(at_candidate, torch.mul(at_candidate, n, out=at_n), n, value=-1, out=at_n)
        del at_candidate
        torch.mul(at_n, r, out=at_r).mul_(g_n).addcmul_(at_r, r, value=-1)
        at_x = rows.sum_to_size(ctx.x_shape)
        if index is not None:
            table = grad.new_zeros(ctx.table_shape)
            table.flatten(0, 1).index_add_(0, index, at_x.flatten(0, -2))
            at_x = table
        elif ctx.x_shape == rows.shape:
            at_x = rows.clone()
        at_n.mul_(r)  # of the recurrent rows
        at_g = rows.sum_to_size(*h.shape[:-1], rows.shape[-1]).flatten(1, -2)
        from_rows = at_g.bmm(weight.mT).view(h.shape) if ctx.needs_input_grad[3] else None
        at_weight, at_bias = h.flatten(1, -2).mT.bmm(at_g), at_g.sum(1, keepdim=True)
        return at_x, None, at_h.sum_to_size(h.shape), from_rows, at_weight, at_bias
