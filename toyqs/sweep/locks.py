"""One writer per run: a lock on its folder, which the system itself drops when the owner dies."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from toyqs.files import read_json, write_json


class RunLock:
    """The right to write a run's folder, from `claim`; released at the end of a `with` block.

    The lock is the kernel's (flock on the file .lock), so that no death of its owner, kill -9 or a lost
    machine's power, leaves it behind, and nobody has to guess whether a lock is stale. owner.json beside
    it only tells people who is at work.
    """

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self._owner, self._lock = folder / "owner.json", lock
        host, since = socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(self._owner, {"host": host, "pid": os.getpid(), "since": since, "command": sys.argv})

    def __enter__(self) -> RunLock:
        """The claim itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write."""
        self._owner.unlink(missing_ok=True)
        self._lock.release()


def acquire(folder: Path) -> RunLock | None:
    """Claim a run's folder, which is made where there is none; None where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return RunLock(folder, lock)


def is_held(folder: Path) -> bool:
    """Whether a process is at a run's folder, or has died there."""
    return (folder / "owner.json").exists()


def owner_of(folder: Path) -> str:
    """Who holds a run's folder, in words."""
    try:
        owner: dict[str, Any] = read_json(folder / "owner.json")
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):  # between two owners
        return "another process"
