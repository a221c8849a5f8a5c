"""Grokfast's filter: what a gradient has had in common with earlier ones is made larger."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Grokfast(NamedTuple):
    """A filter between the gradients and the optimiser.

        μ ← α μ + (1 − α) g        g' = g + λ μ        the optimiser's step is along g'

    μ, the slow gradient, is 0 before the first step. (The authors' code begins with the first gradient in
    place of 0; the difference fades as α^t.) The gradients are clipped first, each seed's by itself: then one
    bad batch cannot fill μ, which forgets in 1 / (1 − α) steps, and g' is no longer than (1 + λ) max_norm.

    Source: Lee et al. 2024, "Grokfast: Accelerated grokking by amplifying slow gradients" (2405.20233), EMA.
    """

    weight: float  # λ
    decay: float = 0.98  # α

    def slow(self, before: Tensor, grads: Tensor) -> Tensor:
        """Return μ after a step, from μ before it and the gradients, all of one shape."""
        return before * self.decay + grads * (1.0 - self.decay)

    def amplify_(self, grads: Tensor, slow: Tensor) -> None:
        """Replace the gradients g by g'."""
        grads.add_(slow * self.weight)
