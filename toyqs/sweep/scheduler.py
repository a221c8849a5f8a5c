"""Stacks on the cores at hand: who does what, and nothing that befalls one stops another."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import signal
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.config.identity import run_key
from toyqs.evidence.rows import is_complete
from toyqs.sweep import worker as attempt
from toyqs.sweep.locks import owner_of
from toyqs.sweep.plan import Stack
from toyqs.sweep.progress import Progress
from toyqs.sweep.worker import StackOutcome
from toyqs.training import distributed

POLL_SECONDS = 0.2
RETRY_SECONDS = 2.0  # before a run that another command holds is looked at again


class Failure(NamedTuple):
    """Runs of a stack that failed, why in a line, and where the whole story is."""

    stack: Stack
    runs: list[tuple[int, str]]  # seed and key
    why: str
    log: Path


def run_all(stacks: list[Stack], processes: int, progress: Progress, *, isolate: bool) -> list[Failure]:
    """Do every stack; a failing one stops no other.

    Args:
        stacks: in the order in which they start.
        processes: at most so many at once.
        progress: told of everything that happens.
        isolate: a process of its own also where one at a time suffices. Under torchrun all processes do one
            stack at a time, and a failure is the end: those that wait for each other cannot go on.
    """
    queue = _Queue(stacks, progress)
    if distributed.ranks() > 1:
        while not queue.failures and (entry := queue.next(wait_for_it=True)):
            queue.record(*entry, attempt.train_stack(entry[1], partial(progress.update, entry[0])))
    elif processes > 1 or isolate:
        _in_processes(queue, min(processes, len(stacks)))
    else:
        while entry := queue.next(wait_for_it=True):
            queue.record(*entry, attempt.train_stack(entry[1], partial(progress.update, entry[0])))
    return queue.failures


class _Queue:
    """The stacks that wait, and what became of the others."""

    def __init__(self, stacks: list[Stack], progress: Progress) -> None:
        self.queue = deque((0.0, index, stack) for index, stack in enumerate(stacks))
        self.progress = progress
        self.failures: list[Failure] = []
        self.waited_for: set[int] = set()

    def next(self, *, wait_for_it: bool = False) -> tuple[int, Stack] | None:
        """The next stack that may start now, or with `wait_for_it` as soon as one may."""
        if self.queue and wait_for_it:
            time.sleep(max(0.0, self.queue[0][0] - time.monotonic()))
        if not self.queue or self.queue[0][0] > time.monotonic():
            return None
        _, index, stack = self.queue.popleft()
        self.progress.start(index, stack)
        return index, stack

    def record(self, index: int, stack: Stack, outcome: StackOutcome) -> None:
        """Count what became of a stack; what another command holds waits for another turn."""
        config, settled = stack.config, {*outcome.done, *outcome.complete, *outcome.elsewhere}
        rest = {seed: run_key(config, seed) for seed in stack.seeds if seed not in settled}
        # A stack whose process died may have written some of its rows before.
        failed = [(seed, key) for seed, key in rest.items() if not is_complete(config.runs_dir, key)]
        if outcome.elsewhere:
            if index not in self.waited_for:  # it comes here anew at every look
                self.waited_for.add(index)
                key = run_key(config, outcome.elsewhere[0])
                self.progress.say(f"waiting for run {key}: {owner_of(Path(config.runs_dir) / key)} is at it")
            later = time.monotonic() + RETRY_SECONDS
            self.queue.append((later, index, stack._replace(seeds=outcome.elsewhere)))
        if failed:
            log = attempt.log_path(stack)
            self.failures.append(Failure(stack, failed, outcome.failure or "no row was written", log))
        self.progress.finish(
            index, len(outcome.done) + len(rest) - len(failed), len(outcome.complete), len(failed)
        )


class _Worker:
    """One process in a pool of its own, so that its death breaks no other's pool."""

    def __init__(self, context: Any, progress_array: Any) -> None:
        self._pool = lambda: ProcessPoolExecutor(
            1, context, initializer=attempt.initialise_worker, initargs=(progress_array,)
        )
        self.pool = self._pool()
        self.process: Any = None  # from the first stack on
        self.entry: tuple[int, Stack] | None = None
        self.future: Future[StackOutcome] = Future()

    def start(self, entry: tuple[int, Stack]) -> None:
        self.entry = entry
        with _interrupted_afterwards():
            # Pickled here: in a pool's own hands a task's tensors would travel through shared memory,
            # whose server thread prints a traceback when a worker dies or Ctrl-C comes.
            number, stack = entry[0], pickle.dumps(entry[1])
            try:
                self.future = self.pool.submit(attempt.run_in_worker, number, stack)
            except BrokenProcessPool:  # its process died idle, and the pool's own thread was first to see it
                self.pool = self._pool()
                self.future = self.pool.submit(attempt.run_in_worker, number, stack)
            (self.process,) = self.pool._processes.values()

    def progress_array(self, progress_array: Any) -> tuple[int, float, float]:
        """The entry's number, its work done so far and its loss, as the process told them."""
        assert self.entry is not None
        index = self.entry[0]
        return index, progress_array[2 * index], progress_array[2 * index + 1]

    def outcome(self, stack: Stack) -> StackOutcome:
        """Of a stack, once its future is done."""
        try:
            return self.future.result()
        except BrokenProcessPool:
            why = _death(_exit_code(self.process))
            with suppress(OSError), attempt.log_path(stack).open("a", encoding="utf-8") as log:
                print(why, file=log)
        except Exception as error:  # such as a log that cannot be written
            why = " ".join(f"{type(error).__name__}: {error}".split())
        return StackOutcome([], [], [], why)

    def kill(self) -> None:
        for process in list((self.pool._processes or {}).values()):
            process.kill()

    def end(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Keep Ctrl-C waiting: half a process cannot be ended, and one that imports would print a traceback."""
    heard: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits it
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if heard:
        raise KeyboardInterrupt


def _exit_code(process: BaseProcess) -> int | None:
    """Of a process that has ended; None where nobody knows it.

    The pool's own thread waits for the process too, and whoever comes second sees the code a moment later.
    """
    process.join()
    for _ in range(100):
        if process.exitcode is not None:
            break
        time.sleep(0.01)
    return process.exitcode


def _death(exitcode: int | None) -> str:
    """How a process ended, in words."""
    if exitcode == -signal.SIGKILL:
        return "its process was killed (SIGKILL): by hand, or by the system for want of memory"
    if exitcode is not None and exitcode < 0:
        return f"its process was ended by {signal.Signals(-exitcode).name}"
    return f"its process ended with exit code {exitcode}"


def _in_processes(queue: _Queue, processes: int) -> None:
    context = multiprocessing.get_context("spawn")
    # Plain shared memory, not a queue: a worker killed while holding a queue's lock would silence the others.
    progress_array = context.RawArray("d", [math.nan] * (2 * len(queue.queue)))
    workers = [_Worker(context, progress_array) for _ in range(processes)]
    try:
        while queue.queue or any(worker.entry for worker in workers):
            workers = [_settled(queue, worker) or _Worker(context, progress_array) for worker in workers]
            for worker in workers:
                if not worker.entry and (entry := queue.next()):
                    worker.start(entry)
            busy = [worker for worker in workers if worker.entry]
            _wait(busy)
            for worker in busy:
                queue.progress.update(*worker.progress_array(progress_array))
    except BaseException:
        for worker in workers:  # all before any is waited for: a second Ctrl-C must not leave one at work
            worker.kill()
        raise
    finally:
        for worker in workers:
            worker.end()


def _settled(queue: _Queue, worker: _Worker) -> _Worker | None:
    """The worker, free again if its stack is done; None where its process died, at work or idle."""
    if worker.entry:
        if not worker.future.done():
            return worker
        entry, worker.entry = worker.entry, None
        queue.record(*entry, worker.outcome(entry[1]))
    if worker.process is None or worker.process.is_alive():
        return worker
    worker.end()
    return None


def _wait(busy: list[_Worker]) -> None:
    """Until a stack is done, or it is time for a look."""
    if busy:
        wait([worker.future for worker in busy], POLL_SECONDS, FIRST_COMPLETED)
    else:  # all that is left is in another command's hands
        time.sleep(POLL_SECONDS)
