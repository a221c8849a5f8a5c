"""Hand stacks to an executor and record what becomes of them, so that one's failure stops no other."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import is_complete
from toyqs.evidence.states import LOG, owner_of
from toyqs.files import ROW
from toyqs.sweep.executors.executor import Executor
from toyqs.sweep.plan import Stack
from toyqs.sweep.progress import Progress
from toyqs.sweep.worker import NOT_BEGUN, StackOutcome, log_path, record_death

POLL_SECONDS = 0.2


class Failure(NamedTuple):
    """The failed runs of a stack, with the reason in one line."""

    stack: Stack
    runs: list[tuple[int, str]]  # seed and key
    why: str
    log: Path | None  # has the traceback, or the reason; None where none could be written


def run_all(stacks: list[Stack], executor: Executor, progress: Progress) -> list[Failure]:
    """Train every stack and return the failures; a failing stack stops no other.

    Args:
        stacks: in the order in which they start.
        executor: trains them.
        progress: displays what is running and done.
    """
    queue, running = _Queue(stacks, progress, executor.retry_seconds), dict[int, Stack]()

    def tell(index: int, kind: str, value: Any) -> None:
        if kind == "progress":
            progress.update(index, *value)
        elif kind == "say":
            progress.say(value)
        elif kind == "queued":
            progress.queue(index, waits=value)
        else:
            queue.record(index, running.pop(index), StackOutcome(*value))

    executor.tell = tell
    try:
        while (queue.waiting or running) and not (executor.ends_at_failure and queue.failures):
            started = queue.next(executor.free())
            running.update(started)
            executor.start(started)
            executor.wait(POLL_SECONDS)
    except BaseException:
        executor.stop()
        raise
    finally:
        executor.close()
    return queue.failures


class _Queue:
    """The stacks still to be trained, and the failures among the others."""

    def __init__(self, stacks: list[Stack], progress: Progress, retry_seconds: float) -> None:
        self.waiting = deque((0.0, index, stack) for index, stack in enumerate(stacks))  # from this time on
        self.progress, self.retry_seconds = progress, retry_seconds
        self.failures: list[Failure] = []
        self._announced: set[int] = set()  # stacks of which it was said that another command holds them
        # rows that force=true is to replace: while one stands as it was, its run has not been trained
        self._old = {row: _stamp(row) for stack in stacks if stack.config.force for row in _rows(stack)}

    def next(self, free: int) -> list[tuple[int, Stack]]:
        """Take the next stacks that may start now, at most so many as are free."""
        taken: list[tuple[int, Stack]] = []
        while self.waiting and len(taken) < free and self.waiting[0][0] <= time.monotonic():
            _, index, stack = self.waiting.popleft()
            self.progress.start(index, stack)
            taken.append((index, stack))
        return taken

    def record(self, index: int, stack: Stack, outcome: StackOutcome) -> None:
        """Count a stack's outcome; queue again the seeds that another command holds."""
        config, settled = stack.config, {*outcome.done, *outcome.complete, *outcome.elsewhere}
        rest = {seed: run_key(config, seed) for seed in stack.seeds if seed not in settled}
        # A stack whose process died may have written some of its rows before.
        failed = [(seed, key) for seed, key in rest.items() if not self._is_new(config, key)]
        if outcome.elsewhere:
            if index not in self._announced:  # once, though every retry ends here again
                self._announced.add(index)
                key = run_key(config, outcome.elsewhere[0])
                owner = owner_of(Path(config.runs_dir) / key)
                self.progress.say(f"waiting for run {key}: {owner} is training it")
            retry = time.monotonic() + self.retry_seconds
            self.waiting.append((retry, index, stack._replace(seeds=outcome.elsewhere)))
        if failed:
            why = outcome.failure or "no row was written"
            if why.startswith(NOT_BEGUN):
                stack = stack._replace(seeds=[seed for seed, _ in failed])
                record_death(stack, why)
            log = self._log_of(stack, failed[0])
            self.failures.append(Failure(stack, failed, why, log if log.is_file() else None))
        done = len(outcome.done) + len(rest) - len(failed)
        self.progress.finish(index, done, len(outcome.complete), len(failed))

    def _is_new(self, config: RunConfig, key: str) -> bool:
        row = Path(config.runs_dir) / key / ROW
        return is_complete(config.runs_dir, key) and (row not in self._old or self._old[row] != _stamp(row))

    def _log_of(self, stack: Stack, failed: tuple[int, str]) -> Path:
        """Return the log of a failure, which is moved out of the folder of a run that has its row."""
        log = log_path(stack)
        first = run_key(stack.config, stack.seeds[0])
        if failed[1] != first and self._is_new(stack.config, first):
            with suppress(OSError):
                return log.replace(log.parent.with_name(failed[1]) / LOG)
        return log


def _rows(stack: Stack) -> list[Path]:
    return [Path(stack.config.runs_dir) / run_key(stack.config, seed) / ROW for seed in stack.seeds]


def _stamp(row: Path) -> tuple[int, int] | None:
    """Return what tells a file from the one that replaces it; None where there is none."""
    with suppress(OSError):
        found = row.stat()
        return found.st_ino, found.st_mtime_ns
    return None
