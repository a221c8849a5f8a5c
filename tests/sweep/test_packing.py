"""Packing of jobs that differ only in their seed."""

from __future__ import annotations

import random

import pytest

from toyqs.sweep.words.packing import pack


@pytest.mark.parametrize(
    ("jobs", "packed"),
    [
        (["a=1 seed=7", "a=1 seed=8"], ["a=1 seed=[7,8]"]),
        (["a=1 seed=7", "a=2 seed=7", "a=1 seed=8", "a=2 seed=8"], ["a=1 seed=[7,8]", "a=2 seed=[7,8]"]),
        (["seed=7 a=1", "seed=7 a=1"], ["seed=[7] a=1"]),
        (["seed=7 a=1"], ["seed=7 a=1"]),
        (["seed=[0,1] a=1", "seed=[1,2] a=1", "seed=5 a=1"], ["seed=[0,1,2,5] a=1"]),
        (["a=1", "a=2"], ["a=1", "a=2"]),
        (["seed=x", "seed=1.5", "seed=-1"], ["seed=x", "seed=1.5", "seed=-1"]),
        (["seed=x", "seed=7", "seed=8"], ["seed=x", "seed=[7,8]"]),
        (["task.seed=7", "task.seed=8"], ["task.seed=7", "task.seed=8"]),
        (["a=1 b=[seed=7] seed=3", "a=1 b=[seed=7] seed=4"], ["a=1 b=[seed=7] seed=[3,4]"]),
        (["", ""], [""]),
        ([], []),
    ],
)
def test_pack(jobs, packed):
    assert pack([job.split() for job in jobs]) == [job.split() for job in packed]


def test_nothing_is_lost_or_invented():
    rng = random.Random(3)
    jobs = [[f"a={rng.randrange(3)}", f"seed={rng.randrange(6)}", f"b={rng.randrange(2)}"] for _ in range(40)]
    packed = pack(jobs)
    spread = set()
    for a, seed, b in packed:
        spread |= {(a, f"seed={one}", b) for one in seed.removeprefix("seed=").strip("[]").split(",")}
    assert spread == {tuple(job) for job in jobs}
    assert len({(a, b) for a, _, b in packed}) == len(packed)
    assert [[*job] for job in jobs] == jobs
