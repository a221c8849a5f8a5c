"""The line that says which runs a command was asked about: where they are, their arm, seeds and task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toyqs.config.finished_run import VOCABULARY, columns_of
from toyqs.evidence.runs import arms_of
from toyqs.evidence.tables.thoughts import wrapped_line
from toyqs.evidence.text import spans, task_words
from toyqs.files import visible


def heading(folders: Sequence[str], after: str = "") -> list[str]:
    """Return the lines that say which runs these are: "runs/KEY, pause, seed 0: rev_prog p=6 …".

    Args:
        folders: of finished runs that differ in their seed alone.
        after: words after where they are.

    Raises:
        ValueError: as `columns_of` and `arms_of`.
    """
    columns = columns_of(folders[0])
    columns.pop(VOCABULARY, None)
    return wrapped_line(f"{_named(folders, after)}: {task_words(columns)}")


def against(folders: Sequence[str]) -> list[str]:
    """Return the lines that say which runs others are compared with, of the same task; as `heading`."""
    return wrapped_line(f"against {_named(folders)}")


def of_first_token(folder: str) -> list[str]:
    """Return the line that says of which of several tokens ahead a measure is; none where there is one."""
    columns = columns_of(folder)
    number, joint = columns.get("n_tokens_ahead", 1), columns.get("ahead") == "joint"
    if number == 1:
        return []
    row = ", where the row is judged by the loss of all of them together" if joint else ""
    return wrapped_line(f"of the {number} tokens ahead this is about the first alone{row}")


def _named(folders: Sequence[str], after: str = "") -> str:
    seeds = spans(columns_of(folder)["seed"] for folder in folders)
    parents, where = {Path(folder).parent for folder in folders}, folders[0]
    if len(folders) > 1:
        where = f"{len(folders)} runs" + (f" in {parents.pop()}" if len(parents) == 1 else "")
    words = [where + after, *_arm(folders[0]), f"seed{'s' * (len(folders) > 1)} {seeds}"]
    return visible(", ".join(words))


def _arm(folder: str) -> list[str]:
    """Return the arm that a run is, with others that it is as well; nothing where no sweep knows it."""
    first, *others = arms_of(Path(folder)) or [""]
    return [f"{first} (also {', '.join(others)})" if others else first] if first else []
