"""Whether a finished run makes use of its thoughts, by what its record tells of single thoughts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from toyqs.thought_record import Array, NoRecord, Record, read


def answers_changed(record: Record) -> float:
    """Return the share of thoughts with which another answer is the likeliest than without any thought.

    Of the thoughts at counted positions. A record has shares of 1/255, so of answers nearer to each other
    than that the first counts as the likeliest. NaN where the run does not predict without a thought.
    """
    if "predicted_p_none" not in record.arrays:
        return math.nan
    own, alone = _likeliest(record, ""), _likeliest(record, "_none")
    counted = record.arrays["counted"].astype(bool)
    return float((own != alone[..., None])[counted].mean())


def non_empty(record: Record) -> float:
    """Return the share of thoughts with at least one symbol, at counted positions; NaN without symbols."""
    symbols = record.arrays.get("symbols")
    if symbols is None or record.symbols is None or not symbols.shape[-1]:
        return math.nan
    counted = record.arrays["counted"].astype(bool)
    return float((symbols[..., 0] < len(record.symbols))[counted].mean())


def _likeliest(record: Record, suffix: str) -> Array:
    """Return the likeliest token of each prediction."""
    shares = record.arrays[f"predicted_p{suffix}"]
    names = record.arrays.get(f"predicted{suffix}")  # absent where all tokens are recorded, by their ids
    best = shares.argmax(-1)
    return best if names is None else np.take_along_axis(names, best[..., None], -1)[..., 0]


def use_of(folder: Path) -> tuple[float, float]:
    """Return `answers_changed` and `non_empty` of a finished run; NaN both where it has no record.

    Args:
        folder: the run's, runs/KEY.

    Raises:
        Refusal: its record is damaged, or missing though it can be made.
    """
    try:
        record = read(folder)
    except NoRecord:
        return math.nan, math.nan
    return answers_changed(record), non_empty(record)
