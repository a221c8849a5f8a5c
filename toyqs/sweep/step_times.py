"""What a training step takes: a measured table, by kind, kernels, FLOPs and seeds side by side."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from functools import cache

# CPU milliseconds of a step of 1, 2, 4 ... seeds together, beside the FLOPs of one; on one core.
# `python bench/speed.py stacks --table toyqs/sweep/step_times.py` measures them, and writes them here.
MEASURED = """
kind      kernels       FLOPs        1        2        4        8       16
plain     native        59016   0.1477    0.239   0.4205   0.7649    1.546
plain     native      1295136   0.1973    0.314    0.561      1.1    2.232
plain     native     33005568   0.7835    1.493     2.97     5.79    11.86
plain     torch         59016    1.022    1.172    1.374    1.818    2.806
plain     torch       1295136    1.148    1.351    1.742    2.543    5.174
plain     torch      33005568    2.208     4.22    9.708     19.6    35.64
thinking  native      6729984    2.904    3.763    5.032    7.772    13.77
thinking  native     30145824    5.203    6.987    10.04    17.74    31.93
thinking  native    465576576     13.8    24.45    48.45    85.61    169.8
thinking  torch       6729984    8.452    10.14    12.01    16.14     25.6
thinking  torch      30145824    8.943    11.67    16.65     28.9    56.47
thinking  torch     465576576    21.61    37.35    77.08    150.3    309.4
"""
AS_GOOD = 1.1  # of the least time for each seed: good enough for a stack to have no more of them

Row = tuple[float, tuple[float, ...]]  # FLOPs of a seed's step, seconds of a step by the number of seeds


def rows(text: str) -> tuple[list[int], dict[tuple[str, str], list[Row]]]:
    """Read a table.

    Returns:
        The numbers of seeds, rising; and (kind, kernels) -> its rows, by rising FLOPs.
    """
    head, *lines = (line.split() for line in text.split("\n") if line)
    found: dict[tuple[str, str], list[Row]] = {}
    for kind, kernels, flops, *times in lines:
        found.setdefault((kind, kernels), []).append((float(flops), tuple(float(x) / 1e3 for x in times)))
    return [int(word) for word in head[3:]], {key: sorted(each) for key, each in found.items()}


SEEDS, ROWS = rows(MEASURED)


@cache
def step_seconds(thinks: bool, kernels: str, flops: float, seeds: int) -> float:
    """Estimate the seconds of a training step, by straight lines between what was measured.

    Args:
        thinks: whether there is a reasoner.
        kernels: native, or any other for torch's.
        flops: of a seed's step.
        seeds: side by side.
    """
    measured = ROWS["thinking" if thinks else "plain", "native" if kernels == "native" else "torch"]
    points = [(size, _between(list(zip(SEEDS, times, strict=True)), seeds)) for size, times in measured]
    (least, fastest), (most, slowest) = points[0], points[-1]
    if not least < flops < most:
        return fastest if flops <= least else slowest * flops / most
    logs = [(math.log(size), math.log(time)) for size, time in points]
    return math.exp(_between(logs, math.log(flops)))


def _between(points: Sequence[tuple[float, float]], x: float) -> float:
    """Return the value at x of straight lines through points, the last of which goes on."""
    place = min(max(1, bisect([at for at, _ in points], x)), len(points) - 1)
    (a, low), (b, high) = points[place - 1 : place + 1]
    return low + (high - low) * (x - a) / (b - a)


def most_seeds(thinks: bool, kernels: str, flops: float) -> int:
    """Return the number of seeds side by side beyond which there is nothing to gain on one core."""
    each = {n: step_seconds(thinks, kernels, flops, n) / n for n in SEEDS}
    return next(n for n in SEEDS if each[n] <= AS_GOOD * min(each.values()))
