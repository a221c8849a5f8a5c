"""Logits of thought symbols that are bounded."""

from __future__ import annotations

import math

from torch import Tensor

from toyqs.model.layers import SeedStacked, affine, uniform
from toyqs.numerics import row_sums


class CosineLinear(SeedStacked):
    """A map to bounded logits, (S, ..., D) -> (S, ..., E).

        logit_e = scale · w_e · x / (|w_e| |x|)

    Source: Wang et al. 2017, "NormFace", there of a classifier's last layer.
    """

    def __init__(self, num_seeds: int, width: int, out: int, *, scale: float) -> None:
        """Declare the weights; scale is the largest logit."""
        super().__init__()
        self.scale = scale
        self.weight = self.declare("weight", (num_seeds, width, out), uniform(1.0 / math.sqrt(width)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (S, ..., D) to (S, ..., E)."""
        return affine(self.scale * _unit(x), _unit(self.weight.mT).mT)


def _unit(x: Tensor) -> Tensor:
    """Divide rows (..., D) by their length."""
    return x / (row_sums(x.square()) + 1e-12).sqrt().unsqueeze(-1)
