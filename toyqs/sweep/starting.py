"""How worker processes start: as copies of the command's own process while that is safe, else afresh.

A process that starts afresh imports torch, which takes longer than many a run. A copy (fork) has all that was
imported, and nothing to undo: see `copies_allowed`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

from toyqs.experiment.torch_state import compute_with_one_thread, sees_gpu

STOPS = (signal.SIGINT, signal.SIGTERM)  # run.py answers the second as the first
AFRESH_SECONDS, COPY_SECONDS = 2.5, 0.1  # of a worker process, before its first stack

_allowed: list[bool] = []


@contextmanager
def copies_allowed() -> Iterator[None]:
    """Let workers start as copies of this process within a block; it is a command's own.

    Enter it before anything is computed. Of anybody else's process, what its owner set or replaced in it
    would be copied as well.
    """
    compute_with_one_thread()
    _allowed.append(True)
    try:
        yield
    finally:
        _allowed.pop()


def start_context() -> Any:
    """Return the way in which processes start.

    As copies where that is allowed and this process has a single thread: of several, a copy has one, and what
    the others held stays locked. Where torch sees a GPU they start afresh: a copy cannot use one that this
    process has asked for anything.
    """
    return multiprocessing.get_context("fork" if _are_copies() else "spawn")


def start_seconds() -> float:
    """Return about how long a worker process takes to start."""
    return COPY_SECONDS if _are_copies() else AFRESH_SECONDS


def _are_copies() -> bool:
    return bool(_allowed) and _num_threads() == 1 and not sees_gpu()


def _num_threads() -> int:
    """Count this process's threads, those of libraries too; 0 where the system does not list them."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


@contextmanager
def stops_delayed() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM to the end of a block in which a process starts.

    One that is half started cannot be ended, and one interrupted during its imports prints a traceback.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may answer them
        yield
        return
    received: list[int] = []
    if start_context().get_start_method() != "fork":
        resource_tracker.ensure_running()  # now, for its start unblocks both signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # a new process inherits the mask
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        raise KeyboardInterrupt
