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
plain     native        59016   0.4006   0.4219   0.6203   0.9584    1.559
plain     native      1295136     0.41   0.5218   0.7735     1.27     2.25
plain     native     33005568    1.026     1.79    3.138    6.141    13.17
plain     torch         59016    1.063    1.154    1.347    1.882    2.838
plain     torch       1295136    1.268    1.423    1.919    2.886    5.027
plain     torch      33005568    2.242    4.029    8.334    18.14    33.06
thinking  native      6729984    4.552    5.208    6.167    10.06    16.81
thinking  native     30145824    6.479    9.821    13.54    23.19    39.08
thinking  native    465576576     17.9    29.62    56.56    100.4    189.4
thinking  torch       6729984    9.226    9.951    11.25    17.97    27.84
thinking  torch      30145824    9.948    14.37    19.46    34.57     61.2
thinking  torch     465576576    26.06    41.58     88.3    152.6      325
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
