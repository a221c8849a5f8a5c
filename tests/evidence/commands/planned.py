"""A cell of two arms and two seeds, and runs of it, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toyqs.evidence.cells import write_cell
from toyqs.files import sealed, write_json

SETTINGS: dict[str, Any] = {"task": "rev_prog", "base_lm_hidden_dim": 4, "trice_samples": 4, "info": ""}
KEYS = {
    arm: {seed: f"{arm[:4]}{seed:012}" for seed in (7, 8)} for arm in ("thinking", "zero_length", "pause")
}
ENVIRONMENT: dict[str, Any] = {
    **{"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "platform": "Linux", "cpu_count": 2},
    **{"commit": "abc1234", "dirty": False, "command": "run.py seed=7,8", "stack_size": 2},
}


def plan(runs: Path) -> Path:
    """Plan a cell of two arms in a folder, and a third arm that is not asked for."""
    write_cell(runs, SETTINGS, KEYS, ["thinking", "zero_length"])
    return runs


def begin(runs: Path, key: str, settings: dict[str, Any] = SETTINGS) -> Path:
    """Write what a run writes when it begins."""
    (runs / key).mkdir(parents=True)
    write_json(runs / key / "config.json", settings)
    return runs / key


def finish(runs: Path, arm: str, seed: int, environment: dict[str, Any] | None = None, **values: Any) -> Path:
    """Write a finished run; `values` are results, or settings of SETTINGS."""
    key = KEYS[arm][seed] if arm in KEYS else arm
    settings = {"results_version": 3, **SETTINGS, "seed": seed}
    settings |= {name: values[name] for name in settings if name in values}
    folder = begin(runs, key, settings)
    write_json(folder / "env.json", ENVIRONMENT | (environment or {}))
    row = {"key": key, "commit": "abc1234", **settings, "nll": 0.5} | values
    write_json(folder / "summary.json", sealed(row, folder, ["config.json", "env.json"]))
    return folder
