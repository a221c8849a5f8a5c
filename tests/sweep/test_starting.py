"""How workers start: as copies of the command's process, where that is safe."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import killing, warm
from toyqs.sweep import starting

FOUR = (
    *("-m", "base_lm_hidden_dim=3,4,5,6", "seed=1,2", "processes=4"),
    *(f"{name}={value}" for name, value in killing.SMALL.items()),
)
IMPORTS = 4  # of torch: four copies and their command cost about one, four processes made afresh five


@pytest.mark.parametrize(
    ("allowed", "threads", "gpu", "method"),
    [
        (True, 1, False, "fork"),
        (False, 1, False, "spawn"),
        (True, 2, False, "spawn"),
        (True, 0, False, "spawn"),
        (True, 1, True, "spawn"),
    ],
)
def test_copies_are_of_a_commands_own_process_with_one_thread_and_no_gpu(
    monkeypatch: pytest.MonkeyPatch, allowed: bool, threads: int, gpu: bool, method: str
) -> None:
    monkeypatch.setattr(starting, "_allowed", [True] * allowed)
    monkeypatch.setattr(starting, "_num_threads", lambda: threads)
    monkeypatch.setattr(starting, "sees_gpu", lambda: gpu)
    assert starting.start_context().get_start_method() == method
    seconds = starting.COPY_SECONDS if method == "fork" else starting.AFRESH_SECONDS
    assert starting.start_seconds() == seconds


def cpu_seconds_of_an_import() -> float:
    """Measure the CPU seconds of a process that imports torch alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def started(folder: Path, *words: str) -> warm.Started:
    """Start the sweep; wait until its four workers train."""
    process = warm.started([str(killing.ROOT / "run.py"), *FOUR, *words], folder)
    assert killing.until(
        lambda: process.poll() is not None or len([*(folder / "runs").glob("*/metrics.jsonl")]) == 8, 120
    )
    return process


def test_four_copies_cost_next_to_nothing(tmp_path: Path) -> None:
    process = started(tmp_path)
    assert killing.until(lambda: process.poll() is not None, 120), "a worker waits for an end of its pipe"
    assert process.wait() == 0, (tmp_path / "err").read_text()
    assert process.cpu_seconds < IMPORTS * cpu_seconds_of_an_import()
    assert killing.num_rows(tmp_path) == 8
    assert {path.name for path in (tmp_path / "runs").glob("*/*")} >= {"summary.json", "thoughts.json.gz"}


def test_copies_end_with_the_command_alone(tmp_path: Path) -> None:
    """A copy has what its elder siblings are watched by: the last ends first, and so the others."""
    process = started(tmp_path, "max_steps=100000")
    names = [Path(f"/proc/{worker}/cmdline").read_bytes() for worker in killing.alive(process.pid)]
    assert len(names) == 5 and len(set(names)) == 1, "no worker has a command line of its own"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert killing.until(lambda: not killing.alive(process.pid), killing.GONE_SECONDS)
