"""What looks at an evaluation while it is made."""

from __future__ import annotations

from typing import Protocol

from toyqs.training.hard_positions import PositionSelection
from toyqs.types import Batch, Trace


class Watcher(Protocol):
    """Looks at what an evaluation sees, part by part, and changes nothing."""

    def begin(self) -> None:
        """Forget what was seen: the evaluation begins, or begins again in smaller parts."""
        ...

    def see(
        self, start: int, whole: Batch, batch: Batch, selection: PositionSelection | None, trace: Trace
    ) -> None:
        """Look at the sequences from a number `start` on.

        Args:
            start: the first of them.
            whole: at all positions.
            batch: at the thinking positions.
            selection: of these, where the model makes one.
            trace: of the thoughts that were sampled.
        """
        ...

    def see_other(self, metric: str, trace: Trace) -> None:
        """Look at another prediction of the same sequences, the one that a metric measures."""
        ...


class Watchers:
    """Several that look at one evaluation."""

    def __init__(self, *each: Watcher | None) -> None:
        """Take those that are there."""
        self.each = [watcher for watcher in each if watcher is not None]

    def begin(self) -> None:
        """Let all forget what was seen."""
        for watcher in self.each:
            watcher.begin()

    def see(
        self, start: int, whole: Batch, batch: Batch, selection: PositionSelection | None, trace: Trace
    ) -> None:
        """Let all look at some sequences; see `Watcher.see`."""
        for watcher in self.each:
            watcher.see(start, whole, batch, selection, trace)

    def see_other(self, metric: str, trace: Trace) -> None:
        """Let all look at another prediction; see `Watcher.see_other`."""
        for watcher in self.each:
            watcher.see_other(metric, trace)
