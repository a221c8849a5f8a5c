"""Learning curves for the page: what was measured on held-out sequences while runs trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toyqs.evidence.cells import Cell

METRICS = ("nll", "accuracy", "thought_entropy", "information", "homogeneity")  # that the page can draw
COSTS = {"flops": "flops_per_step", "cpu_seconds": "cpu_seconds"}
DIGITS = 6

Curves = Mapping[str, Mapping[str, Any]]  # key -> "steps", "flops" and "cpu_seconds" of a step, metrics


def load_curves(runs: Path, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Load what every run of some cells measured on held-out sequences.

    Args:
        runs: the folder of the runs.
        cells: with the rows that have finished.

    Returns:
        Key -> `steps`, ascending, and one value per step of each metric that the run has, null where it
        diverged; `flops` and `cpu_seconds` of one step, the latter the row's total spread evenly over its
        steps. A run without a readable curve is absent.
    """
    found = {}
    for cell in cells:
        for frame in cell.arms.values():
            for row in frame.reindex(columns=["key", *COSTS.values()]).to_dict("records"):
                if row["key"] not in found and (curve := _curve(runs / row["key"] / "metrics.jsonl")):
                    found[row["key"]] = curve | _costs(row, curve["steps"][-1])
    return found


def _curve(path: Path) -> dict[str, Any]:
    """Return the steps and metrics of one file; nothing where it is missing or damaged."""
    by_step: dict[int, dict[str, Any]] = {}
    try:
        for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline was cut short
            found = json.loads(line)
            if found["kind"] == "held_out" and found["step"] > 0:  # a logarithmic axis has no 0
                by_step[found["step"]] = found
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    steps = sorted(by_step)
    columns = {name: [_rounded(by_step[step].get(name)) for step in steps] for name in METRICS}
    known = {name: values for name, values in columns.items() if any(x is not None for x in values)}
    return {"steps": steps, **known} if known else {}


def _rounded(value: Any) -> float | None:
    number = isinstance(value, int | float) and math.isfinite(value)
    return float(f"{value:.{DIGITS}g}") if number else None


def _costs(row: Mapping[Any, Any], steps: int) -> dict[str, float | None]:
    known = {name: row.get(column) for name, column in COSTS.items()}
    flops, seconds = ((x if x is not None and x > 0 else None) for x in known.values())
    return {"flops": flops, "cpu_seconds": seconds / steps if seconds else None}


def frame_of(rows: pd.DataFrame, curves: Curves) -> pd.DataFrame:
    """Return an arm's held-out NLL, a row for each step and a column for each seed that has a curve."""
    columns = {}
    for key, seed in zip(rows.get("key", ()), rows.get("seed", ()), strict=True):
        if "nll" in curves.get(key, {}):
            columns[seed] = pd.Series(curves[key]["nll"], index=curves[key]["steps"], dtype=float)
    return pd.DataFrame(columns)
