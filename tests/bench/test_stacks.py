"""The benchmark of stack sizes: it measures every run at every size and prints a table."""

from __future__ import annotations

import re

import pytest

from bench import stacks
from toyqs.sweep.plan import STACK_SIZES


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {name: {**changes, "data_loader_batch_size": 2} for name, changes in stacks.RUNS.items()}
    monkeypatch.setattr(stacks, "RUNS", runs)
    monkeypatch.setattr(stacks, "SIZES", (1, 3))
    monkeypatch.setattr(stacks.sys, "argv", ["stacks.py", "--rounds", "1", "--steps", "1"])
    stacks.main()
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line[:34].strip() for line in lines] == list(runs)
    for line in lines:
        _, *times = re.findall(r"[\d.]+", line[34:])
        assert len(times) == 2 and all(float(number) > 0 for number in times)


def test_the_committed_sizes_fall_as_the_work_of_a_step_grows() -> None:
    flops, sizes = zip(*STACK_SIZES, strict=True)
    assert list(flops) == sorted(flops) and flops[-1] == float("inf")
    assert list(sizes) == sorted(sizes, reverse=True) and set(sizes) <= set(stacks.SIZES)
