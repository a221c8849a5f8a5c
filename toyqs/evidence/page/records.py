"""The thought records that a page holds: which, and their files' own bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toyqs.evidence.cells import Cell
from toyqs.thought_record import NAME

BYTES = 2_300_000  # of all records of a page together, before their text is a third longer


def chosen_records(runs: Path, cells: Sequence[Cell], most: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Choose the thought records that a page holds: the first seed of every cell's own run, then the next.

    Args:
        runs: the folder of the runs.
        cells: those shown.
        most: records.

    Returns:
        Key -> the record's file; and what the page says of the others: `left_out`, the keys of those that
        there is no room for, `without`, the thinking runs that have none.
    """
    by_cell = [_thinking(cell) for cell in cells]
    longest = max((len(keys) for keys in by_cell), default=0)
    keys = dict.fromkeys(keys[place] for place in range(longest) for keys in by_cell if place < len(keys))
    chosen: dict[str, bytes] = {}
    left_out, without = [], []
    room = BYTES
    for key in keys:
        path = runs / key / NAME
        size = path.stat().st_size if path.is_file() else 0
        if not size:
            without.append(key)
        elif len(chosen) < most and (size <= room or not chosen):
            chosen[key] = path.read_bytes()
            room -= size
        else:
            left_out.append(key)
    return chosen, {"left_out": left_out, "without": without}


def _thinking(cell: Cell) -> list[str]:
    frame = next(iter(cell.arms.values()))
    return list(frame["key"]) if cell.thinks and len(frame) else []
