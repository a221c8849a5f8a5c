"""Independent random streams, one per seed and purpose.

Two runs with one seed draw the same training data and, for parameters of one name and shape, the same
initial weights, whatever else they draw: otherwise the differences between them would not be paired.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def stream(seed: int, purpose: str) -> torch.Generator:
    """Create a CPU generator that depends on the seed and the purpose alone.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for, such as "training data" or "weights/head.weight".
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def number_of_step(step: int, purpose: str) -> float:
    """Draw a number in [0, 1) that depends on a training step, from 0, and the purpose alone.

    It is the same for all seeds, so that a stack trains with one number per step.
    """
    return float(torch.rand((), generator=stream(step, purpose), dtype=torch.float64))


class ThoughtSizes(NamedTuple):
    """The number, length and width of a position's thoughts: how much noise they need."""

    number: int  # K, thoughts per position
    length: int  # L, symbols per thought
    width: int = 0  # W, uniform numbers per symbol; 0: one, without an axis
    hard_quantile: float | None = None  # given: only a sequence's positions above it think

    def thinking(self, available: int) -> int:
        """Return how many of a sequence's positions think, ⌈(1 − quantile) · available⌉."""
        if self.hard_quantile is None:
            return available
        return math.ceil(round((1.0 - self.hard_quantile) * available, 9))  # 0.3 · 10 is 3, not 4


def thought_noise(generators: Sequence[torch.Generator], think_at: Tensor, sizes: ThoughtSizes) -> Tensor:
    """Draw uniform numbers for the thoughts of a batch, in the order [L, position, K, W].

    Args:
        generators: one per seed.
        think_at: (S, B, T) bool, equally many positions in every sequence.
        sizes: K, L and W, and how many of the positions think.

    Returns:
        (S, B, thinking positions, K, L) or (S, B, thinking positions, K, L, W) float64 in [0, 1), on the
        CPU.
    """
    return noise_of_steps(generators, think_at, sizes, 1)[0]


def noise_of_steps(
    generators: Sequence[torch.Generator], think_at: Tensor, sizes: ThoughtSizes, steps: int
) -> Tensor:
    """Draw the `thought_noise` of several batches at once, the same numbers as one by one.

    Returns:
        That of each, with an axis for the steps before S.
    """
    positions = sizes.thinking(int(think_at[0, 0].sum()))
    shape: tuple[int, ...] = (steps, sizes.length, think_at.shape[1], positions, sizes.number)
    shape += (sizes.width,) if sizes.width else ()
    noise = [torch.rand(shape, generator=generator, dtype=torch.float64) for generator in generators]
    return torch.stack(noise, 1).movedim(2, 5)
