"""Ctrl-C at any moment, sent as a terminal does to every process of the command; SIGTERM; a kill."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests import killing, warm
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.sweep import main
from toyqs.sweep.worker import is_settled

WIDTHS, SEEDS = (4, 5, 6, 7), [1, 2]
SMALL = killing.SMALL | {"max_steps": 30}
SHORT = (
    *("-m", "base_lm_hidden_dim=4,5,6,7", "seed=1,2", "hydra.launcher.processes=2"),
    *(f"{name}={value}" for name, value in SMALL.items()),
)
LONG = (*SHORT, "max_steps=20000")
LINE = "toyqs: stopped; finished runs are kept, the same command does the others"
STOP_SECONDS = 15.0  # measured: 6, with four busy processes to each core
ROWS = "runs/*/summary.json"


def interrupted(
    session: int, times: int = 1, stop: int = signal.SIGINT, *, all_of_them: bool = True
) -> float:
    """Press Ctrl-C, or send another signal; return the seconds until every process was gone."""
    start = time.monotonic()
    for _ in range(times):
        if killing.alive(session):
            (os.killpg if all_of_them else os.kill)(session, stop)
            time.sleep(0.05 * (times > 1))
    assert killing.until(lambda: not killing.alive(session), 60)
    return time.monotonic() - start


def test_stopped_then_killed_and_in_the_end_whole(tmp_path: Path) -> None:
    """Press Ctrl-C in training, run the command again, kill it between two rows, run it to the end."""
    words = [str(killing.ROOT / "run.py"), *SHORT]
    given = partial(warm.started, words, tmp_path)
    process = given()
    assert killing.until(lambda: any(tidied(path.parent) for path in tmp_path.glob(ROWS)), 120)
    assert interrupted(process.pid) < STOP_SECONDS
    assert process.wait() == 130
    assert killing.stderr_of(tmp_path) == [LINE]
    first = settled(tmp_path)
    moment = killing.Moment(killing.num_rows(tmp_path) + 1, 0.0)
    outcome = killing.killed(given(), tmp_path, moment)
    assert outcome.startswith("killed"), outcome
    second = settled(tmp_path)
    assert given().wait() == 0
    assert killing.stderr_of(tmp_path) == [LINE]
    said = re.findall(
        r"toyqs: (\d) of 8 runs are finished already, \d to train", (tmp_path / "err").read_text()
    )
    assert said == [str(first), str(second)]
    configs = [replace(RunConfig(), **SMALL, base_lm_hidden_dim=width, seed=SEEDS) for width in WIDTHS]
    whole = tmp_path / "whole"
    assert main.main([resolved(replace(x, runs_dir=str(whole / "runs"), processes=1)) for x in configs]) == 0
    assert killing.differences(killing.found_in(tmp_path), killing.found_in(whole)) == []


def tidied(run: Path) -> bool:
    """Tell whether a worker has written a run's row and released its folder."""
    return not (run / "owner.json").exists() and not (run / "log.txt").exists()


def settled(folder: Path) -> int:
    """Count the runs that the next command finds complete: fewer than the rows after an ill-timed end."""
    return sum(is_settled(folder / "runs", path.parent.name) for path in folder.glob(ROWS))


@pytest.mark.slow
def test_an_impatient_user(tmp_path: Path) -> None:
    process = killing.started(killing.command(*LONG), tmp_path)
    assert killing.until(lambda: len([*(tmp_path / "runs").glob("*/metrics.jsonl")]) == 4, 120)
    assert interrupted(process.pid, times=3) < STOP_SECONDS
    assert process.wait() in {130, -signal.SIGINT}  # the second may come during Python's own exit
    assert killing.stderr_of(tmp_path) == [LINE]


@pytest.mark.parametrize(
    "seconds", [0.3, *(pytest.param(x, marks=pytest.mark.slow) for x in (1.0, 2.0, 4.0))]
)
def test_while_starting_up(seconds: float, tmp_path: Path) -> None:
    """Press Ctrl-C while Python imports, jobs are composed or workers start."""
    process = killing.started(killing.command(*LONG), tmp_path)
    time.sleep(seconds)
    assert interrupted(process.pid) < STOP_SECONDS
    assert process.wait() == 130
    assert killing.stderr_of(tmp_path) == [LINE]


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_while_the_workers_start(stop: int, tmp_path: Path) -> None:
    process = killing.started(killing.command(*LONG), tmp_path)
    assert killing.until(lambda: len(killing.alive(process.pid)) == 3, 120)  # with the command's own
    assert interrupted(process.pid, stop=stop) < STOP_SECONDS
    assert process.wait() == 130
    assert killing.stderr_of(tmp_path) == [LINE]


@pytest.mark.parametrize(("processes", "all_of_them"), [(1, False), (2, False), (2, True)])
def test_sigterm_is_answered_like_ctrl_c(tmp_path: Path, processes: int, all_of_them: bool) -> None:
    """Send it to the command alone, as `kill` and Docker do, and to all its processes, as Slurm does."""
    words = [f"{name}={value}" for name, value in (SMALL | {"max_steps": 20000}).items()]
    words = ["-m", *words, "base_lm_hidden_dim=4,5"] if processes > 1 else [*words, "processes=1"]
    process = warm.started([str(killing.ROOT / "run.py"), *words], tmp_path)
    assert killing.until(lambda: [*tmp_path.glob("runs/*/metrics.jsonl")], 120)
    assert interrupted(process.pid, stop=signal.SIGTERM, all_of_them=all_of_them) < STOP_SECONDS
    assert process.wait() == 130
    assert killing.stderr_of(tmp_path) == [LINE]
