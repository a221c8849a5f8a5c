"""Train one stack: lock its runs, train those that are missing, report the outcome.

Worker processes import this module and what it needs to train, nothing that draws or prints tables.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.config.builders.cost import count_cost
from toyqs.config.errors import Refusal
from toyqs.config.identity import run_key
from toyqs.config.plain import from_plain, to_plain
from toyqs.config.plugins import load
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import is_complete
from toyqs.evidence.states import ENDED, LOG
from toyqs.experiment import checkpoint
from toyqs.experiment.stack import run_stack
from toyqs.experiment.trial import attempt
from toyqs.files import make_folder
from toyqs.sweep import starting
from toyqs.sweep.locks import acquire, is_held
from toyqs.sweep.plan import Stack
from toyqs.training import distributed

NOT_BEGUN = f"{ENDED}could not begin: "  # begins a failure that the worker could not note in the stack's log


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


def train_stack(
    stack: Stack,
    report: Callable[[float, float | None], None],
    say: checkpoint.Say = checkpoint.say_on_stderr,
) -> StackOutcome:
    """Train those of a stack's runs that are neither complete nor locked by another command.

    Args:
        stack: one configuration, several seeds.
        report: called now and then with the work done so far, and with the held-out NLL where it was just
            measured.
        say: prints a line for the user.
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
            for seeds in checkpoint.by_progress(config, done, say):
                distributed.broadcast_job(config.device, {"config": to_plain(config), "seeds": seeds})
                run_stack(config, seeds, stack.cost, progress, say, stack.place)
            for seed in (*complete, *done):
                _tidy(Path(config.runs_dir) / run_key(config, seed))
    except KeyboardInterrupt:
        distributed.is_first_to_fail()  # notes the failure, so that the other ranks are not waited for
        raise
    except BaseException as error:  # also SystemExit, which would end more than this stack
        if not distributed.is_first_to_fail():
            os._exit(1)  # another rank has printed why
        with suppress(OSError), log_path(stack).open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        return StackOutcome([], complete, elsewhere, one_line(error, config))
    return StackOutcome(done, complete, elsewhere)


def record_death(stack: Stack, why: str) -> StackOutcome:
    """Return the outcome of a stack whose process died, and note the reason in its log.

    Args:
        stack: that it trained.
        why: in one line.
    """
    with suppress(OSError):
        path = log_path(stack)
        make_folder(path.parent)
        with path.open("a", encoding="utf-8") as log:
            print(why, file=log)
    return StackOutcome([], [], [], why)


def _tidy(folder: Path) -> None:
    """Remove from a finished run's folder the log of an earlier failure, and a checkpoint.

    A process killed right after it wrote the row leaves its checkpoint.
    """
    checkpoint.remove(folder)
    with suppress(OSError):  # such as a folder of that name
        (folder / LOG).unlink()


def one_line(error: BaseException, config: RunConfig | None = None) -> str:
    """Return an error's type and message in one line, with the file and the line that raised it.

    The line is a plug-in's where the error passed through one; else what the run `config` has of plug-ins is
    named after it. A refusal's own line says all.
    """
    refused = isinstance(error, Refusal)
    if line := load.described(error, None if refused else config):
        return line
    if refused:
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{message} ({Path(where.filename).name}:{where.lineno})"


class WorkerProcess:
    """A process of its own that does one job after another; the two ends speak JSON through a pipe.

    There is no queue: a process killed while it holds a queue's lock would silence the others, and a
    semaphore would outlive the command that is killed.
    """

    def __init__(self) -> None:
        context = starting.start_context()
        self.pipe, theirs = context.Pipe()
        register_after_fork(self, lambda worker: worker.pipe.close())  # a copy holds no end of this process
        self.process = context.Process(target=serve, args=(theirs,))
        self.process.start()
        theirs.close()

    def send(self, job: str, value: Any) -> None:
        """Send a job of JOBS; an OSError says that the process has ended."""
        self.pipe.send_bytes(json.dumps([job, value]).encode())

    def receive(self) -> tuple[str, Any]:
        """Wait for the next message, a word and a JSON value; an EOFError says that the process has ended."""
        try:
            kind, value = json.loads(self.pipe.recv_bytes())
        except OSError as error:
            raise EOFError from error
        return kind, value

    def exit_code(self) -> int | None:
        """Wait for the end of the process; return its exit code, or minus the signal that ended it."""
        self.process.join()
        return self.process.exitcode

    def kill(self) -> None:
        """Kill the process at once."""
        self.process.kill()

    def end(self) -> None:
        """Let the process finish its job, then end it."""
        self.pipe.close()
        self.process.join()


Tell = Callable[[str, Any], None]  # sends a message to the parent


def serve(pipe: Connection) -> None:
    """Do the jobs that come through a pipe, until it is closed or the parent dies."""
    gc.freeze()  # a copy's garbage collector skips all objects from before it
    for stop in starting.STOPS:  # they reach all processes of a command; the parent answers them
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(kind: str, value: Any) -> None:
        try:
            pipe.send_bytes(json.dumps([kind, value]).encode())
        except OSError:  # the parent has died
            os._exit(1)

    with suppress(EOFError):
        while True:
            job, value = json.loads(pipe.recv_bytes())
            JOBS[job](value, tell)


def _end_with_parent() -> None:
    """End this process when its parent dies: a killed parent stops no worker, which would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def train(plain: Sequence[Any], tell: Tell) -> None:
    """Train a stack, sending all that is printed to its log; tell its outcome at the end."""
    tell("progress", [0.0, None])
    try:
        stack = Stack.from_plain(plain)
    except Refusal as refusal:  # a plug-in that has changed since the command began
        return tell("outcome", StackOutcome([], [], [], f"{NOT_BEGUN}{refusal}"))
    path = log_path(stack)
    try:
        make_folder(path.parent)
        log = path.open("a+", encoding="utf-8")
    except OSError as error:
        return tell("outcome", StackOutcome([], [], [], f"{NOT_BEGUN}{one_line(error)}"))
    with log:
        start = os.fstat(log.fileno()).st_size
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
        faulthandler.enable()
        outcome = train_stack(
            stack, lambda work, loss: tell("progress", [work, loss]), lambda line: tell("say", line)
        )
        sys.stdout.flush()
        log.seek(start)
        if not path.exists() and (printed := log.read()):  # removed with what was older than this training
            path.write_text(printed, encoding="utf-8")
    tell("outcome", outcome)


def _answers(work: Callable[..., Any]) -> Callable[[Any, Tell], None]:
    """Return the job that does a work with settings and more; an error is told as it is, in one line."""

    def job(given: Sequence[Any], tell: Tell) -> None:
        plain, *others = given
        try:
            tell("answer", work(from_plain(plain), *others))
        except Exception as error:
            tell("failure", " ".join(str(error).split()) or one_line(error))

    return job


JOBS = {"train": train, "count": _answers(count_cost), "try": _answers(attempt)}
