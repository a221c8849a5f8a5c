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
plain     native        59016    0.345   0.4337   0.6281   0.9656    1.738
plain     native      1295136   0.3948   0.5268   0.7911    1.248    2.238
plain     native     33005568   0.9844    1.735    3.145    6.231    12.31
plain     torch         59016    1.042    1.162    1.399    1.773    2.715
plain     torch       1295136    1.192    1.421    1.808    2.789    5.353
plain     torch      33005568    2.116    3.667    9.309     18.9    30.09
thinking  native      6729984    3.549    4.421     5.53    8.611    15.75
thinking  native     30145824    5.571    7.921    11.75    18.37    32.63
thinking  native    465576576    14.72     25.7    48.62    96.41    182.3
thinking  torch       6729984    7.549    9.113     11.3    15.67    25.17
thinking  torch      30145824     9.32    13.01    17.31       28    53.14
thinking  torch     465576576    21.63    37.29    79.12    160.2    313.7
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
