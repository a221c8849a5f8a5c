"""Run stacks on the available cores: assign them to workers, so that one's failure stops no other."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import is_complete
from toyqs.evidence.states import LOG, owner_of
from toyqs.files import ROW
from toyqs.sweep.plan import Stack
from toyqs.sweep.progress import Progress
from toyqs.sweep.worker import StackOutcome, WorkerProcess, log_path, stops_delayed, train_stack
from toyqs.training import distributed

POLL_SECONDS = 0.2
RETRY_SECONDS = 2.0  # before a run that another command holds is tried again


class Failure(NamedTuple):
    """The failed runs of a stack, with the reason in one line."""

    stack: Stack
    runs: list[tuple[int, str]]  # seed and key
    why: str
    log: Path  # has the traceback


def run_all(stacks: list[Stack], processes: int, progress: Progress, *, isolate: bool) -> list[Failure]:
    """Train every stack and return the failures; a failing stack stops no other.

    Under torchrun all ranks train one stack at a time and the first failure ends the command: ranks that
    wait for a failed one cannot continue.

    Args:
        stacks: in the order in which they start.
        processes: most stacks trained at once.
        progress: displays what is running and done.
        isolate: train in a worker process even where one stack runs at a time.
    """
    queue, ranks = _Queue(stacks, progress), distributed.ranks()
    if ranks == 1 and (processes > 1 or isolate):
        _run_in_processes(queue, min(processes, len(stacks)))
        return queue.failures
    while not (ranks > 1 and queue.failures) and (entry := queue.next(wait=True)):
        index, stack = entry
        queue.record(index, stack, train_stack(stack, partial(progress.update, index), progress.say))
    return queue.failures


class _Queue:
    """The stacks still to be trained, and the failures among the others."""

    def __init__(self, stacks: list[Stack], progress: Progress) -> None:
        self.waiting = deque((0.0, index, stack) for index, stack in enumerate(stacks))  # from this time on
        self.progress = progress
        self.failures: list[Failure] = []
        self._announced: set[int] = set()  # stacks of which it was said that another command holds them
        # rows that force=true is to replace: while one stands as it was, its run has not been trained
        self._old = {row: _stamp(row) for stack in stacks if stack.config.force for row in _rows(stack)}

    def next(self, *, wait: bool = False) -> tuple[int, Stack] | None:
        """Take the next stack that may start now; with `wait`, sleep until one may."""
        if self.waiting and wait:
            time.sleep(max(0.0, self.waiting[0][0] - time.monotonic()))
        if not self.waiting or self.waiting[0][0] > time.monotonic():
            return None
        _, index, stack = self.waiting.popleft()
        self.progress.start(index, stack)
        return index, stack

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
            retry = time.monotonic() + RETRY_SECONDS
            self.waiting.append((retry, index, stack._replace(seeds=outcome.elsewhere)))
        if failed:
            why = outcome.failure or "no row was written"
            self.failures.append(Failure(stack, failed, why, self._log_of(stack, failed[0])))
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


class _Worker:
    """A process for one stack after another, started when the first comes and again after its death."""

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self.entry: tuple[int, Stack] | None = None
        self.latest: tuple[float, float | None] = (math.nan, None)  # work done, held-out NLL
        self.was_idle = False  # the process had waited for the stack

    def start(self, entry: tuple[int, Stack]) -> None:
        """Start a stack in the worker's process."""
        self.entry, self.latest = entry, (math.nan, None)
        self.was_idle = self.process is not None
        if self.process is None:
            with stops_delayed():
                self.process = WorkerProcess()
        with suppress(OSError):  # it has died, which `listen` notices
            self.process.send("train", entry[1].to_plain())

    def listen(self, queue: _Queue) -> None:
        """Take in what the process has said; record the stack where it has ended."""
        assert self.entry is not None and self.process is not None
        (index, stack), outcome = self.entry, None
        try:
            while outcome is None and self.process.pipe.poll():
                kind, value = self.process.receive()
                if kind == "progress":
                    self.latest = value
                elif kind == "say":
                    queue.progress.say(value)
                else:
                    outcome = StackOutcome(*value)
        except EOFError:
            process, self.process = self.process, None
            code = process.exit_code()
            process.end()
            if self.was_idle and math.isnan(self.latest[0]):  # it died before it began
                return self.start(self.entry)
            outcome = StackOutcome([], [], [], _describe_exit(code))
            with suppress(OSError), log_path(stack).open("a", encoding="utf-8") as log:
                print(outcome.failure, file=log)
        queue.progress.update(index, *self.latest)
        if outcome is not None:
            self.entry = None
            queue.record(index, stack, outcome)

    def kill(self) -> None:
        """Kill the process at once."""
        if self.process is not None:
            self.process.kill()

    def end(self) -> None:
        """Let the process finish its stack, then end it."""
        if self.process is not None:
            self.process.end()


def _describe_exit(exitcode: int | None) -> str:
    """Say in words how a process ended."""
    if exitcode == -signal.SIGKILL:
        return "its process was killed (SIGKILL): by hand, or by the system for want of memory"
    if exitcode is not None and exitcode < 0:
        return f"its process was ended by {signal.Signals(-exitcode).name}"
    return f"its process ended with exit code {exitcode}"


def _run_in_processes(queue: _Queue, processes: int) -> None:
    workers = [_Worker() for _ in range(processes)]
    try:
        while queue.waiting or any(worker.entry for worker in workers):
            for worker in workers:
                if not worker.entry and (entry := queue.next()):
                    worker.start(entry)
            busy = [worker for worker in workers if worker.entry]
            if busy:
                wait([worker.process.pipe for worker in busy if worker.process], POLL_SECONDS)
            else:  # another command holds all that is left
                time.sleep(POLL_SECONDS)
            for worker in busy:
                worker.listen(queue)
    except BaseException:
        for worker in workers:  # all before any is waited for: a second Ctrl-C must leave none running
            worker.kill()
        raise
    finally:
        for worker in workers:
            worker.end()
