"""Ctrl-C at any moment, as a terminal sends it: to every process of the command."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests import killing

WORDS = (
    *("-m", "base_lm_hidden_dim=4,5,6", "reasoner_hidden_dim=4", "seed=1,2", "controls=none"),
    *("data_loader_batch_size=4", "eval_sequences=8", "trice_samples=2", "max_reasoning_len=1"),
    *("hydra.launcher.processes=2",),
)
LONG, SHORT = (*WORDS, "max_steps=20000"), (*WORDS, "max_steps=300")
LINE = "toyqs: stopped; complete runs are kept, the same command does the others"
STOP_SECONDS = 5.0


def interrupted(session: int, times: int = 1) -> float:
    """Press Ctrl-C, and say how long it took until every process was gone."""
    begun = time.monotonic()
    for _ in range(times):
        if killing.alive(session):
            os.killpg(session, signal.SIGINT)
            time.sleep(0.05 * (times > 1))
    assert killing.until(lambda: not killing.alive(session), 60)
    return time.monotonic() - begun


def test_while_training_and_then_the_same_command(tmp_path: Path) -> None:
    process = killing.started(killing.command(*SHORT), tmp_path)
    assert killing.until(lambda: killing.num_rows(tmp_path) >= 2, 120)
    assert interrupted(process.pid) < STOP_SECONDS
    assert process.wait() == 130
    assert killing.said(tmp_path) == [LINE]
    kept = killing.num_rows(tmp_path)
    assert killing.started(killing.command(*SHORT), tmp_path).wait() == 0
    assert killing.num_rows(tmp_path) == 6
    assert f"{kept} of 6 runs are complete already" in (tmp_path / "out").read_text()


@pytest.mark.slow
def test_an_impatient_user(tmp_path: Path) -> None:
    process = killing.started(killing.command(*LONG), tmp_path)
    assert killing.until(lambda: len([*(tmp_path / "runs").glob("*/metrics.jsonl")]) == 4, 120)
    assert interrupted(process.pid, times=3) < STOP_SECONDS
    assert process.wait() in {130, -signal.SIGINT}  # the second may come when all but Python's end is done
    assert killing.said(tmp_path) == [LINE]


@pytest.mark.parametrize(
    "seconds", [0.3, *(pytest.param(x, marks=pytest.mark.slow) for x in (1.0, 2.0, 4.0))]
)
def test_while_starting_up(seconds: float, tmp_path: Path) -> None:
    """While Python imports, while the jobs are composed, while the workers start."""
    process = killing.started(killing.command(*LONG), tmp_path)
    time.sleep(seconds)
    assert interrupted(process.pid) < STOP_SECONDS
    assert process.wait() == 130
    assert killing.said(tmp_path) == [LINE]


def test_while_the_workers_start(tmp_path: Path) -> None:
    process = killing.started(killing.command(*LONG), tmp_path)
    assert killing.until(lambda: len(workers(process.pid)) == 2, 120)
    time.sleep(0.5)
    assert interrupted(process.pid) < STOP_SECONDS
    assert process.wait() == 130
    assert killing.said(tmp_path) == [LINE]


def workers(session: int) -> list[int]:
    """Those of a session's processes that multiprocessing started to work."""
    found = []
    for process in killing.alive(session):
        try:
            words = Path(f"/proc/{process}/cmdline").read_text()
        except OSError:
            continue
        if "spawn_main" in words or "forkserver" in words:
            found.append(process)
    return found
