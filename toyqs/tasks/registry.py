"""The tasks that task=NAME may name: every class of this folder and those in it that has a name."""

from __future__ import annotations

from toyqs.files import named_classes
from toyqs.tasks.task import Task


def registry() -> dict[str, type[Task]]:
    """Return name -> class, for every task in a file of this folder or of one in it; see `named_classes`."""
    return named_classes(Task)
