"""What a run's folder says of its state: finished, failed and why, or running."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.evidence.rows import row_and_damage
from toyqs.files import read_json, visible
from toyqs.thought_record import NAME as RECORD

SETTINGS = "config.json"  # written when a run begins
OWNER = "owner.json"  # says which process trains a run
LOCK = ".lock"  # which that process has locked
# In the folder of a stack's first run: what its worker printed, and the traceback of a failure.
LOG = "log.txt"
LOG_END = 1 << 16  # bytes of a log in which the last failure is looked for

FINISHED, DIVERGED, NO_RECORD, DAMAGED = "finished", "diverged", "record missing", "damaged"
RUNNING, FAILED, UNFINISHED, NOT_BEGUN = "running", "failed", "unfinished", "not begun"
STATES = (FINISHED, DIVERGED, NO_RECORD, DAMAGED, RUNNING, FAILED, UNFINISHED, NOT_BEGUN)

LONGEST = 300  # letters of a failure
ENDED = "its process "  # begins the line that says how a process ended
FRAME = re.compile(r' +File "(.*)", line (\d+)')  # of a traceback


class State(NamedTuple):
    """The state of a run."""

    word: str  # one of STATES
    why: str = ""  # in one line, where the word does not say all
    row: dict[str, Any] | None = None  # where it can be read


def state_of(run: Path, stack: Iterable[Path] = ()) -> State:
    """Return the state of a run.

    Args:
        run: its folder, which need not exist.
        stack: folders of runs that may have been trained beside it; the log of all is in one of them.
    """
    row, damaged = row_and_damage(run)
    if damaged is not None:
        return _with_row(run, row, damaged)
    if is_locked(run):
        return State(RUNNING, owner_of(run))
    for folder in (run, *stack) if run.is_dir() else ():
        if why := _failure(folder / LOG, run / SETTINGS):
            return State(FAILED, f"{why}; {folder.name}/{LOG}")
    return State(UNFINISHED if (run / SETTINGS).is_file() else NOT_BEGUN)


def _with_row(run: Path, row: dict[str, Any] | None, damaged: list[str]) -> State:
    if damaged == [RECORD] and not (run / RECORD).exists():
        return State(NO_RECORD, f"python -m toyqs.answers record {run} makes it", row)
    if damaged or row is None:
        return State(DAMAGED, ", ".join(damaged), row)
    if row["nll"] is not None:
        return State(FINISHED, row=row)
    step = row.get("diverged_at")
    return State(DIVERGED, "" if step is None else f"at step {step} ({row.get('diverged_parts')})", row)


def is_locked(run: Path) -> bool:
    """Tell whether a process holds the lock on a run's folder."""
    if not (run / OWNER).is_file():
        return False
    with suppress(FileNotFoundError), (run / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def owner_of(run: Path) -> str:
    """Say which process holds a run's folder."""
    try:
        owner = read_json(run / OWNER)
        return visible(f"process {owner['pid']} on {owner['host']}, since {owner['since']}")
    except (OSError, ValueError, KeyError):  # between two owners
        return "another process"


def _failure(log: Path, begun: Path) -> str:
    """Return the last failure that a log tells of; "" if none, or if the run was begun again since.

    Args:
        log: need not exist.
        begun: the file that is written when the run begins; it need not exist.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_END))
            text = file.read().decode("utf-8", "replace")
        if begun.is_file() and begun.stat().st_mtime_ns > log.stat().st_mtime_ns:
            return ""
    except OSError:
        return ""
    return last_failure(text)


def last_failure(text: str) -> str:
    """Return the last failure in a log in one line, with the file and the line that raised it; "" if none.

    Args:
        text: has tracebacks, and lines that say how a process ended.
    """
    message: list[str] = []
    frame, inside = "", False  # of a traceback, before its message
    for line in text.splitlines():
        if line.startswith("Traceback (most recent call last):"):
            message, frame, inside = [], "", True
        elif line.startswith(ENDED):
            message, frame, inside = [line], "", False
        elif inside and (place := FRAME.match(line)):
            frame = f" ({Path(place[1]).name}:{place[2]})"
        elif inside and not line.startswith(" "):
            message, inside = [line], False
        elif message and not message[0].startswith(ENDED):
            message.append(line)
    return visible(" ".join(" ".join(message).split())[:LONGEST] + (frame if message else ""))
