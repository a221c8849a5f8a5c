"""The benchmark of chunks: what is alive is counted, and what the sizes choose saves what is promised."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench import memory
from bench.step import CONFIG
from toyqs.config.resolve import resolved


def test_bytes_alive_at_once_are_counted() -> None:
    with memory.Peak() as counted:
        first = torch.zeros(1000)
        view = first[10:]
        second = view + 1
        assert counted.peak == 4000 + 3960
        del second
        third = torch.zeros(100)
        assert counted.peak == 7960
        del first, view, third
        torch.zeros(2000)
    assert counted.peak == 8000


def test_chunks_hold_little_of_a_step() -> None:
    """The step of `bench/step.py`, of 32768 thought tokens; whole it holds 1,700 bytes for each."""
    by_sizes = memory.bytes_per_token(resolved(CONFIG))
    assert 600 < by_sizes < 685
    assert memory.bytes_per_token(resolved(replace(CONFIG, chunk_positions=14))) < 500


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main(["--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["0", "0", "32"]
    assert "1.00 (1.00 to 1.00)" in lines[-3]
