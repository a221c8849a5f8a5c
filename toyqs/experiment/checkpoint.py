"""The file with the state of an unfinished training: written by one process, resumed by the next."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.files import temporary_of

NAME = "checkpoint.pt"

# One seed's state. This module reads its "step" and its "log_size", the bytes of metrics.jsonl by then.
SavedState = dict[str, Any]


def write(folder: Path, state: SavedState) -> None:
    """Write a state so that a reader finds either all of it or the one before it, even after a crash.

    Args:
        folder: of the run.
        state: tensors, numbers, strings, and lists and dictionaries of them.
    """
    temporary = temporary_of(folder / NAME)
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / NAME)
    finally:
        temporary.unlink(missing_ok=True)


def read(folder: Path) -> SavedState | None:
    """Read a run's last checkpoint onto the CPU; return None where none is readable and fits the log."""
    try:
        state: SavedState = torch.load(folder / NAME, map_location="cpu", weights_only=True)
        return state if (folder / "metrics.jsonl").stat().st_size >= state["log_size"] else None
    except FileNotFoundError:
        return None
    except Exception as error:  # torch.load raises all kinds of errors on a damaged file
        why = " ".join(str(error).split())[:100]
        print(f"toyqs: {folder / NAME} cannot be read, the run starts again: {why}", file=sys.stderr)
        return None


def remove(folder: Path) -> None:
    """Remove a run's checkpoint if it has one."""
    (folder / NAME).unlink(missing_ok=True)


def by_progress(config: RunConfig, seeds: Sequence[int]) -> list[list[int]]:
    """Group the seeds that are at the same step, so that each group can be trained side by side.

    A stack writes its seeds' checkpoints one after another; a kill in between leaves them at different steps.
    """
    groups: dict[int, list[int]] = {}
    for seed in seeds:
        saved = read(Path(config.runs_dir) / run_key(config, seed))
        groups.setdefault(saved["step"] if saved else 0, []).append(seed)
    return list(groups.values())
