"""Correlations of values that come in clusters, such as the thoughts of one sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.special import stdtr, stdtrit
from torch import Tensor

from toyqs.evidence.judging.gain import interval
from toyqs.evidence.judging.significance import p_value

TINY = 1e-24  # least product of two variances that has a correlation, relative to the squares


class Correlation(NamedTuple):
    """Pearson's r with its 95 % interval, and p, two-sided, that there is none; NaN where it is undefined."""

    r: float
    lower: float
    upper: float
    p: float
    units: int  # over which p and interval are: clusters, or seeds
    pairs: int  # of values


def clustered(x: Tensor, y: Tensor, clusters: Tensor) -> Correlation:
    """Compute the correlation of two values whose pairs are independent between clusters alone.

        z = artanh r;  s² = (C − 1) / C · Σ_c (z_−c − z̄)²,  z_−c without cluster c;  t = z / s, C − 1 degrees

    The jackknife over clusters: copies of a pair in its cluster change nothing. With clusters of one pair it
    is, for many pairs, the usual test. Exact for none: it is an approximation that gets better with C.

    Args:
        x: (n,).
        y: (n,).
        clusters: (n,) long, alike for pairs of one cluster.

    Source: Efron 1982, "The jackknife, the bootstrap and other resampling plans".
    """
    number = clusters.unique(return_inverse=True)[1]
    count, pairs = int(number.max()) + 1 if len(number) else 0, len(number)
    undefined = Correlation(math.nan, math.nan, math.nan, math.nan, count, pairs)
    if count < 3:
        return undefined
    x, y = (v.double() - v.double().mean() for v in (x, y))
    terms = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], -1)
    sums = terms.new_zeros(count, 6).index_add(0, number, terms)
    total = sums.sum(0)
    r, without = float(_of_sums(total)), _of_sums(total - sums)
    if not (abs(r) < 1 and bool(without.abs().lt(1).all())):
        return undefined._replace(r=r)
    z = without.atanh()
    error = math.sqrt(float((count - 1) / count * (z - z.mean()).square().sum()))
    middle, half = math.atanh(r), float(stdtrit(count - 1, 0.975)) * error
    p = 2 * float(stdtr(count - 1, -abs(middle) / error)) if error else math.nan
    return Correlation(r, math.tanh(middle - half), math.tanh(middle + half), p, count, pairs)


def _of_sums(sums: Tensor) -> Tensor:
    """Compute r (…) from the sums (…, 6) of 1, x, y, x², y², xy; NaN where x or y does not vary."""
    n, x, y, xx, yy, xy = sums.unbind(-1)
    product = (xx - x * x / n) * (yy - y * y / n)
    return torch.where(product > TINY * xx * yy, (xy - x * y / n) / product.clamp(min=0).sqrt(), math.nan)


def over_seeds(each: Sequence[Correlation]) -> Correlation:
    """Return the mean correlation of several seeds, by Fisher's z, with a t-interval and a t-test over them.

    Args:
        each: one per seed; of a single one it is returned as it is.
    """
    if len(each) == 1:
        return each[0]
    pairs = sum(x.pairs for x in each)
    if not all(abs(x.r) < 1 for x in each):
        return Correlation(math.nan, math.nan, math.nan, math.nan, len(each), pairs)
    z = [math.atanh(x.r) for x in each]
    mean = interval(z)
    r, lower, upper = (math.tanh(value) for value in (mean.mean, mean.lower, mean.upper))
    return Correlation(r, lower, upper, p_value(z), len(each), pairs)


def among(values: Tensor) -> Tensor:
    """Return values (n, K) less the mean of their row: what differs among the thoughts of one position."""
    return values - values.mean(-1, keepdim=True)
