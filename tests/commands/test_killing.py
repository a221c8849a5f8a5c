"""A sweep whose processes are killed: nothing is lost or left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests import deaths, killing, warm
from toyqs.sweep import main
from toyqs.sweep.locks import acquire

SEED = 3
LONG = (
    *("-m", "base_lm_hidden_dim=4,6", "reasoner_hidden_dim=4", "seed=1,2", "controls=none"),
    *("max_steps=20000", "data_loader_batch_size=4", "eval_sequences=16", "hydra.launcher.processes=2"),
)


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path: Path) -> None:
    """Kill 8 sweeps. `python tests/killing.py 20` kills 20, and test_interruption.py one by default."""
    faults = {kill: wrong for kill, wrong in killing.trials(8, SEED, tmp_path) if wrong}
    assert faults == {}


def test_moments_are_spread_over_the_whole_sweep() -> None:
    moments = killing.moments(20, 36, 10.0, SEED)
    assert moments == sorted(moments) == killing.moments(20, 36, 10.0, SEED)
    assert moments != killing.moments(20, 36, 10.0, SEED + 1)
    before = [moment.seconds for moment in moments if not moment.rows]
    assert len(before) == 7 and min(before) < 2 and max(before) > 8
    written = [moment.rows for moment in moments if moment.rows]
    assert min(written) <= 4 and max(written) > 33
    assert {moment.seconds == 0.0 for moment in moments if moment.rows} == {True, False}


def test_a_folder_that_is_not_whole_is_noticed() -> None:
    bytes_ = {"a/config.json": b"x", "a/metrics.jsonl": b"y"}
    wanted = killing.Whole({"a/summary.json", *bytes_}, {"a": {"nll": 1.0, "seed": 2}}, bytes_, 1.0)
    assert killing.differences(wanted, wanted._replace(start_up=2.0)) == []
    torn = killing.Whole({"a/.x.7", *bytes_}, {}, {**bytes_, "a/metrics.jsonl": b"z"}, 1.0)
    assert killing.differences(torn, wanted) == [
        *("missing a/summary.json", "left behind a/.x.7", "other bytes in a/metrics.jsonl")
    ]
    assert killing.differences(wanted._replace(rows={"a": {"nll": 1.5, "seed": 2}}), wanted) == [
        "row a differs in nll"
    ]


def test_a_death_before_any_change_of_a_file(tmp_path: Path) -> None:
    died, whole = tmp_path / "died", tmp_path / "whole"
    code = warm.started([deaths.__file__, str(died / "runs")], tmp_path).wait()
    err = (tmp_path / "err").read_text()
    assert code == 0, err
    changes = [line for line in err.splitlines() if line.startswith(("open ", "os."))]
    for name in ("metrics", "owner", "config", "model", "summary", "cells/", "reports/"):
        assert any(name in change for change in changes), name
    assert len(changes) == len(set(changes)) >= 20
    assert main.main([deaths.configured(str(whole / "runs"))]) == 0
    assert killing.differences(killing.found_in(died), killing.found_in(whole)) == []


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    process = warm.started([str(killing.ROOT / "run.py"), *LONG], tmp_path)
    runs = tmp_path / "runs"
    assert killing.until(lambda: len([*runs.glob("*/metrics.jsonl")]) == 4, 120)
    assert len(killing.alive(process.pid)) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    start = time.monotonic()
    assert killing.until(lambda: not killing.alive(process.pid), killing.GONE_SECONDS)
    assert time.monotonic() - start < killing.GONE_SECONDS
    assert killing.stderr_of(tmp_path) == [], "such as a warning of leaked semaphores"
    folders = {path.parent for path in runs.glob("*/metrics.jsonl")}
    locks = [acquire(folder) for folder in folders]
    assert len(locks) == 4 and None not in locks, "a lock outlives its owner"
    for lock in locks:
        lock.__exit__()
