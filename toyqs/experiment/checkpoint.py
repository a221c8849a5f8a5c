"""The file with the state of an unfinished training: written by one process, resumed by the next."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.experiment.tracking import Say, say_on_stderr
from toyqs.files import fingerprint, replacing

NAME, LOG = "checkpoint.pt", "metrics.jsonl"
CURVE = ("sums", "counts", "snr")  # the parts of a learning curve's state

# One seed's state. This module reads its "step" and its "log_size", the bytes of metrics.jsonl by then, and
# adds "log", by which it notices that these bytes have changed.
SavedState = dict[str, Any]


class Unusable(ValueError):
    """A checkpoint from which a training cannot continue; the message says why."""


def write(folder: Path, state: SavedState) -> None:
    """Write a state so that a reader finds either all of it or the one before it, even after a crash.

    Args:
        folder: of the run; its metrics.jsonl is on the disk.
        state: tensors, numbers, strings, and lists and dictionaries of them.
    """
    log = {"log": fingerprint(folder / LOG, state["log_size"])}
    with replacing(folder / NAME) as temporary:
        torch.save(state | log, temporary)


def read(folder: Path, say: Say = say_on_stderr) -> SavedState | None:
    """Read a run's last checkpoint onto the CPU; return None where there is none.

    One that is damaged, or whose curve is, is removed, and a line says so.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return _verified(path)
    except Exception as error:  # torch.load raises all kinds of errors on a damaged file
        begin_anew([folder], error, say)
        return None


def _verified(path: Path) -> SavedState:
    with zipfile.ZipFile(path) as file:  # torch.load does not look at the checksums
        if (part := file.testzip()) is not None:
            raise Unusable(f"its part {part} is damaged")
    state: SavedState = torch.load(path, map_location="cpu", weights_only=True)
    log = path.with_name(LOG)
    if not log.exists() or fingerprint(log, state["log_size"]) != state["log"]:
        raise Unusable(f"{LOG} beside it is damaged")
    int(state["step"])
    if lacking := [name for name in CURVE if name not in state["curve"]]:  # every rank must find it here
        raise Unusable(f"it lacks the curve's {lacking[0]}")
    return state


def begin_anew(folders: Sequence[Path], error: Exception, say: Say) -> None:
    """Remove the checkpoints of runs that cannot continue from them, and say why."""
    why = " ".join(str(error).split())[:100] or type(error).__name__
    for folder in folders:
        say(f"{folder / NAME} cannot be used, the run begins anew: {why}")
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a run's checkpoint if it has one."""
    (folder / NAME).unlink(missing_ok=True)


def by_progress(config: RunConfig, seeds: Sequence[int], say: Say = say_on_stderr) -> list[list[int]]:
    """Group the seeds that are at the same step, so that each group can be trained side by side.

    A stack writes its seeds' checkpoints one after another; a kill in between leaves them at different steps.
    """
    groups: dict[int, list[int]] = {}
    for seed in seeds:
        saved = read(Path(config.runs_dir) / run_key(config, seed), say)
        groups.setdefault(saved["step"] if saved else 0, []).append(seed)
    return list(groups.values())
