"""Scheduling: runs that another command holds, failures, dead workers, and how they are counted."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace
from multiprocessing import resource_sharer
from pathlib import Path

import pytest
import torch

from tests import killing
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import is_complete
from toyqs.sweep import scheduler, worker
from toyqs.sweep.locks import acquire
from toyqs.sweep.plan import Stack
from toyqs.sweep.progress import Progress
from toyqs.sweep.worker import StackOutcome
from toyqs.training.flops import Cost

pytestmark = pytest.mark.usefixtures("warm_workers")


def stack(folder: Path, seeds: list[int], **changes: object) -> Stack:
    small = {"max_steps": 2, "data_loader_batch_size": 2, "eval_sequences": 4, "runs_dir": str(folder)}
    widths = {"base_lm_hidden_dim": 3, "reasoner_hidden_dim": 3}
    config = resolved(replace(RunConfig(), **{**small, **widths, **changes}))
    return Stack("thinking", "", config, seeds, Cost(1, 1, 1.0, 1.0))


def folder_of(one: Stack, seed: int) -> Path:
    return Path(one.config.runs_dir) / run_key(one.config, seed)


def silent(work: float, loss: float | None) -> None:
    pass


def test_runs_that_are_complete_or_held_elsewhere_are_left_alone(tmp_path):
    one = stack(tmp_path, [0, 1, 2])
    assert worker.train_stack(one._replace(seeds=[0]), silent) == StackOutcome([0], [], [])
    before = (folder_of(one, 0) / "summary.json").stat().st_mtime_ns
    with acquire(folder_of(one, 1)):
        assert worker.train_stack(one, silent) == StackOutcome([2], [0], [1])
    assert (folder_of(one, 0) / "summary.json").stat().st_mtime_ns == before
    assert not is_complete(tmp_path, run_key(one.config, 1))
    forced = one._replace(config=replace(one.config, force=True))
    assert worker.train_stack(forced, silent) == StackOutcome([0, 1, 2], [], [])


def test_a_run_is_settled_when_its_worker_has_left_nothing_to_tidy_up(tmp_path, monkeypatch):
    one = stack(tmp_path, [0])
    worker.train_stack(one, silent)
    key, log = run_key(one.config, 0), worker.log_path(one)
    assert worker.is_settled(tmp_path, key)
    log.touch()
    assert not worker.is_settled(tmp_path, key)
    real = Path.stat

    def stat(path, **how):  # the log's worker removes it right after this look
        result = real(path, **how)
        if path == log:
            log.unlink()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        assert not worker.is_settled(tmp_path, key)
    assert worker.is_settled(tmp_path, key)
    log.write_text("a traceback")
    assert worker.is_settled(tmp_path, key)


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError("no room"), RuntimeError("a\nfault")])
def test_a_failure_is_one_line_and_releases_the_locks(tmp_path, monkeypatch, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(worker, "run_stack", fail)
    one = stack(tmp_path, [0, 1])
    outcome = worker.train_stack(one, silent)
    assert (outcome.done, outcome.complete, outcome.elsewhere) == ([], [], [])
    message = " ".join(str(error).split())
    assert outcome.failure is not None
    assert outcome.failure.startswith(f"{type(error).__name__}: {message} (test_scheduler.py:")
    assert "Traceback" in capsys.readouterr().err
    assert acquire(folder_of(one, 1)) is not None


def test_ctrl_c_is_not_taken_for_a_failure(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "run_stack", stop)
    with pytest.raises(KeyboardInterrupt):
        worker.train_stack(stack(tmp_path, [0]), silent)
    assert acquire(folder_of(stack(tmp_path, [0]), 0)) is not None


@pytest.mark.parametrize("isolate", [False, True])
def test_a_run_that_another_command_holds_is_tried_again(tmp_path, monkeypatch, capsys, isolate):
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.5)
    one, other = stack(tmp_path, [0, 1]), stack(tmp_path, [5])
    held = acquire(folder_of(one, 1))
    progress = Progress([one, other], 0)
    real, released = progress.finish, []

    def finish(index: int, done: int, skipped: int, failed: int) -> None:
        real(index, done, skipped, failed)
        if index == 1:
            held.__exit__()
            released.append(time.monotonic())

    monkeypatch.setattr(progress, "finish", finish)
    assert scheduler.run_all([one, other], 1, progress, isolate=isolate) == []
    assert released and all(is_complete(tmp_path, run_key(one.config, seed)) for seed in (0, 1, 5))
    assert progress.line().startswith("3 done, 0 running, 0 failed, 0 skipped of 3 runs")
    lines = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    owner = f"process {os.getpid()} on {socket.gethostname()}, since "
    assert len(lines) == 1 and lines[0].startswith(
        f"toyqs: waiting for run {run_key(one.config, 1)}: {owner}"
    )


def test_a_stack_reaches_its_worker_without_a_server_of_tensors(tmp_path, monkeypatch):
    """Tensors in a used task must not go through shared memory, which needs a thread that fails at Ctrl-C."""

    def refuse(*_):
        raise AssertionError("a tensor travels through shared memory")

    monkeypatch.setattr(resource_sharer, "DupFd", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse)
    one = stack(tmp_path, [0])
    assert isinstance(one.config.task.permutations, torch.Tensor)
    assert "permutations" in vars(one.config.task)
    assert scheduler.run_all([one], 1, Progress([one], 0), isolate=True) == []


@pytest.mark.parametrize("seen", [True, False])
def test_a_worker_that_dies_idle_costs_nothing(tmp_path, monkeypatch, seen):
    """Both where the scheduler sees its death and where the pool's own thread notices it first."""
    one, other = stack(tmp_path, [0]), stack(tmp_path, [5])
    progress = Progress([one, other], 0)
    real, killed = scheduler._collect, []

    def collect(queue, busy):
        free = real(queue, busy)
        if free is not None and free.process is not None and not free.entry and not killed:
            killed.append(free.process.pid)
            os.kill(free.process.pid, signal.SIGKILL)
            free.process.join()
            if not seen:
                assert killing.until(lambda: free.pool._broken, 10)
                monkeypatch.setattr(free.process, "is_alive", lambda: True)
        return real(queue, free) if free is not None else None

    monkeypatch.setattr(scheduler, "_collect", collect)
    assert scheduler.run_all([one, other], 1, progress, isolate=True) == []
    assert killed and is_complete(tmp_path, run_key(other.config, 5))
