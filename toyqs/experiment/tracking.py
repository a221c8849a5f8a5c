"""Record a run's metrics during training, in a file and on request in a tracker, and its environment."""

from __future__ import annotations

import json
import math
import os
import platform
import queue
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from toyqs import __version__
from toyqs.experiment.trackers import Tracker
from toyqs.thought_record import Record

Say = Callable[[str], None]  # prints a line for the user

CLOSE_SECONDS = 30  # that a run waits for its tracker to end

# after one failure the whole process gives up: its other runs would only wait for the same server again
_given_up = threading.Event()


def say_on_stderr(line: str) -> None:
    """Print a line for the user."""
    print(f"toyqs: {line}", file=sys.stderr)


class RunLog:
    """The metrics of one run in metrics.jsonl, one JSON object a line, readable during training.

    A tracker is sent the same numbers, where a metric `x` of kind `k` is called `k/x`: trackers have one name
    per curve. No failure of a tracker stops the run.

    Args:
        folder: the run's, named by its key; it exists. An older metrics.jsonl in it is replaced.
        tracker: None: the file alone.
        keep: bytes of the older file to keep, whole lines; they are sent to the tracker again.
        say: prints a line for the user, where the tracker fails.
    """

    def __init__(
        self, folder: Path | str, tracker: Tracker | None = None, *, keep: int = 0, say: Say = say_on_stderr
    ) -> None:
        path = Path(folder) / "metrics.jsonl"
        self._file = path.open("a", encoding="utf-8")
        self._file.truncate(keep)
        self._say = say
        self._mirror = None if tracker is None or _given_up.is_set() else _Mirror(tracker)
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            self._send(values.pop("step"), values.pop("kind"), values)

    @property
    def size(self) -> int:
        """Return the bytes written so far."""
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._file.fileno())

    def write(self, step: int, kind: str, values: Mapping[str, float | None]) -> None:
        """Append one line and flush it; a number that is not finite becomes null, as JSON has none.

        Args:
            step: training steps done.
            kind: "train" or "held_out".
            values: metrics by name.
        """
        self.write_table(step, kind, [values])
        self._send(step, kind, values)

    def write_table(self, step: int, kind: str, rows: Iterable[Mapping[str, float | None]]) -> None:
        """Append a line for each row of a table, as `write` does; a tracker is not sent them."""
        for row in rows:
            numbers = {name: value if _is_finite(value) else None for name, value in row.items()}
            self._file.write(json.dumps({"step": step, "kind": kind, **numbers}, allow_nan=False) + "\n")
        self._file.flush()

    def _send(self, step: int, kind: str, values: Mapping[str, float | None]) -> None:
        if self._mirror:
            self._mirror.send(step, {f"{kind}/{name}": value for name, value in values.items()})
            self._tell(self._mirror)

    def close(self, row: Mapping[str, Any] | None = None, record: Record | None = None) -> None:
        """Close the file and end the tracker's run, waiting at most CLOSE_SECONDS for it.

        Args:
            row: the run's row, which the tracker shows.
            record: of the run's thoughts, of which the tracker shows some.
        """
        self._file.close()
        if self._mirror:
            self._mirror.close(dict(row or {}), record)
            self._tell(self._mirror)

    def _tell(self, mirror: _Mirror) -> None:
        """Say that the tracker failed, once for the whole process and from its main thread."""
        if mirror.failure is None:
            return
        self._mirror = None
        if not _given_up.is_set():
            _given_up.set()
            self._say(f"{mirror.failure}; continuing without it, the files have all numbers")


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


class _End(NamedTuple):
    """What a tracker is given at the end."""

    row: Mapping[str, Any]
    record: Record | None


class _Mirror:
    """A tracker in a daemon thread of its own, so that nothing in it can stop or delay the training."""

    def __init__(self, tracker: Tracker) -> None:
        self.failure: str | None = None  # in one line
        self._tracker = tracker
        self._records: queue.SimpleQueue[tuple[int, dict[str, float | None]] | _End] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, step: int, values: dict[str, float | None]) -> None:
        """Hand metrics to the thread, while it lives."""
        if self._thread.is_alive():
            self._records.put((step, values))

    def close(self, row: Mapping[str, Any], record: Record | None) -> None:
        """Hand over the run's row and thoughts, and wait a while for the thread to end."""
        self._records.put(_End(row, record))
        if not _given_up.is_set():
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                self.failure = f"{self._tracker.name}: no end within {CLOSE_SECONDS} s"

    def _run(self) -> None:
        try:
            self._tracker.start()
            while not isinstance(record := self._records.get(), _End):
                self._tracker.log(*record)
            self._tracker.finish(*record)
        except BaseException as error:  # wandb turns some errors into KeyboardInterrupt
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            self.failure = f"{self._tracker.name}: {why[:200]}"


def environment() -> dict[str, Any]:
    """Describe a run's environment for its env.json: versions, machine, commit of the source, command line.

    Returns:
        Name -> value; `commit` and `dirty` (tracked files differ from it) are None where the source is not in
        a git checkout.
    """
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", Path(__file__).name) else None
    return {
        "toyqs": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "hydra-core")},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "commit": commit,
        "dirty": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
        "command": shlex.join(sys.argv),
    }


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
