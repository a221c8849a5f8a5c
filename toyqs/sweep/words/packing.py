"""Pack a sweep's jobs: those that differ only in the seed become one job with a list of seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence

SEEDS = re.compile(r"seed=(?:(\d+)|\[(\d+(?:,\d+)*)\])", re.ASCII)


def pack(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Merge jobs that differ in nothing but their seed, whatever launcher is to run them.

        a=1 seed=7 | a=2 seed=7 | a=1 seed=8 | a=2 seed=8   ->   a=1 seed=[7,8] | a=2 seed=[7,8]

    A seed asked for twice is done once. A job without a seed, or with one that is not a whole number
    or a list of them, stays as it is: the checks of settings answer it.

    Args:
        jobs: per job its overrides, KEY=VALUE, in the order typed; lists are written without spaces.

    Returns:
        The packed jobs in the order of each one's first appearance; one that stays alone keeps its
        spelling.
    """
    packed: dict[tuple[str, ...], list[str]] = {}
    seeds: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        given = [match for word in job if (match := SEEDS.fullmatch(word))]
        rest = tuple("seed" if SEEDS.fullmatch(word) else word for word in job)
        packed.setdefault(rest, list(job))
        if len(given) == 1:
            one, several = given[0].groups()
            seeds.setdefault(rest, []).append(one or several)
    for rest, merged in seeds.items():
        if len(merged) > 1:
            each = list(dict.fromkeys(",".join(merged).split(",")))
            joined = f"seed=[{','.join(each)}]"
            packed[rest] = [joined if word == "seed" else word for word in rest]
    return list(packed.values())
