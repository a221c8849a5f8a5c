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
plain     native        59016    0.128   0.2255   0.3571   0.6417    1.352
plain     native      1295136   0.1756    0.292   0.5355   0.9711    1.899
plain     native     33005568   0.7413    1.417    2.751    5.513    10.93
plain     torch         59016   0.9905    1.105     1.28    1.658    2.422
plain     torch       1295136    1.105    1.319    1.668    2.439    3.895
plain     torch      33005568    1.969     3.06    6.665    16.44    29.08
thinking  native      6729984      2.4    3.042    4.223    6.648    11.34
thinking  native     30145824    3.892    5.375    8.263    14.22    26.75
thinking  native    465576576    11.12    19.39    37.15    72.34    141.8
thinking  torch       6729984     6.77    7.763    9.796    14.05    21.89
thinking  torch      30145824    7.088    9.191    14.25    25.74    45.55
thinking  torch     465576576     18.6    32.22    61.41    125.1    252.7
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
