"""Held-out loss while training, of all seeds of an arm."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from toyqs.results import load_curve


def held_out(runs: Path, key: str) -> pd.Series:
    """A run's held-out NLL by step; empty where the file is missing or damaged."""
    try:
        lines = load_curve(runs, key)
        # a logarithmic axis has no place for what was measured before the first step
        found = lines[(lines["kind"] == "held_out") & (lines["step"] > 0)]
        return found.drop_duplicates("step", keep="last").set_index("step")["nll"].astype(float)
    except (OSError, ValueError, KeyError):
        return pd.Series(dtype=float)


def by_step(runs: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The curves of an arm's rows: a row for each step, a column for each seed that has one."""
    keys = zip(rows.get("key", ()), rows.get("seed", ()), strict=True)
    found = {seed: held_out(runs, key) for key, seed in keys}
    return pd.DataFrame({seed: curve for seed, curve in found.items() if len(curve)})
