"""Rows on disk: write, load."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd


def write_text(path: Path | str, text: str) -> None:
    """Write text so that a reader sees the whole file or none; an older file there is replaced."""
    path = Path(path)
    temporary = temporary_of(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Where this process may write a file before it takes its place; what a killed one left there goes."""
    for left in path.parent.glob(f".{path.name}.*"):
        number = left.name.rpartition(".")[2]
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_json(path: Path | str, value: object) -> None:
    """Write standard JSON as `write_text` does; a number that is not finite becomes null: JSON has none."""
    write_text(path, json.dumps(_finite(value), allow_nan=False, indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_rows(folder: Path | str, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """Every complete run below a folder, one row each, in the order of their keys.

    Rows made by several commits or results versions are loaded together and a warning says so.

    Args:
        folder: holds one folder per run, named by the run's key.
        keys: only these runs; None: all.

    Returns:
        One column per name in the summaries; empty where no run is complete.
        `frame.attrs["unfinished"]` lists the keys of runs begun but without a row.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a summary.json is not a JSON object.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of runs; give the runs_dir that a run wrote to")
    rows, unfinished = [], []
    for run in sorted(folder.iterdir() if keys is None else {folder / key for key in keys}):
        try:
            text = (run / "summary.json").read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            if (run / "config.json").is_file():
                unfinished.append(run.name)
            continue
        rows.append(_json_object(text, f"{run / 'summary.json'}"))
    frame = pd.DataFrame(rows)
    frame.attrs["unfinished"] = unfinished
    for column, noun in (("commit", "commits"), ("results_version", "results versions")):
        if column in frame and (count := frame[column].nunique(dropna=False)) > 1:
            message = f"{folder}: rows from {count} {noun}; column {column!r} tells them apart"
            warnings.warn(message, stacklevel=2)
    return frame


def load_curve(folder: Path | str, key: str) -> pd.DataFrame:
    """What one run measured while it trained, one row per line of its metrics.jsonl.

    A last line that an interruption cut short is left out.

    Args:
        folder: the folder of runs.
        key: the run's key, the name of its folder.

    Returns:
        Columns `step`, `kind` ("train" or "held_out") and the metrics, NaN where a line has none.

    Raises:
        FileNotFoundError: the run has no metrics.jsonl.
        ValueError: a line before the last is not a JSON object.
    """
    rows = _read_curve(Path(folder) / key / "metrics.jsonl")
    return pd.DataFrame(rows, columns=None if rows else ["step", "kind", "nll"])


def _read_curve(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    # a whole line ends in a newline, so what follows the last newline is empty or torn
    return [_json_object(line, f"{path} line {number}") for number, line in enumerate(lines[:-1], 1)]


def is_complete(folder: Path | str, key: str) -> bool:
    """Whether a run has its row and its curve, both readable; a damaged one is as good as none.

    Args:
        folder: the folder of runs.
        key: the run's key.
    """
    run = Path(folder) / key
    try:
        return bool(read_json(run / "summary.json")) and bool(_read_curve(run / "metrics.jsonl"))
    except (OSError, ValueError):
        return False


def read_json(path: Path | str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object.
    """
    return _json_object(Path(path).read_text(encoding="utf-8"), f"{path}")


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: not a JSON object; move it away and give the command again")
    return value
