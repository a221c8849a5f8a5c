"""Run stacks on the available cores: assign them to workers, so that one's failure stops no other."""

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
from toyqs.sweep.locks import owner_of
from toyqs.sweep.plan import Stack
from toyqs.sweep.progress import Progress
from toyqs.sweep.worker import StackOutcome, initialise_worker, log_path, run_in_worker, train_stack
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
        queue.record(index, stack, train_stack(stack, partial(progress.update, index)))
    return queue.failures


class _Queue:
    """The stacks still to be trained, and the failures among the others."""

    def __init__(self, stacks: list[Stack], progress: Progress) -> None:
        self.waiting = deque((0.0, index, stack) for index, stack in enumerate(stacks))  # from this time on
        self.progress = progress
        self.failures: list[Failure] = []
        self._announced: set[int] = set()  # stacks of which it was said that another command holds them

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
        failed = [(seed, key) for seed, key in rest.items() if not is_complete(config.runs_dir, key)]
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
            self.failures.append(Failure(stack, failed, why, log_path(stack)))
        done = len(outcome.done) + len(rest) - len(failed)
        self.progress.finish(index, done, len(outcome.complete), len(failed))


class _Worker:
    """A process in a pool of its own, so that its death breaks no other's pool."""

    def __init__(self, context: Any, progress_array: Any) -> None:
        self._new_pool = lambda: ProcessPoolExecutor(
            1, context, initializer=initialise_worker, initargs=(progress_array,)
        )
        self.pool = self._new_pool()
        self.process: Any = None  # from its first stack on
        self.entry: tuple[int, Stack] | None = None
        self.future: Future[StackOutcome] = Future()

    def start(self, entry: tuple[int, Stack]) -> None:
        """Start a stack in the worker's process."""
        self.entry = entry
        with _interrupt_delayed():
            # Pickled here: a pool would pass the tensors of a task through shared memory, whose server
            # thread prints a traceback when a worker dies or Ctrl-C comes.
            task = (entry[0], pickle.dumps(entry[1]))
            try:
                self.future = self.pool.submit(run_in_worker, *task)
            except BrokenProcessPool:  # its process died while idle, and the pool's own thread noticed first
                self.pool = self._new_pool()
                self.future = self.pool.submit(run_in_worker, *task)
            (self.process,) = self.pool._processes.values()

    def outcome(self, stack: Stack) -> StackOutcome:
        """Return a stack's outcome once its future is done."""
        try:
            return self.future.result()
        except BrokenProcessPool:
            why = _describe_exit(_exit_code(self.process))
            with suppress(OSError), log_path(stack).open("a", encoding="utf-8") as log:
                print(why, file=log)
        except Exception as error:  # such as a log that cannot be written
            why = " ".join(f"{type(error).__name__}: {error}".split())
        return StackOutcome([], [], [], why)

    def kill(self) -> None:
        """Kill the process at once."""
        for process in list((self.pool._processes or {}).values()):
            process.kill()

    def end(self) -> None:
        """Let the process finish its stack, then end it."""
        self.pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupt_delayed() -> Iterator[None]:
    """Delay Ctrl-C to the end of a block in which a process starts.

    A pool that has half started a process cannot be shut down, and a process interrupted during its imports
    prints a traceback.
    """
    received: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits the mask
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        raise KeyboardInterrupt


def _exit_code(process: BaseProcess) -> int | None:
    """Return the exit code of a process that has ended, or None where it cannot be learnt.

    The pool's own thread waits for the process too; whichever comes second sees the code a moment later.
    """
    process.join()
    for _ in range(100):
        if process.exitcode is not None:
            break
        time.sleep(0.01)
    return process.exitcode


def _describe_exit(exitcode: int | None) -> str:
    """Say in words how a process ended."""
    if exitcode == -signal.SIGKILL:
        return "its process was killed (SIGKILL): by hand, or by the system for want of memory"
    if exitcode is not None and exitcode < 0:
        return f"its process was ended by {signal.Signals(-exitcode).name}"
    return f"its process ended with exit code {exitcode}"


def _run_in_processes(queue: _Queue, processes: int) -> None:
    context = multiprocessing.get_context("spawn")
    # Plain shared memory, not a queue: a worker killed while holding a queue's lock would silence the others.
    progress_array = context.RawArray("d", [math.nan] * (2 * len(queue.waiting)))
    workers = [_Worker(context, progress_array) for _ in range(processes)]
    try:
        while queue.waiting or any(worker.entry for worker in workers):
            workers = [_collect(queue, worker) or _Worker(context, progress_array) for worker in workers]
            for worker in workers:
                if not worker.entry and (entry := queue.next()):
                    worker.start(entry)
            futures = {worker.entry[0]: worker.future for worker in workers if worker.entry}
            if futures:
                wait(futures.values(), POLL_SECONDS, FIRST_COMPLETED)
            else:  # another command holds all that is left
                time.sleep(POLL_SECONDS)
            for index in futures:
                queue.progress.update(index, *progress_array[2 * index : 2 * index + 2])
    except BaseException:
        for worker in workers:  # all before any is waited for: a second Ctrl-C must leave none running
            worker.kill()
        raise
    finally:
        for worker in workers:
            worker.end()


def _collect(queue: _Queue, worker: _Worker) -> _Worker | None:
    """Record a worker's stack if it is done. Return the worker, or None where its process has died."""
    if worker.entry:
        if not worker.future.done():
            return worker
        entry, worker.entry = worker.entry, None
        queue.record(*entry, worker.outcome(entry[1]))
    if worker.process is None or worker.process.is_alive():
        return worker
    worker.end()
    return None
