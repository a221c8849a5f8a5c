"""One writer per run: a lock on its folder, which the system releases when the owner dies."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from toyqs.evidence.states import OWNER
from toyqs.files import Refusal, make_folder, temporary_of, write_json


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


# File systems whose locks hold on one machine alone: type -> options by which they do; () for always.
# Those of Lustre hold everywhere where it is mounted with the option flock.
LOCAL_LOCKS = {
    **dict.fromkeys(("nfs", "nfs4"), ("nolock", "local_lock=all", "local_lock=flock")),
    **dict.fromkeys(("9p", "fuse.sshfs", "fuse.s3fs", "vboxsf"), ()),
}


def check_locks(folder: Path | str, mounts: Path = Path("/proc/mounts")) -> str:
    """Try the lock of a folder of runs; return a line on what it does not do, "" where nothing is known.

    Args:
        folder: exists, and can be written to.
        mounts: lists the file systems, as the Linux kernel does.

    Raises:
        Refusal: nothing can be locked there.
    """
    trial = temporary_of(Path(folder) / "trial")
    alone = False
    try:
        with trial.open("x") as first, trial.open() as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(BlockingIOError):
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
    except PermissionError:  # what cannot be written is told of where it matters
        return ""
    except OSError as error:
        why = f"its file system has no locks ({error.strerror}), which keep two processes from one run"
        raise Refusal(f"runs_dir={folder}: {why}; give a folder on another file system") from error
    finally:
        trial.unlink(missing_ok=True)
    kind, options = _mount_of(Path(folder).resolve(), mounts)
    told = set(options) & set(LOCAL_LOCKS.get(kind, ()))
    on_one = kind in LOCAL_LOCKS and (told or not LOCAL_LOCKS[kind])
    if on_one or (kind == "lustre" and "flock" not in options) or alone:
        how = f"{kind}, mounted with {', '.join(sorted(told))}" if told else kind
        reach = f"runs_dir={folder}: locks on this file system ({how}) do not reach other machines"
        return f"{reach}: let only one of them train there, or use hydra/launcher=slurm"
    return ""


def _mount_of(folder: Path, mounts: Path) -> tuple[str, list[str]]:
    """Return the type and the options of the file system that holds a folder."""
    found: tuple[str, str, list[str]] = ("", "", [])
    with suppress(OSError):
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            _, point, kind, options, *_ = line.split(" ")
            point = point.replace("\\040", " ")
            if folder.is_relative_to(point) and len(point) >= len(found[0]):
                found = (point, kind, options.split(","))
    return found[1:]
