"""Scheduling: runs that another command holds, failures, dead workers, and how they are counted."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests import lab
from toyqs.config.identity import run_key
from toyqs.config.plugins import load
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import is_complete
from toyqs.evidence.states import FAILED, state_of
from toyqs.sweep import scheduler, worker
from toyqs.sweep.executors import local
from toyqs.sweep.executors.executor import Executor
from toyqs.sweep.locks import acquire
from toyqs.sweep.main import _describe
from toyqs.sweep.plan import Stack
from toyqs.sweep.progress import Progress
from toyqs.sweep.worker import StackOutcome
from toyqs.tasks.rev_prog import RevProg
from toyqs.training.flops import Cost

pytestmark = pytest.mark.usefixtures("warm_workers")
outside = pytest.fixture(lab.outside)


def stack(folder: Path, seeds: list[int], **changes: object) -> Stack:
    small = {"max_steps": 2, "data_loader_batch_size": 2, "eval_sequences": 4, "runs_dir": str(folder)}
    widths = {"base_lm_hidden_dim": 3, "reasoner_hidden_dim": 3}
    config = resolved(replace(RunConfig(), **{**small, **widths, **changes}))
    return Stack("thinking", "", config, seeds, Cost(1, 1, 1.0, 1.0))


def folder_of(one: Stack, seed: int) -> Path:
    return Path(one.config.runs_dir) / run_key(one.config, seed)


def trained(stacks: list[Stack], progress: Progress, *, isolate: bool) -> list[scheduler.Failure]:
    return scheduler.run_all(stacks, local.local_executor(1, isolate=isolate), progress)


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
    assert "Traceback" in worker.log_path(one).read_text() and capsys.readouterr().err == ""
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
    monkeypatch.setattr(Executor, "retry_seconds", 0.5)
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
    assert trained([one, other], progress, isolate=isolate) == []
    assert released and all(is_complete(tmp_path, run_key(one.config, seed)) for seed in (0, 1, 5))
    assert progress.line().startswith("3 of 3 runs finished")
    lines = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    owner = f"process {os.getpid()} on {socket.gethostname()}, since "
    assert len(lines) == 1 and lines[0].startswith(
        f"toyqs: waiting for run {run_key(one.config, 1)}: {owner}"
    )


def test_a_stack_reaches_its_worker_as_json():
    one = stack(Path("runs"), [0, 5], task=RevProg(k=2, label_noise=0.1), weight_groups=list("ABBC"))
    assert one.config.task.permutations.shape == (3, 6)
    assert "_operators" in vars(one.config.task), "a task that has been used holds tensors"
    text = json.dumps(one.to_plain())
    assert Stack.from_plain(json.loads(text)) == one
    with pytest.raises(TypeError):
        Stack.from_plain(json.loads(text.replace("label_noise", "no_such_setting")))


@pytest.mark.parametrize("seen", [True, False])
def test_a_worker_that_dies_idle_costs_nothing(tmp_path, monkeypatch, seen):
    """Both where the next stack can no longer be sent to it and where it is, but not read."""
    one, other = stack(tmp_path, [0]), stack(tmp_path, [5])
    progress = Progress([one, other], 0)
    real, killed = local.Worker.start, []

    def start(self, entry):
        idle = self.process is not None and not killed
        if idle:
            killed.append(self.process.process.pid)
            os.kill(killed[0], signal.SIGSTOP if not seen else signal.SIGKILL)
            if seen:
                self.process.process.join()
        real(self, entry)
        if idle and not seen:
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(local.Worker, "start", start)
    assert trained([one, other], progress, isolate=True) == []
    assert killed and is_complete(tmp_path, run_key(other.config, 5))


@pytest.mark.parametrize(("block", "isolate"), [("log.txt", True), (".lock", True), (".lock", False)])
def test_force_that_cannot_begin_is_a_failure_and_the_old_row_stays(tmp_path, capsys, block, isolate):
    one = stack(tmp_path, [0, 1])
    assert trained([one], Progress([one], 0), isolate=False) == []
    rows = [folder_of(one, seed) / "summary.json" for seed in one.seeds]
    before = [row.read_bytes() for row in rows]
    (folder_of(one, 0) / block).unlink(missing_ok=True)
    (folder_of(one, 0) / block).mkdir()
    forced = one._replace(config=replace(one.config, force=True))
    progress = Progress([forced], 0)
    (failure,) = trained([forced], progress, isolate=isolate)
    assert [seed for seed, _ in failure.runs] == [0, 1] and "IsADirectoryError" in failure.why
    assert progress.line().startswith("0 of 2 runs finished, 2 failed")
    assert [row.read_bytes() for row in rows] == before
    (folder_of(one, 0) / block).rmdir()
    assert trained([forced], Progress([forced], 0), isolate=isolate) == []
    assert [row.read_bytes() for row in rows] != before, "times differ"


@pytest.mark.parametrize("isolate", [False, True])
def test_what_a_training_says_reaches_the_user(tmp_path, capfd, isolate):
    """A worker's own output goes to its log; a line for the user does not."""
    one = stack(tmp_path, [0])
    folder_of(one, 0).mkdir()
    (folder_of(one, 0) / "checkpoint.pt").write_bytes(b"x")
    (folder_of(one, 0) / "log.txt").write_text("a failure of an earlier command")
    assert trained([one], Progress([one], 0), isolate=isolate) == []
    lines = [line for line in capfd.readouterr().err.splitlines() if "begins anew" in line]
    assert len(lines) == 1 and lines[0].startswith(f"toyqs: {folder_of(one, 0)}")
    assert not (folder_of(one, 0) / "log.txt").exists()


def test_the_log_of_a_failure_is_in_the_folder_of_a_run_that_failed(tmp_path):
    """The first of two runs has its row when the second fails; a later command tidies the log away."""
    one = stack(tmp_path, [0, 1])
    blocked = folder_of(one, 1) / "model.safetensors"
    blocked.mkdir(parents=True)
    (failure,) = trained([one], Progress([one], 0), isolate=True)
    assert failure.runs == [(1, run_key(one.config, 1))] and is_complete(tmp_path, run_key(one.config, 0))
    assert failure.log == folder_of(one, 1) / "log.txt" and "Traceback" in failure.log.read_text()
    assert not worker.log_path(one).exists()
    blocked.rmdir()
    rest = one._replace(seeds=[1])
    assert trained([rest], Progress([rest], 0), isolate=True) == []
    assert not failure.log.exists()


@pytest.mark.usefixtures("outside")
def test_a_plug_in_that_is_edited_while_a_worker_waits_fails_its_run_and_is_in_its_log(tmp_path):
    load.load([lab.file("./mine.py", lab.scores("power"))])
    one = stack(tmp_path / "runs", [0, 1], plugins=["./mine.py"], reward="power")
    lab.file("./mine.py", lab.scores("power", head="# edited"))
    (failure,) = trained([one], Progress([one], 0), isolate=True)
    assert failure.why.startswith(
        "its process could not begin: plugins=./mine.py: has changed: its hash was "
    )
    assert failure.log == folder_of(one, 0) / "log.txt" and failure.why in failure.log.read_text()
    assert state_of(folder_of(one, 0)).word == FAILED


def test_a_log_that_cannot_be_written_is_not_named(tmp_path):
    one = stack(tmp_path, [0])
    folder_of(one, 0).touch()
    (failure,) = trained([one], Progress([one], 0), isolate=True)
    assert failure.why.startswith("its process could not begin: FileExistsError: ") and failure.log is None
    assert _describe(failure).endswith(f"{failure.why}")
