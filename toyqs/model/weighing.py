"""One number per thought: how much it counts against the base state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toyqs.model.layers import FeatureHead, Linear, Output
from toyqs.numerics import row_sums
from toyqs.types import Maps


class Weigher(nn.Module):
    """Three layers with ReLU between them, as wide as the base state: [base, reading] -> one number."""

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        # FeatureHead multiplies the base state once for all thoughts of a position.
        self.first = FeatureHead(num_seeds, (base_width, reading_width), base_width)
        self.first.matrices = {"weight_0": Maps(), "weight_1": Maps()}
        self.rest = nn.Sequential(
            nn.ReLU(), Linear(num_seeds, base_width, base_width), nn.ReLU(), Output(num_seeds, base_width, 1)
        )

    def forward(self, base: Tensor, reading: Tensor) -> Tensor:
        """Map base (S, B, T, 1, D) and readings (S, B, T, K, E) to (S, B, T, K, 1)."""
        return self.rest(self.first([base, reading]))


class _ExpandLast(torch.autograd.Function):
    """x (..., 1) -> (..., n). Its gradient sums each row so that it rounds alike wherever the row is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int) -> Tensor:
        return x.expand(*x.shape[:-1], width)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return row_sums(grad).unsqueeze(-1), None


def expand_last(x: Tensor, width: int) -> Tensor:
    """Return one number for each row as a row of so many of it: (..., 1) -> (..., width)."""
    expanded: Tensor = _ExpandLast.apply(x, width)
    return expanded


def interpolate(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return (1 − weight) a + weight b, the weight one number for each row."""
    return a + expand_last(weight, b.shape[-1]) * (b - a)


def logistic_above(floor: float, x: Tensor) -> Tensor:
    """Return floor + (1 − floor) σ(x): the gradient never dies at the floor, as a clamp's would."""
    weight = 0.5 + 0.5 * torch.tanh(0.5 * x)  # σ(x); see layers.logistic_
    return floor + (1.0 - floor) * weight if floor else weight
