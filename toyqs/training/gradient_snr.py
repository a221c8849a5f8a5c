"""How clear the policy's gradient is: what two halves of a batch agree on, against what they differ by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import Tensor

from toyqs.training.optimizer import Optimiser

MEASURES = 10  # in a training
FEWEST_STEPS = 30  # from one measure to the next: each takes about as long as one and a half steps

TINY = 1e-30  # of a noise

Half = TypeVar("Half")


def measured_at(steps: int) -> set[int]:
    """The steps, from 1, after which the signal is measured: ten in a training, fewer in a short one.

    Args:
        steps: of the training; below 30 it is never measured.
    """
    every = max(FEWEST_STEPS, math.ceil(steps / MEASURES))
    return set(range(every, steps + 1, every))


def policy_snr(optimiser: Optimiser, halves: Iterable[Half], accumulate: Callable[[Half], object]) -> Tensor:
    """The signal-to-noise ratio of the gradient that a whole batch gives, estimated from its halves'.

        |E g|² / E |g − E g|²,    with |E g|² = E g₁ · g₂ and E |g − E g|² = E |g₁ − g₂|² / 4

    for g = (g₁ + g₂) / 2. Below 0 where noise drowns the signal; 0 where there is neither.

    Args:
        optimiser: its gradients are overwritten.
        halves: two parts of a batch, of equally many sequences.
        accumulate: adds the gradient of one of them to the optimiser's.

    Returns:
        (S,).
    """
    found = []
    for half in halves:
        optimiser.zero()
        accumulate(half)
        found.append(optimiser.grads.clone())
    one, two = found
    noise = optimiser.sums((one - two).square()) / 4
    return optimiser.sums(one * two) / noise.clamp(min=TINY)
