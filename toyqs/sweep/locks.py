"""One writer per run: a lock on its folder, which the system releases when the owner dies."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from toyqs.evidence.states import OWNER
from toyqs.files import make_folder, write_json


class RunLock:
    """An acquired lock on a run's folder, released at the end of a `with` block.

    The lock is the kernel's (flock on the file .lock): it cannot outlive its owner, whether that is killed or
    the machine loses power, so nobody has to guess whether a lock is stale. owner.json, next to it, only
    tells people who holds the lock.
    """

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self._owner, self._lock = folder / OWNER, lock
        host, since = socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(self._owner, {"host": host, "pid": os.getpid(), "since": since, "command": sys.argv})

    def __enter__(self) -> RunLock:
        """Return the lock."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._owner.unlink(missing_ok=True)
        self._lock.release()


def acquire(folder: Path) -> RunLock | None:
    """Lock a run's folder, making it if need be; return None where another process holds the lock."""
    make_folder(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return RunLock(folder, lock)


def is_held(folder: Path) -> bool:
    """Tell whether a process holds a run's folder, or died while it held it."""
    return (folder / OWNER).exists()
