"""Train stacks on this machine: in this process, or in worker processes."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait

from toyqs.sweep.executors.executor import Entry, Executor, Tell
from toyqs.sweep.starting import stops_delayed
from toyqs.sweep.worker import StackOutcome, WorkerProcess, record_death, train_stack
from toyqs.training import distributed


def local_executor(processes: int, *, isolate: bool) -> Executor:
    """Return the executor for this machine.

    Under torchrun all ranks train one stack at a time and the first failure ends the command: ranks that
    wait for a failed one cannot continue.

    Args:
        processes: most stacks trained at once.
        isolate: train in a worker process even where one stack runs at a time.
    """
    ranks = distributed.ranks()
    if ranks == 1 and (processes > 1 or isolate):
        return WorkerPool(processes)
    return InThisProcess(ends_at_failure=ranks > 1)


class InThisProcess(Executor):
    """Trains one stack at a time, within `start`."""

    def __init__(self, *, ends_at_failure: bool) -> None:
        self.ends_at_failure, self._trained = ends_at_failure, False

    def free(self) -> int:
        """Return 1: a stack has ended when `start` returns."""
        return 1

    def start(self, entries: Sequence[Entry]) -> None:
        """Train the stacks."""
        self._trained = bool(entries)
        for index, stack in entries:
            report, say = partial(self._report, index), partial(self.tell, index, "say")
            self.tell(index, "outcome", train_stack(stack, report, say))

    def _report(self, index: int, work: float, loss: float | None) -> None:
        self.tell(index, "progress", (work, loss))

    def wait(self, seconds: float) -> None:
        """Sleep, unless a stack was trained since the last time: another command holds all that is left."""
        if not self._trained:
            time.sleep(seconds)


class WorkerPool(Executor):
    """Trains in worker processes, so that the death of one stops no other stack."""

    def __init__(self, processes: int) -> None:
        self._workers = [Worker() for _ in range(processes)]

    def free(self) -> int:
        """Count the workers without a stack."""
        return sum(worker.entry is None for worker in self._workers)

    def start(self, entries: Sequence[Entry]) -> None:
        """Give each stack to a free worker."""
        free = (worker for worker in self._workers if worker.entry is None)
        for entry, worker in zip(entries, free, strict=False):
            worker.start(entry)

    def wait(self, seconds: float) -> None:
        """Wait for a worker to say something, and tell it."""
        if busy := [worker for worker in self._workers if worker.entry is not None]:
            wait([worker.process.pipe for worker in busy if worker.process], seconds)
        else:  # another command holds all that is left
            time.sleep(seconds)
        for worker in busy:
            worker.listen(self.tell)

    def stop(self) -> None:
        """Kill all workers before any is waited for: a second Ctrl-C must leave none running."""
        for worker in self._workers:
            worker.kill()

    def close(self) -> None:
        """End the workers' processes."""
        for worker in self._workers:
            worker.end()


class Worker:
    """A process for one stack after another, started when the first comes and again after its death."""

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self.entry: Entry | None = None
        self.latest: tuple[float, float | None] = (math.nan, None)  # work done, held-out NLL
        self.was_idle = False  # the process had waited for the stack

    def start(self, entry: Entry) -> None:
        """Start a stack in the worker's process."""
        self.entry, self.latest = entry, (math.nan, None)
        self.was_idle = self.process is not None
        if self.process is None:
            with stops_delayed():
                self.process = WorkerProcess()
        with suppress(OSError):  # it has died, which `listen` notices
            self.process.send("train", entry[1].to_plain())

    def listen(self, tell: Tell) -> None:
        """Tell what the process has said; where the stack has ended, its outcome."""
        assert self.entry is not None and self.process is not None
        (index, stack), outcome = self.entry, None
        try:
            while outcome is None and self.process.pipe.poll():
                kind, value = self.process.receive()
                if kind == "progress":
                    self.latest = value
                elif kind == "say":
                    tell(index, kind, value)
                else:
                    outcome = StackOutcome(*value)
        except EOFError:
            process, self.process = self.process, None
            code = process.exit_code()
            process.end()
            if self.was_idle and math.isnan(self.latest[0]):  # it died before it began
                return self.start(self.entry)
            outcome = record_death(stack, _describe_exit(code))
        tell(index, "progress", self.latest)
        if outcome is not None:
            self.entry = None
            tell(index, "outcome", outcome)

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
