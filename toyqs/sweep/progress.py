"""The live line of a command: counts of runs, the time left, the loss so far."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Sequence

from tqdm import tqdm

from toyqs.evidence.text import short
from toyqs.sweep.plan import Stack

# Its own is a semaphore as well, of whose leak Python 3.14 warns where the command is killed.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0  # a thread that repaints: a process with threads cannot be copied safely

PLAIN_LINE_SECONDS = 10
FIRST_SHARE = 0.02  # of the work, before which imports and first calls dominate and no time is estimated
LAST_SHARE = 0.999  # of the work, all of which is training; evaluations and records come after it


class Progress:
    """A bar on a terminal, elsewhere a plain line now and then.

    For a single cell the line also shows the latest held-out loss of the arm `thinking`, and its gain over
    `zero_length` so far.

    Args:
        stacks: those to be trained.
        skipped: number of runs that are finished already.
    """

    def __init__(self, stacks: Sequence[Stack], skipped: int) -> None:
        self._total = max(sum(stack.work for stack in stacks), 1e-9)
        self._work: dict[int, float] = {}
        self._running: dict[int, Stack] = {}
        self._queued: set[int] = set()  # those of the running that wait for a machine
        self._loss: dict[str, float] = {}
        self._one_cell = len({stack.label for stack in stacks}) == 1
        self._runs = skipped + sum(len(stack.seeds) for stack in stacks)
        self._finished, self._failed, self._skipped = 0, 0, skipped
        self._started = self._printed = time.monotonic()
        self._said: set[str] = set()
        terminal = bool(stacks) and sys.stderr.isatty()
        self._plain = bool(stacks) and not terminal
        form = "{percentage:3.0f}% |{bar}| {elapsed} elapsed{postfix}"
        self._bar = tqdm(
            total=self._total, bar_format=form, disable=not terminal, file=sys.stderr, miniters=0
        )

    def start(self, index: int, stack: Stack) -> None:
        """Count a stack, known by its number from now on, as running."""
        self._running[index] = stack
        self._show()

    def queue(self, index: int, *, waits: bool) -> None:
        """Count a stack as waiting for a machine, or as training."""
        (self._queued.add if waits else self._queued.discard)(index)

    def update(self, index: int, work: float, loss: float | None) -> None:
        """Take in how far a stack is.

        Args:
            index: its number.
            work: done so far; NaN where it is not known.
            loss: its latest held-out NLL; None or NaN where it is not known.
        """
        if not math.isnan(work):
            self._work[index] = work
        if loss is not None and not math.isnan(loss):
            self._loss[self._running[index].arm] = loss
        self._show()

    def finish(self, index: int, done: int, skipped: int, failed: int) -> None:
        """Count a stack as ended, and its runs by their outcome."""
        self._work[index] = self._running.pop(index).work
        self._queued.discard(index)
        self._finished += done
        self._skipped += skipped
        self._failed += failed
        self._show()

    def say(self, text: str) -> None:
        """Print a line above the live one; equal lines, as each process has of a tracker, once."""
        if text not in self._said:
            self._said.add(text)
            tqdm.write(f"toyqs: {text}", file=sys.stderr)

    def close(self) -> None:
        """Leave the last line standing and print no more."""
        self._plain = False
        self._bar.close()

    def line(self) -> str:
        """Write the counts of runs that are not 0, the time left and, for a single cell, the loss."""
        sizes = {index: len(stack.seeds) for index, stack in self._running.items()}
        queued = sum(sizes[index] for index in self._queued)
        running = sum(sizes.values()) - queued
        done = self._finished + self._skipped
        counts = [f"{done} of {self._runs} runs finished"]
        counts += [
            f"{n} {word}"
            for n, word in ((running, "training"), (queued, "queued"), (self._failed, "failed"))
            if n
        ]
        parts = [", ".join(counts), *([left] if (left := self._left()) else [])]
        thinking, zero = self._loss.get("thinking"), self._loss.get("zero_length")
        if self._one_cell and thinking is not None:
            gain = "" if zero is None else f", gain over zero_length so far {short(zero - thinking, '+.3f')}"
            parts.append(f"held-out loss {short(thinking, '.3f')}{gain}")
        return "; ".join(parts)

    def _left(self) -> str:
        done = sum(self._work.values())
        if done < FIRST_SHARE * self._total:
            return ""
        if self._running and done > LAST_SHARE * self._total:
            return "evaluating at the end"
        # the mean speed, not a recent one: a unit of work takes longer in some stacks than in others
        seconds = (time.monotonic() - self._started) * max(0.0, self._total / done - 1)
        return f"about {tqdm.format_interval(seconds)} left"

    def _show(self) -> None:
        done = min(sum(self._work.values()), self._total)
        self._bar.set_postfix_str(self.line(), refresh=False)
        self._bar.update(done - self._bar.n)
        now = time.monotonic()
        if self._plain and now - self._printed >= PLAIN_LINE_SECONDS:
            self._printed = now
            print(f"{100 * done / self._total:3.0f}%: {self.line()}", file=sys.stderr, flush=True)
