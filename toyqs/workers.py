"""Stacks of runs on the cores at hand: worker processes, progress, and what went wrong.

A worker imports this file and what it needs to train, nothing that draws or prints.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.config import RunConfig
from toyqs.cost import Cost
from toyqs.experiment import run_stack
from toyqs.tracking import Progress

STEP_SECONDS = 2e-3  # what a step takes beside its arithmetic
FLOPS_PER_SECOND = 1e10


class Arm(NamedTuple):
    """One stack of runs to do."""

    name: str
    config: RunConfig
    seeds: list[int]
    cost: Cost

    @property
    def work(self) -> float:
        """Rough seconds: they only order the arms and weigh the progress bar."""
        flops = self.cost.flops_per_step * len(self.seeds)
        return self.config.max_steps * (STEP_SECONDS + flops / FLOPS_PER_SECOND)


def run_all(arms: list[Arm], processes: int | None) -> dict[str, str]:
    """Run every arm; a failing one stops no other.

    Args:
        arms: in the order in which they start.
        processes: at most so many at once; None: one per core, or one on a GPU.

    Returns:
        Name -> what went wrong, for the arms that failed.
    """
    progress = Progress(sum(arm.work for arm in arms), enabled=bool(arms))
    on_gpu = any(arm.config.device == "cuda" for arm in arms)
    workers = min(len(arms), processes or (1 if on_gpu else len(os.sched_getaffinity(0))))
    try:
        return _in_processes(arms, workers, progress) if workers > 1 else _in_turn(arms, progress)
    finally:
        progress.close()


def _in_turn(arms: list[Arm], progress: Progress) -> dict[str, str]:
    failures = {}
    for arm in arms:
        failure = _attempt(arm, partial(progress.update, arm.name))
        if failure:
            failures[arm.name] = failure
    return failures


Update = tuple[str, float, float | None]
_updates: Any = None  # in a worker process: the queue to the parent


def _connect(updates: Any) -> None:
    global _updates  # noqa: PLW0603, the one thing a worker process is given at its start
    _updates = updates
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would train on and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work_on(arm: Arm) -> str | None:
    return _attempt(arm, lambda done, loss: _updates.put((arm.name, done, loss)))


def _attempt(arm: Arm, tell: Callable[[float, float | None], None]) -> str | None:
    """Run an arm; what went wrong in a line, None if nothing did."""
    every = max(1, arm.config.max_steps // 200)

    def progress(step: int, loss: float | None) -> None:
        if loss is not None or step % every == 0:
            tell(arm.work * step / arm.config.max_steps, loss)

    try:
        run_stack(arm.config, arm.seeds, arm.cost, progress)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return None


def _in_processes(arms: list[Arm], workers: int, progress: Progress) -> dict[str, str]:
    context = multiprocessing.get_context("spawn")
    updates = context.Queue()
    pool = ProcessPoolExecutor(workers, context, initializer=_connect, initargs=(updates,))
    try:
        futures = {arm.name: pool.submit(_work_on, arm) for arm in arms}
        while not all(future.done() for future in futures.values()):
            try:
                progress.update(*updates.get(timeout=0.2))
            except queue.Empty:
                continue
        outcomes = {name: _outcome(future) for name, future in futures.items()}
        return {name: failure for name, failure in outcomes.items() if failure}
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return "its worker process was killed, or ran out of memory"
