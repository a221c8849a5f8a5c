"""Cells of a sweep that differ by use_reasoner alone, paired by seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from toyqs.evidence.findings import estimate_text
from toyqs.evidence.gain import paired_gains
from toyqs.evidence.overview import Cell
from toyqs.evidence.text import aligned, listed

APART = ("use_reasoner", "seed", "info")  # settings in which the two cells of a pair may differ


def reasoner_pairs(cells: Sequence[Cell]) -> list[str]:
    """Return a line for each thinking cell and the plain one of the same settings: what thinking gains.

    Args:
        cells: as for `sweep_table`; settings without effect are absent, so a plain cell has no reasoner's.

    Returns:
        Lines with a heading; none where the sweep has no such cells.
    """
    rows = []
    for settings, thinking, plain in _pairs(cells):
        gains = paired_gains({"thinking": thinking, "plain": plain}).get("plain", pd.Series(dtype=float))
        place = " ".join(f"{name}={value}" for name, value in settings.items() if name not in APART)
        words = f"seed {listed(gains.index)}" if len(gains) else "no seed of both has finished"
        rows.append((place or "use_reasoner=True", estimate_text(gains, "+.3f"), words))
    if not rows:
        return []
    heading = (
        "Gain of thinking over use_reasoner=False, nothing else changed, nats ± half of a 95 % t-interval,"
    )
    return ["", heading, "paired by seed:", *aligned(list(zip(*rows, strict=True)), left=[0, 2])]


def _pairs(cells: Sequence[Cell]) -> Iterator[tuple[Mapping[str, Any], pd.DataFrame, pd.DataFrame]]:
    """Yield the settings of a thinking cell, its rows and those of its plain counterpart."""
    plain = [(settings, _run(arms)) for settings, arms in cells if settings.get("use_reasoner") is False]
    for settings, arms in cells:
        for others, frame in plain:
            shared = {name: value for name, value in others.items() if name not in APART}
            if settings.get("use_reasoner") is True and shared.items() <= settings.items():
                yield settings, _run(arms), frame


def _run(arms: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return next(iter(arms.values()))
