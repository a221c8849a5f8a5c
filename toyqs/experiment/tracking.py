"""Record a run's metrics during training, in a file and on request in wandb, and its environment."""

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
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from toyqs import __version__

WANDB_INIT_SECONDS = 20
WANDB_CLOSE_SECONDS = 30

# after one failure the whole process gives up: its other runs would only wait for the same server again
_wandb_given_up = threading.Event()


class RunLog:
    """The metrics of one run in metrics.jsonl, one JSON object a line, readable during training.

    With wandb_mode "offline" or "online" the same numbers go to a wandb run named by the key, where a metric
    `x` of kind `k` is called `k/x`: wandb has one name per curve. No failure of wandb stops the run.

    Args:
        folder: the run's, named by its key; it exists. An older metrics.jsonl in it is replaced.
        config: the settings that wandb shows.
        wandb_mode: "disabled", "offline" or "online".
        keep: bytes of the older file to keep, whole lines; they are sent to wandb again.
    """

    def __init__(
        self, folder: Path | str, config: Mapping[str, Any], wandb_mode: str = "disabled", *, keep: int = 0
    ) -> None:
        folder = Path(folder)
        path = folder / "metrics.jsonl"
        self._file = path.open("a", encoding="utf-8")
        self._file.truncate(keep)
        mirrored = wandb_mode != "disabled" and not _wandb_given_up.is_set()
        self._mirror = _WandbMirror(folder, dict(config), wandb_mode) if mirrored else None
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
        numbers = {name: value if _is_finite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **numbers}, allow_nan=False) + "\n")
        self._file.flush()
        self._send(step, kind, values)

    def _send(self, step: int, kind: str, values: Mapping[str, float | None]) -> None:
        if self._mirror:
            self._mirror.send({"step": step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def close(self, row: Mapping[str, Any] | None = None) -> None:
        """Close the file and end the wandb run, waiting at most WANDB_CLOSE_SECONDS for wandb.

        Args:
            row: the run's row; wandb shows it as the run's summary.
        """
        self._file.close()
        if self._mirror:
            self._mirror.close(dict(row or {}))


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


class _WandbMirror:
    """A wandb run in a daemon thread of its own, so that nothing in wandb can stop or delay the training."""

    def __init__(self, folder: Path, config: dict[str, Any], mode: str) -> None:
        self._records: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._row: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, args=(folder, config, mode), daemon=True)
        self._thread.start()

    def send(self, record: dict[str, Any]) -> None:
        """Hand a record to the thread, while it lives."""
        if self._thread.is_alive():
            self._records.put(record)

    def close(self, row: dict[str, Any]) -> None:
        """Hand over the run's row and wait a while for the thread to end."""
        self._row = row
        self._records.put(None)
        if not _wandb_given_up.is_set():
            self._thread.join(WANDB_CLOSE_SECONDS)
            if self._thread.is_alive():
                _give_up_wandb(f"no end within {WANDB_CLOSE_SECONDS} s")

    def _run(self, folder: Path, config: dict[str, Any], mode: str) -> None:
        try:
            run = _start_wandb(folder, config, mode)
            while (record := self._records.get()) is not None:
                run.log(record)
            run.summary.update(self._row)
            run.finish()
        except BaseException as error:  # wandb turns some errors into KeyboardInterrupt
            _give_up_wandb(f"{type(error).__name__}: {error}".splitlines()[0])


def _start_wandb(folder: Path, config: dict[str, Any], mode: str) -> Any:
    import wandb

    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("no API key; use `wandb login` or wandb_mode=offline")
    run = wandb.init(
        project="toyqs",
        name=folder.name,
        dir=str(folder),
        config=config,
        mode="online" if mode == "online" else "offline",
        reinit="create_new",  # the seeds of a stack are open at the same time
        settings=wandb.Settings(
            init_timeout=WANDB_INIT_SECONDS, finish_timeout=WANDB_INIT_SECONDS, console="off", silent=True
        ),
    )
    run.define_metric("*", step_metric="step")
    return run


def _give_up_wandb(reason: str) -> None:
    if not _wandb_given_up.is_set():
        _wandb_given_up.set()
        print(f"wandb: {reason[:200]}; continuing without it; the files have all numbers", file=sys.stderr)


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
