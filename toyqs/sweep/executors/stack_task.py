"""The part that runs on a cluster's machine: train one stack, and write the news of it into a file."""

from __future__ import annotations

import math
import site
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from toyqs.files import write_json
from toyqs.sweep.plan import Stack
from toyqs.sweep.worker import StackOutcome, log_path, train

WRITE_SECONDS = 5.0  # between two writings of the file while nothing but progress is new
CHECKPOINTS = 20  # of a training that has no `checkpoint_every`


def with_checkpoints(stack: Stack) -> Stack:
    """Return a stack that saves its state now and then, so that a task that starts again can continue."""
    every = stack.config.checkpoint_every or max(1, stack.config.max_steps // CHECKPOINTS)
    return stack._replace(config=replace(stack.config, checkpoint_every=every))


def checkout() -> str | None:
    """Return the folder in which other machines find this code; None where it is installed as a package."""
    source = str(Path(__file__).resolve().parents[3])
    return None if source in (*site.getsitepackages(), site.getusersitepackages()) else source


class StackTask:
    """Trains one stack; in a Slurm job submitit calls it, and `checkpoint` shortly before the job is ended.

    Args:
        plain: of `Stack.to_plain`.
        file: where the news is written: share of the work, held-out NLL, lines for the user, outcome.
        command: words of the command that submitted it, which the runs note.
    """

    def __init__(self, plain: Sequence[Any], file: str, command: Sequence[str]) -> None:
        self.plain, self.file, self.command = plain, file, command
        self.warned = False  # by Slurm, that the job is to end

    def __call__(self) -> None:
        """Train the stack; write what becomes of it."""
        sys.argv = list(self.command)
        self.work = (
            0.0  # of the whole stack; asked for once it trains, for until then its settings may be refused
        )
        self.state: dict[str, Any] = {"share": 0.0, "loss": None, "says": [], "outcome": None}
        self.written = -math.inf
        train(self.plain, self._tell)

    def _tell(self, kind: str, value: Any) -> None:
        due = kind != "progress" or time.monotonic() - self.written >= WRITE_SECONDS
        if kind == "progress":
            work, loss = value
            if work:
                self.work = self.work or Stack.from_plain(self.plain).work
                self.state["share"] = work / self.work
            self.state["loss"] = self.state["loss"] if loss is None else loss
        elif kind == "say":
            self.state["says"].append(value)
        else:
            failure = StackOutcome(*value).failure or ""
            if self.warned and failure.startswith(SystemExit.__name__):  # submitit has queued the job again
                with suppress(OSError):  # else the traceback there would be taken for a failure
                    log_path(Stack.from_plain(self.plain)).unlink()
                sys.exit(1)
            self.state["outcome"] = value
        if due:
            write_json(self.file, self.state)
            self.written = time.monotonic()

    def checkpoint(self) -> Any:
        """Return what the job is to do when it is queued again: the same, from the runs' own checkpoints."""
        from submitit.helpers import DelayedSubmission

        self.warned = True
        return DelayedSubmission(StackTask(self.plain, self.file, self.command))
