"""Whether a gain is chance: the paired t-test's p-value, and Holm's correction for several tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import stdtr

LEVEL = 0.05


def p_value(values: Iterable[float]) -> float:
    """Compute the two-sided p-value of Student's t-test that the mean over seeds is 0.

        t = x̄ / (s / √n),  p = 2 · P(T ≤ −|t|),  T of Student's distribution with n − 1 degrees of freedom

    Equal values have no spread: p is then 0, and 1 where they are all 0.

    Args:
        values: one per seed, such as gains paired by seed.

    Returns:
        NaN for fewer than two values, or where one is not finite.
    """
    numbers = np.asarray(list(values), dtype=float)
    count = len(numbers)
    if count < 2 or not np.isfinite(numbers).all():
        return math.nan
    # measured from the first value, so that equal values have a spread of exactly 0
    error = float((numbers - numbers[0]).std(ddof=1)) / math.sqrt(count)
    mean = float(numbers.mean())
    if error == 0:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(count - 1, -abs(mean) / error))


def holm_bar(p_values: Sequence[float], level: float = LEVEL) -> float:
    """Return the bar of Holm's step-down test: the p-values at or below it are those that Holm rejects.

    With m p-values in ascending order, the smallest is held against level / m, the next against
    level / (m − 1) and so on, until one is greater. Where k were not, the bar is level / (m − k), the one
    that stopped it; where all m pass, it is `level`. The probability that any true hypothesis of the m
    is rejected is at most `level`, however the tests depend on each other.

    Args:
        p_values: none is NaN; of a single one the bar is `level`.
        level: the greatest probability of a false rejection.
    """
    for passed, p in enumerate(sorted(p_values)):
        bar = level / (len(p_values) - passed)
        if p > bar:
            return bar
    return level
