"""Mixers: how the base state and a thought's reading become the LM head's prediction.

Every mixer maps base (S, B, T, D) or None and readings (S, B, T, K, E) or None to the features that
the head adds up, and how open it was to each thought (S, B, T, K), where that is a number. It knows
the features' widths. Without a reading it gives the features of the prediction with no thought, if
`speaks_alone`. Where a position predicts N tokens, base is (S, B, T, N, D), readings are (S, B, T, K, N, E)
or have one for all tokens, and what comes out has the axis N too.

The floor is what the openness of Gate, Hidden and Logits is kept above, a number that the training loop
lowers to 0: a thought that is hardly heard at first would never learn to say anything.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from toyqs.model.layers import FeatureHead, Linear, LMHead, SeedStacked, normal
from toyqs.numerics import row_sums

Mixed = tuple[list[Tensor], Tensor | None]


class Mixer(SeedStacked):
    """What all mixers share."""

    widths: list[int]
    predicts_without_thought: bool = True

    @abstractmethod
    def forward(self, base: Tensor, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features of the head, and the openness."""

    def predict(
        self, head: LMHead, base: Tensor | None, reading: Tensor | None, floor: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (S, B, T, K, V), and the openness."""
        features, opening = self(base, reading, floor)
        return head(features), opening


class BaseOnly(Mixer):
    """No thoughts: the base state alone."""

    def __init__(self, base_width: int) -> None:
        super().__init__()
        self.widths = [base_width]

    def forward(self, base: Tensor, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features (S, B, T, 1, D)."""
        return [base.unsqueeze(3)], None


class Concat(Mixer):
    """Base state and reading side by side; no thought: the reading's part is zero."""

    def __init__(self, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width, reading_width]

    def forward(self, base: Tensor, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features (S, B, T, 1, D) and (S, B, T, K, E)."""
        features = [base.unsqueeze(3)]
        return (features if reading is None else [*features, reading]), None


class Add(Mixer):
    """base + P reading, P a learned projection to the base width."""

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width]
        self.projection = Linear(num_seeds, reading_width, base_width)

    def forward(self, base: Tensor, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features (S, B, T, K, D)."""
        base = base.unsqueeze(3)
        return [base if reading is None else base + self.projection(reading)], None


class Residual(Mixer):
    """base + c ⊙ P reading, c learned for each dimension, nearly 0 at first: thoughts earn their say.

    Its openness is the mean |c|, the same for all thoughts.
    """

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width]
        self.projection = Linear(num_seeds, reading_width, base_width)
        # Not 0 itself, at which the reading would have no gradient in the first step.
        self.scale = self.declare("scale", (num_seeds, base_width), normal(0.05))

    def forward(self, base: Tensor, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features (S, B, T, K, D)."""
        base = base.unsqueeze(3)
        if reading is None:
            return [base], None
        scale = self.scale.view(len(self.scale), *(1 for _ in reading.shape[1:-1]), -1)
        mixed = base + scale * self.projection(reading)
        return [mixed], scale.detach().abs().mean(-1).expand(mixed.shape[:-1])


class Gate(Mixer):
    """(1 − g) base + g P reading, g = σ(a · [base, reading] + b) one number per thought."""

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width]
        self.projection = Linear(num_seeds, reading_width, base_width)
        self.opening = Linear(num_seeds, base_width + reading_width, 1)

    def forward(self, base: Tensor, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features (S, B, T, K, D); no thought: g = 0."""
        base = base.unsqueeze(3)
        if reading is None:
            return [base], None
        base, reading = _side_by_side(base, reading)
        opening = _openness(self.opening(torch.cat([base, reading], -1)), floor)
        return [torch.lerp(base, self.projection(reading), opening)], opening.squeeze(-1)


class Hidden(Mixer):
    """(1 − w) base + w P reading, w = σ(MLP(base, reading)) one number per thought."""

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width]
        self.projection = Linear(num_seeds, reading_width, base_width)
        self.opening = Weigher(num_seeds, base_width, reading_width)

    def forward(self, base: Tensor, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features (S, B, T, K, D); no thought: w = 0."""
        base = base.unsqueeze(3)
        if reading is None:
            return [base], None
        opening = _openness(self.opening(base, reading), floor)
        return [_between(base, self.projection(reading), opening)], opening.squeeze(-1)


class Logits(Mixer):
    """(1 − w) logits of the base state + w logits of the reading, w = σ(MLP(base, reading)).

    One head for both, with rows of its first layer for each, as in Concat.

    Source: Zelikman et al. 2024, "Quiet-STaR" (mixing head).
    """

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        self.widths = [base_width, reading_width]
        self.opening = Weigher(num_seeds, base_width, reading_width)

    def forward(self, base: Tensor, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features (S, B, T, 1, D) and (S, B, T, K, E), to be predicted from apart; no thought: w = 0."""
        base = base.unsqueeze(3)
        if reading is None:
            return [base], None
        return [base, reading], _openness(self.opening(base, reading), floor).squeeze(-1)

    def predict(
        self, head: LMHead, base: Tensor | None, reading: Tensor | None, floor: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (S, B, T, K, V), and the openness."""
        features, opening = self(base, reading, floor)
        alone = head(features[:1])
        if opening is None:
            return alone, None
        return _between(alone, head([None, features[1]]), opening.unsqueeze(-1)), opening


class ThoughtOnly(Mixer):
    """The reading alone; no thought: the base state, where it may be seen and is as wide."""

    def __init__(self, base_width: int | None, reading_width: int) -> None:
        super().__init__()
        self.widths = [reading_width]
        self.predicts_without_thought = base_width == reading_width

    def forward(self, base: Tensor | None, reading: Tensor | None, floor: float = 0.0) -> Mixed:
        """Features (S, B, T, K, E)."""
        if reading is not None:
            return [reading], None
        if base is None or not self.predicts_without_thought:
            raise ValueError("ThoughtOnly: there is no prediction without a thought here")
        return [base.unsqueeze(3)], None


class Sum(ThoughtOnly):
    """Logits of the base state + logits of the reading, both of one head; no thought: the base state's.

    With a linear head that is Concat with the same rows for both features (and the bias twice); with an MLP
    none of the others is it. Logits weighs the same two to a mean.

    Source: Zelikman et al. 2024, "Quiet-STaR" (residual logits of its code).
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def predict(
        self, head: LMHead, base: Tensor | None, reading: Tensor | None, floor: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (S, B, T, K, V), and no openness."""
        alone, opening = super().predict(head, base, None, floor)
        return alone if reading is None else alone + head([reading]), opening


class Weigher(nn.Module):
    """Three layers with ReLU between them, as wide as the base state: [base, reading] -> one number."""

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__()
        # A Head multiplies the base state once for all thoughts of a position.
        self.first = FeatureHead(num_seeds, (base_width, reading_width), base_width)
        self.rest = nn.Sequential(
            nn.ReLU(), Linear(num_seeds, base_width, base_width), nn.ReLU(), Linear(num_seeds, base_width, 1)
        )

    def forward(self, base: Tensor, reading: Tensor) -> Tensor:
        """Base (S, B, T, 1, D) and readings (S, B, T, K, E) -> (S, B, T, K, 1)."""
        return self.rest(self.first([base, reading]))


def _side_by_side(base: Tensor, reading: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same axes but for their widths, none of them copied."""
    shape = torch.broadcast_shapes(base.shape[:-1], reading.shape[:-1])
    return base.expand(*shape, -1), reading.expand(*shape, -1)


class _Spread(torch.autograd.Function):
    """x (..., 1) -> (..., n). Its gradient is a sum of rows that rounds alike wherever a row stands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int) -> Tensor:
        return x.expand(*x.shape[:-1], width)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return row_sums(grad).unsqueeze(-1), None


def _between(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """(1 − share) a + share b, the share one number for each row."""
    return a + _Spread.apply(share, b.shape[-1]) * (b - a)


def _openness(x: Tensor, floor: float) -> Tensor:
    """σ(x), squeezed into floor … 1, so that the gradient never dies at the floor."""
    opening = 0.5 + 0.5 * torch.tanh(0.5 * x)  # σ; see layers.logistic_
    return floor + (1.0 - floor) * opening if floor else opening
