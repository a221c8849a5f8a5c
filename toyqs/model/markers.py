"""Markers: the two inputs that say where a thought starts and ends, and how fast they learn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toyqs.model.layers import SeedStacked, normal


class Markers(SeedStacked):
    """Embeddings (S, 2, D) of the start and the end of a thought; they are never outputs.

    These two rows are part of every thought, but the optimiser treats them as two symbols among many. Three
    ways to let them learn s times as fast as the rest:

        reparameterise    e = s θ: a step of the optimiser moves θ, and e by s times as much
        lr_multiplier     e = θ, and the optimiser's step is multiplied by s (optimizers/optimizer.py)
        grad_scale        e = θ, and the gradient is multiplied by s

    The first two are the same under Adam without clipping. The third has no effect there, for Adam divides a
    constant scale out again; with clipping it only leaves less of the norm to the rest, as does the first.

    Start and end may also be one and the same marker, as where a single new token is written on both sides of
    a thought. Then only the symbols before it tell which of the two it is.

    Source: Zelikman et al. 2024, "Quiet-STaR" (start and end tokens; grad_scale).
    """

    def __init__(
        self,
        num_seeds: int,
        width: int,
        mode: str = "none",
        scale: float = 1.0,
        std: float = 0.1,
        *,
        one: bool = False,
    ) -> None:
        """Declare the rows; they start alike in every mode, from N(0, std²).

        Args:
            num_seeds: S.
            width: D.
            mode: of learning: none, reparameterise, lr_multiplier, grad_scale.
            scale: s.
            std: of the rows at first.
            one: start and end are one learned row.
        """
        super().__init__()
        self.scale = scale if mode == "reparameterise" else 1.0
        self.grad_scale = scale if mode == "grad_scale" else 1.0
        self.weight = self.declare("weight", (num_seeds, 1 if one else 2, width), normal(std / self.scale))

    def rows(self) -> Tensor:
        """Return the embeddings, (S, 2, D)."""
        weight = self.weight if self.weight.shape[1] == 2 else self.weight.expand(-1, 2, -1)
        if self.grad_scale != 1.0:
            return _ScaledGradient.apply(weight, self.grad_scale)
        return weight if self.scale == 1.0 else weight * self.scale

    @torch.no_grad()
    def start_at(self, row: Tensor) -> None:
        """Initialise both with an embedding (S, D)."""
        self.weight.copy_(row.unsqueeze(1) / self.scale)


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None
