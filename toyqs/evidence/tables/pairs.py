"""Cells of a sweep that differ by use_reasoner alone, paired by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.findings import estimate_text
from toyqs.evidence.judging.gain import paired_gains
from toyqs.evidence.selection import place_of
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import listed

HEADING = """\
Gain of thinking over use_reasoner=false, nothing else changed, nats ± half of a 95 % t-interval, paired by
seed:"""
APART = "use_reasoner"  # the setting in which the two cells of a pair differ


def reasoner_pairs(cells: Sequence[Cell], keys: Sequence[str]) -> list[str]:
    """Return a line for each thinking cell and the plain one of the same settings: what thinking gains.

    Args:
        cells: of a sweep; settings without effect are absent, so a plain cell has no reasoner's.
        keys: the settings that name a cell.

    Returns:
        Lines with a heading; none where the sweep has no such cells.
    """
    rows = []
    others = [key for key in keys if key != APART]
    for thinking, silent in _pairs(cells, others):
        gains = paired_gains({"thinking": _run(thinking), "plain": _run(silent)}, thinking.loss)
        gain = gains.get("plain", pd.Series(dtype=float))
        place = place_of(thinking, others)
        words = f"seed {listed(gain.index)}" if len(gain) else "no seed of both has finished"
        rows.append((place or "use_reasoner=true", estimate_text(gain, "+.3f"), words))
    if not rows:
        return []
    places, gained, seeds = map(list, zip(*rows, strict=True))
    columns = [
        Column("", "cell", places, left=True),
        Column("gain", "nats", gained),
        Column("", "pairs", seeds, left=True),
    ]
    return ["", *HEADING.splitlines(), *plain_text(columns)]


def _pairs(cells: Sequence[Cell], keys: Sequence[str]) -> Iterator[tuple[Cell, Cell]]:
    """Yield each thinking cell with its plain counterpart."""
    plain = [cell for cell in cells if cell.settings.get(APART) is False]
    for thinking in cells:
        for cell in plain:
            shared = {key: cell.settings[key] for key in keys if key in cell.settings}
            if (
                thinking.thinks
                and thinking.settings.get(APART) is True
                and shared.items() <= thinking.settings.items()
            ):
                yield thinking, cell


def _run(cell: Cell) -> pd.DataFrame:
    return next(iter(cell.arms.values()))
