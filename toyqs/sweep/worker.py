"""What a process does with a stack: claim its runs, train what is missing, say what came of it.

Worker processes import this file and what it needs to train, nothing that draws or prints tables.
"""

from __future__ import annotations

import faulthandler
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

LOG = "log.txt"  # in a run's folder: what its worker printed, and why it failed


class StackOutcome(NamedTuple):
    """What became of a stack's seeds; those in no list failed."""

    done: list[int]
    complete: list[int]  # finished before, or meanwhile by another command
    elsewhere: list[int]  # another command is at them
    failure: str | None = None


def is_settled(runs_dir: Path | str, key: str) -> bool:
    """Whether a run is complete, and whoever wrote it did not die before it had tidied up."""
    folder = Path(runs_dir) / key
    return is_complete(runs_dir, key) and not is_held(folder) and not _is_empty(folder / LOG)


def _is_empty(log: Path) -> bool:
    """Whether a log is there with nothing in it; its worker may remove it at any moment."""
    with suppress(FileNotFoundError):
        return not log.stat().st_size
    return False


def log_path(stack: Stack) -> Path:
    """The log of a stack, in the folder of its first run."""
    return Path(stack.config.runs_dir) / run_key(stack.config, stack.seeds[0]) / LOG


def train_stack(stack: Stack, tell: Callable[[float, float | None], None]) -> StackOutcome:
    """Train those of a stack's runs that are neither complete nor in other hands.

    Args:
        stack: one configuration, several seeds.
        tell: called now and then with the work done so far and, where it is known, the held-out NLL.
    """
    config, every = stack.config, max(1, stack.config.max_steps // 200)
    done: list[int] = []
    complete: list[int] = []
    elsewhere: list[int] = []

    def progress(step: int, loss: float | None) -> None:
        if loss is not None or step % every == 0:
            tell(stack.work * step / config.max_steps, loss)

    try:
        with ExitStack() as claims:
            for seed in stack.seeds:
                key = run_key(config, seed)
                held = acquire(Path(config.runs_dir) / key)
                if held is None:
                    elsewhere.append(seed)
                    continue
                claims.enter_context(held)
                (complete if not config.force and is_complete(config.runs_dir, key) else done).append(seed)
            for seed in complete:  # a kill may have come between the row and the end
                checkpoint.remove(Path(config.runs_dir) / run_key(config, seed))
            for seeds in checkpoint.by_progress(config, done):
                distributed.broadcast_job(config.device, config, seeds)
                run_stack(config, seeds, stack.cost, progress)
    except KeyboardInterrupt:
        distributed.is_first_to_fail()  # others that train along are not waited for
        raise
    except BaseException as error:  # sys.exit too: it would end more than this stack
        if not distributed.is_first_to_fail():
            os._exit(1)  # another process has said why
        return StackOutcome([], complete, elsewhere, _in_a_line(error))
    return StackOutcome(done, complete, elsewhere)


def _in_a_line(error: BaseException) -> str:
    traceback.print_exc()
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said} ({Path(where.filename).name}:{where.lineno})"


_told: Any = None  # in a worker process: work done and loss of every stack, shared with the parent


def initialise_worker(progress_array: Any) -> None:
    """Make a new worker process ready.

    Args:
        told: two numbers per stack, work done and held-out NLL, shared with the parent.
    """
    global _told  # noqa: PLW0603, the one thing a worker process is given at its start
    _told = progress_array
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would train on and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_in_worker(index: int, pickled: bytes) -> StackOutcome:
    """`attempt` of a pickled stack in a worker process, with all that is printed there in its log."""
    stack: Stack = pickle.loads(pickled)

    def tell(work: float, loss: float | None) -> None:
        _told[2 * index : 2 * index + 2] = work, float("nan") if loss is None else loss

    path = log_path(stack)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    faulthandler.enable()
    outcome = train_stack(stack, tell)
    sys.stdout.flush()
    with suppress(FileNotFoundError):  # another command at the same runs has tidied up before
        if not outcome.elsewhere and not path.stat().st_size:
            path.unlink()
    return outcome
