"""The interface of what trains stacks: this machine's cores, or a cluster's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from toyqs.sweep.plan import Stack

Entry = tuple[int, Stack]  # a stack and its number, by which all that becomes of it is told

# Takes a stack's number, a word and a value:
#   "progress"  [work done so far, latest held-out NLL]; the first is NaN and the second None where not known
#   "say"       a line for the user
#   "queued"    whether it waits for a machine
#   "outcome"   a StackOutcome, or its fields; the last that is told of a stack
Tell = Callable[[int, str, Any], None]


class Executor(ABC):
    """Trains the stacks that it is given, and tells what becomes of them.

    A stack is started once and ends with one outcome, also where its process dies. The scheduler alone
    decides what is tried again.
    """

    tell: Tell  # set by the scheduler before anything starts; called within `start` and `wait` alone
    retry_seconds = 2.0  # before a run that another command holds is tried again
    ends_at_failure = False  # the first failure ends the command

    @abstractmethod
    def free(self) -> int:
        """Return how many more stacks may be started now."""

    @abstractmethod
    def start(self, entries: Sequence[Entry]) -> None:
        """Start stacks, at most as many as are free."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Tell what has become of the stacks, after waiting for news for at most so long."""

    def stop(self) -> None:  # noqa: B027, the default is to do nothing
        """Give up what is running, for the command is stopped: at once, and without waiting."""

    def close(self) -> None:  # noqa: B027
        """Release what the executor holds; nothing is started afterwards."""
