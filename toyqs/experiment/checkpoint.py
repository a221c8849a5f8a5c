"""The state of an unfinished training, in its run's folder: written whole, read by the next process there."""

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

SavedState = dict[
    str, Any
]  # one seed's; "step" and "log_size", the bytes of metrics.jsonl by then, and the rest


def write(folder: Path, state: SavedState) -> None:
    """Write a state so that a reader finds it or the one before it, whatever dies meanwhile.

    Args:
        folder: of the run.
        state: tensors, numbers, words, and lists and dictionaries of them.
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
    """The state of a run's last checkpoint, on the CPU; None where there is none that can be read."""
    try:
        state: SavedState = torch.load(folder / NAME, map_location="cpu", weights_only=True)
        return state if (folder / "metrics.jsonl").stat().st_size >= state["log_size"] else None
    except FileNotFoundError:
        return None
    except Exception as error:  # torch.load raises whatever a damaged file leads it to
        said = " ".join(str(error).split())[:100]
        print(f"toyqs: {folder / NAME} cannot be read, the run begins anew: {said}", file=sys.stderr)
        return None


def remove(folder: Path) -> None:
    """Remove a run's checkpoint, where there is one."""
    (folder / NAME).unlink(missing_ok=True)


def by_progress(config: RunConfig, seeds: Sequence[int]) -> list[list[int]]:
    """The seeds in groups that can be trained side by side: those at the same step.

    Seeds trained side by side write their checkpoints one after another, and a kill may come in between.
    """
    groups: dict[int, list[int]] = {}
    for seed in seeds:
        found = read(Path(config.runs_dir) / run_key(config, seed))
        groups.setdefault(found["step"] if found else 0, []).append(seed)
    return list(groups.values())
