"""Mixers: how the base state and a thought's reading become the LM head's features.

Every mixer maps base (S, B, T, D) or None and readings (S, B, T, K, E) or None to the features that
the head adds up, and how open it was to each thought (S, B, T, K), where that is a number. It knows
the features' widths. Without a reading it gives the features of the prediction with no thought, if
`speaks_alone`. Where a position predicts N tokens, base is (S, B, T, N, D), readings are (S, B, T, K, N, E)
or have one for all tokens, and what comes out has the axis N too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toyqs.model.layers import Linear

Mixed = tuple[list[Tensor], Tensor | None]


def broadcast(base: Tensor, reading: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same axes but for their widths, none of them copied."""
    shape = torch.broadcast_shapes(base.shape[:-1], reading.shape[:-1])
    return base.expand(*shape, -1), reading.expand(*shape, -1)


class BaseOnly(nn.Module):
    """No thoughts: the base state alone."""

    speaks_alone = True

    def __init__(self, base_width: int) -> None:
        super().__init__()
        self.widths = [base_width]

    def forward(self, base: Tensor, reading: Tensor | None) -> Mixed:
        """Features (S, B, T, 1, D)."""
        return [base.unsqueeze(3)], None


class Concat(nn.Module):
    """Base state and reading side by side; no thought: the reading's part is zero."""

    speaks_alone = True

    def __init__(self, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width, reading_width]

    def forward(self, base: Tensor, reading: Tensor | None) -> Mixed:
        """Features (S, B, T, 1, D) and (S, B, T, K, E)."""
        features = [base.unsqueeze(3)]
        return (features if reading is None else [*features, reading]), None


class Add(nn.Module):
    """base + P reading, P a learned projection to the base width."""

    speaks_alone = True

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width]
        self.projection = Linear(num_seeds, reading_width, base_width)

    def forward(self, base: Tensor, reading: Tensor | None) -> Mixed:
        """Features (S, B, T, K, D)."""
        base = base.unsqueeze(3)
        return [base if reading is None else base + self.projection(reading)], None


class Gate(nn.Module):
    """(1 − g) base + g P reading, g = σ(a · [base, reading] + b) one number per thought."""

    speaks_alone = True

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width]
        self.projection = Linear(num_seeds, reading_width, base_width)
        self.opening = Linear(num_seeds, base_width + reading_width, 1)

    def forward(self, base: Tensor, reading: Tensor | None) -> Mixed:
        """Features (S, B, T, K, D); no thought: g = 0."""
        base = base.unsqueeze(3)
        if reading is None:
            return [base], None
        base, reading = broadcast(base, reading)
        both = torch.cat([base, reading], -1)
        opening = 0.5 + 0.5 * torch.tanh(0.5 * self.opening(both))  # σ; see layers.logistic_
        return [torch.lerp(base, self.projection(reading), opening)], opening.squeeze(-1)


class ThoughtOnly(nn.Module):
    """The reading alone; no thought: the base state, where it may be seen and is as wide."""

    def __init__(self, base_width: int | None, reading_width: int) -> None:
        super().__init__()
        self.widths = [reading_width]
        self.speaks_alone = base_width == reading_width

    def forward(self, base: Tensor | None, reading: Tensor | None) -> Mixed:
        """Features (S, B, T, K, E)."""
        if reading is not None:
            return [reading], None
        if base is None or not self.speaks_alone:
            raise ValueError("ThoughtOnly: there is no prediction without a thought here")
        return [base.unsqueeze(3)], None
