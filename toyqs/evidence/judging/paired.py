"""Differences paired by seed, several at once: which of them are beyond chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from toyqs.evidence.judging.gain import Interval, estimate
from toyqs.evidence.judging.significance import holm_bar, p_value


class Compared(NamedTuple):
    """One of several differences."""

    interval: Interval  # 95 %, over seeds
    p: float  # of the paired t-test; NaN where it cannot be known
    beyond_chance: bool  # by Holm's correction over all that were compared


def compare(differences: Mapping[str, pd.Series]) -> dict[str, Compared]:
    """Test differences together, by Holm's correction over those that can be tested.

    Args:
        differences: name -> one difference for each seed; NaN where a run diverged.
    """
    p_values = {name: p_value(values) for name, values in differences.items()}
    bar = holm_bar([p for p in p_values.values() if not math.isnan(p)])
    return {
        name: Compared(estimate(values), p_values[name], p_values[name] <= bar)
        for name, values in differences.items()
    }


def p_text(p: float) -> str:
    """Return a p-value in a table: 4 digits, <.0001 below them, and – for none."""
    if math.isnan(p):
        return "–"
    return "<.0001" if p < 1e-4 else f"{p:.4f}".removeprefix("0")
