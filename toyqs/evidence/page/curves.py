"""Learning curves for the page: what was measured on held-out sequences while runs trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toyqs.evidence.cells import Cell
from toyqs.files import json_object, visible

METRICS = ("nll", "accuracy", "thought_entropy", "information", "homogeneity")  # that the page can draw
COSTS = {"flops": "flops_per_step", "cpu_seconds": "cpu_seconds"}
DIGITS = 6
LARGEST = 1e300  # of a measure; what is beyond is not finite
MOST = 2**53  # steps, which are numbers of the page up to here

Curves = Mapping[str, Mapping[str, Any]]  # key -> "steps", "flops" and "cpu_seconds" of a step, metrics


def load_curves(runs: Path, cells: Sequence[Cell], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Load what every run of some cells measured on held-out sequences.

    Args:
        runs: the folder of the runs.
        cells: with the rows that have finished.
        problems: a line on each curve that is damaged is added to them.

    Returns:
        Key -> `steps`, ascending, and one value per step of each metric that the run has, null where it
        diverged, `nll` being the loss by which its cell is judged; `flops` and `cpu_seconds` of one step, the
        latter the row's total spread evenly over its steps. A run without a readable curve is absent.
    """
    columns = ["key", *COSTS.values()]
    rows: dict[str, dict[Any, Any]] = {}
    for cell in cells:
        for frame in cell.arms.values():
            known = frame.reindex(columns=columns).to_dict("records")
            rows |= {row["key"]: row | {"loss": cell.loss} for row in known}
    found = {}
    for key, row in rows.items():
        try:
            if curve := _curve(runs / key / "metrics.jsonl", row["loss"]):
                found[key] = curve | _costs(row, curve["steps"][-1])
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(visible(f"left out: the curve {error}"))
    return found


def _curve(path: Path, loss: str) -> dict[str, Any]:
    """Return the steps and metrics of one file, `nll` from the column `loss`; None for no finite number.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no JSON object, or its step no whole number from 0 on.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):  # the last may be cut short
        found = json_object(line, where := f"{path} line {number}")
        if found.get("kind") == "held_out":
            if type(step := found.get("step")) is not int or not 0 <= step <= MOST:
                raise ValueError(f"{where}: step={step!r:.40} is no number of steps")
            by_step[step] = found
    by_step.pop(0, None)  # which a logarithmic axis does not have
    steps = sorted(by_step)
    sources = {name: loss if name == "nll" else name for name in METRICS}
    columns = {name: [_rounded(by_step[step].get(x)) for step in steps] for name, x in sources.items()}
    known = {name: values for name, values in columns.items() if any(x is not None for x in values)}
    return {"steps": steps, **known} if known else {}


def _rounded(value: Any) -> float | None:
    number = type(value) in (int, float) and abs(value) <= LARGEST and not math.isnan(value)
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
