"""A run's thoughts as a table of a few dozen rows, for the trackers."""

from __future__ import annotations

from typing import Any

import numpy as np

from toyqs.thought_record import Record

HEADINGS = ("read", "truth", "thought", "p with it", "p without", "p with another's")
MOST_ROWS = 64
LAST_TOKENS = 32  # of what was read


def thought_rows(record: Record) -> list[list[Any]]:
    """Return the first thought at some counted positions, evenly spread over the record.

    Returns:
        For each the texts and numbers of HEADINGS: the tokens up to the position, the token to predict, the
        thought's symbols, and the probability of that token with the thought, without one (None where the
        model cannot predict so) and with another sequence's.
    """
    arrays = record.arrays
    places = np.argwhere(arrays["counted"] == 1)
    chosen = places[np.linspace(0, len(places) - 1, min(MOST_ROWS, len(places))).astype(int)]
    rows: list[list[Any]] = []
    for n, t in chosen.tolist():
        end = int(arrays["positions"][n, t]) + 1
        read = [record.tokens[token] for token in arrays["inputs"][n, max(0, end - LAST_TOKENS) : end]]
        without = float(np.exp(arrays["log_q_none"][n, t])) if "log_q_none" in arrays else None
        numbers = (float(np.exp(arrays[name][n, t, 0])) for name in ("log_q", "log_q_shuffled"))
        with_it, with_another = numbers
        truth = record.tokens[int(arrays["truth"][n, t])]
        rows.append([" ".join(read), truth, thought_text(record, n, t, 0), with_it, without, with_another])
    return rows


def thought_text(record: Record, n: int, t: int, k: int) -> str:
    """Return a thought as text: its symbols, or the names nearest to its vectors, or their numbers."""
    arrays = record.arrays
    for name in ("symbols", "nearest"):
        if name in arrays and record.symbols is not None:
            return " ".join(record.symbols[s] for s in arrays[name][n, t, k] if s < len(record.symbols))
    if "vectors" not in arrays:
        return ""
    return "; ".join(" ".join(f"{x:.2f}" for x in vector) for vector in arrays["vectors"][n, t, k])
