"""Train one stack: lock its runs, train those that are missing, report the outcome.

Worker processes import this module and what it needs to train, nothing that draws or prints tables.
"""

from __future__ import annotations

import faulthandler
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.config.identity import run_key
from toyqs.evidence.rows import is_complete
from toyqs.experiment import checkpoint
from toyqs.experiment.stack import run_stack
from toyqs.sweep.locks import acquire, is_held
from toyqs.sweep.plan import Stack
from toyqs.training import distributed

LOG = (
    "log.txt"  # in the folder of a stack's first run: what its worker printed, and the traceback of a failure
)


class StackOutcome(NamedTuple):
    """The outcome of each of a stack's seeds; those in no list failed."""

    done: list[int]
    complete: list[int]  # were finished already, or meanwhile by another command
    elsewhere: list[int]  # another command is training them
    failure: str | None = None


def is_settled(runs_dir: Path | str, key: str) -> bool:
    """Tell whether a run is complete and its worker has tidied up: no owner.json and no empty log remain."""
    folder = Path(runs_dir) / key
    return is_complete(runs_dir, key) and not is_held(folder) and not _is_empty(folder / LOG)


def _is_empty(log: Path) -> bool:
    """Tell whether a log exists and has no text; its worker may remove it at any moment."""
    with suppress(FileNotFoundError):
        return not log.stat().st_size
    return False


def log_path(stack: Stack) -> Path:
    """Return the path of a stack's log, in the folder of its first run."""
    return Path(stack.config.runs_dir) / run_key(stack.config, stack.seeds[0]) / LOG


def train_stack(stack: Stack, report: Callable[[float, float | None], None]) -> StackOutcome:
    """Train those of a stack's runs that are neither complete nor locked by another command.

    Args:
        stack: one configuration, several seeds.
        report: called now and then with the work done so far, and with the held-out NLL where it was just
            measured.
    """
    config, every = stack.config, max(1, stack.config.max_steps // 200)
    done: list[int] = []
    complete: list[int] = []
    elsewhere: list[int] = []

    def progress(step: int, loss: float | None) -> None:
        if loss is not None or step % every == 0:
            report(stack.work * step / config.max_steps, loss)

    try:
        with ExitStack() as locks:
            for seed in stack.seeds:
                key = run_key(config, seed)
                lock = acquire(Path(config.runs_dir) / key)
                if lock is None:
                    elsewhere.append(seed)
                    continue
                locks.enter_context(lock)
                (complete if not config.force and is_complete(config.runs_dir, key) else done).append(seed)
            for seed in complete:  # a process killed right after writing the row leaves its checkpoint
                checkpoint.remove(Path(config.runs_dir) / run_key(config, seed))
            for seeds in checkpoint.by_progress(config, done):
                distributed.broadcast_job(config.device, config, seeds)
                run_stack(config, seeds, stack.cost, progress)
    except KeyboardInterrupt:
        distributed.is_first_to_fail()  # notes the failure, so that the other ranks are not waited for
        raise
    except BaseException as error:  # also SystemExit, which would end more than this stack
        if not distributed.is_first_to_fail():
            os._exit(1)  # another rank has printed why
        traceback.print_exc()
        return StackOutcome([], complete, elsewhere, one_line(error))
    return StackOutcome(done, complete, elsewhere)


def one_line(error: BaseException) -> str:
    """Return an error's type and message in one line, with the file and the line that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{message} ({Path(where.filename).name}:{where.lineno})"


_progress_array: Any = None  # set in a worker process; shared with the parent, see `initialise_worker`


def initialise_worker(progress_array: Any) -> None:
    """Prepare a new worker process.

    Args:
        progress_array: two numbers per stack, work done and held-out NLL, shared with the parent.
    """
    global _progress_array  # noqa: PLW0603, an initializer can hand a value to later tasks in no other way
    _progress_array = progress_array
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent dies: a killed parent stops no worker, which would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_in_worker(index: int, pickled: bytes) -> StackOutcome:
    """Train a pickled stack in a worker process, sending all that is printed to the stack's log.

    Args:
        index: the stack's number; its progress goes to elements 2 · index and 2 · index + 1 of the array.
        pickled: the stack.
    """
    stack: Stack = pickle.loads(pickled)

    def report(work: float, loss: float | None) -> None:
        _progress_array[2 * index : 2 * index + 2] = work, math.nan if loss is None else loss

    path = log_path(stack)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    faulthandler.enable()
    outcome = train_stack(stack, report)
    sys.stdout.flush()
    with suppress(FileNotFoundError):  # another command that found the same runs may have removed it
        if not outcome.elsewhere and not path.stat().st_size:
            path.unlink()
    return outcome
