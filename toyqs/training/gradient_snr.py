"""The signal-to-noise ratio of the policy's gradient, estimated from the two halves of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import Tensor

from toyqs.training.optimizers.optimizer import Optimiser

MEASURES = 10  # in a training
FEWEST_STEPS = 30  # from one measure to the next: each takes about as long as one and a half steps

TINY = 1e-30  # least noise that divides

Half = TypeVar("Half")


def measured_at(steps: int) -> set[int]:
    """Return the steps, from 1, after which the ratio is measured: ten in a training, fewer in a short one.

    Args:
        steps: of the training; below 30 it is never measured.
    """
    every = max(FEWEST_STEPS, math.ceil(steps / MEASURES))
    return set(range(every, steps + 1, every))


def policy_snr(optimiser: Optimiser, halves: Iterable[Half], accumulate: Callable[[Half], object]) -> Tensor:
    """Estimate the signal-to-noise ratio of a whole batch's gradient from its halves'.

        |E g|² / E |g − E g|²,    with |E g|² = E g₁ · g₂ and E |g − E g|² = E |g₁ − g₂|² / 4

    for g = (g₁ + g₂) / 2. Without bias, so it may fall below 0 where noise drowns the signal; 0 without both.

    Args:
        optimiser: its gradients are overwritten.
        halves: two halves of a batch, of equally many sequences.
        accumulate: adds the gradient of one of them to the optimiser's.

    Returns:
        (S,).
    """
    gradients = []
    for half in halves:
        optimiser.zero()
        accumulate(half)
        gradients.append(optimiser.grads.clone())
    one, two = gradients
    noise = optimiser.sums((one - two).square()) / 4
    return optimiser.sums(one * two) / noise.clamp(min=TINY)
