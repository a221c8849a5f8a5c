"""The thought records that a page holds: which, and their files' own bytes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toyqs.evidence.cells import Cell
from toyqs.evidence.dictionary import loss, told
from toyqs.files import Refusal
from toyqs.installation import program
from toyqs.thought_record import NAME, read

# What a page holds at most where nobody says how many: records, and bytes of them; as text a third more.
RECORDS, BYTES = 10, 2_300_000
# Columns of a row -> arrays of a record: what is predicted without the own thoughts.
OTHERS = {"nll_no_thought": "log_q_none", "nll_shuffled": "log_q_shuffled"}
MOST_NAMED = 4  # runs that a command names one by one


def chosen_records(
    runs: Path, cells: Sequence[Cell], most: int | None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Choose the thought records that a page holds: the first seed of every cell's own run, then the next.

    Args:
        runs: the folder of the runs.
        cells: those shown.
        most: records; None: RECORDS, and BYTES.

    Returns:
        Key -> the record's file; and what the page says of them and of the others: `loss` and `told` (key ->
        what dictionary.py computes; with the loss that of the `row`), `others` (key -> a column of the row ->
        the record's `nll` with its `error`, and the `row`'s), `left_out`, the keys of those that there is no
        room for, `without`, the thinking runs that have none, `unreadable` (key -> a line on one that is
        damaged or newer).
    """
    by_cell = [_thinking(cell) for cell in cells]
    rows = {row["key"]: row for cell in cells for row in next(iter(cell.arms.values())).to_dict("records")}
    longest = max((len(keys) for keys in by_cell), default=0)
    keys = dict.fromkeys(keys[place] for place in range(longest) for keys in by_cell if place < len(keys))
    chosen: dict[str, bytes] = {}
    numbers: dict[str, Any] = {
        "loss": {},
        "others": {},
        "told": {},
        "left_out": [],
        "without": [],
        "unreadable": {},
    }
    room = BYTES if most is None else math.inf
    for key in keys:
        path = runs / key / NAME
        size = path.stat().st_size if path.is_file() else 0
        if not size:
            numbers["without"].append(key)
        elif len(chosen) >= (RECORDS if most is None else most) or (chosen and size > room):
            numbers["left_out"].append(key)
        else:
            try:
                record = read(path.parent)
            except Refusal as refusal:
                numbers["unreadable"][key] = str(refusal)
                continue
            chosen[key] = path.read_bytes()
            numbers["loss"][key] = loss(record)._asdict() | {"row": rows[key]["nll"]}
            numbers["others"][key] = {
                column: loss(record, name)._asdict() | {"row": rows[key].get(column)}
                for column, name in OTHERS.items()
                if name in record.arrays
            }
            numbers["told"][key] = [x._asdict() | {"share": x.share} for x in told(record)]
            room -= size
    return chosen, numbers


def record_notes(runs: Path, records: Mapping[str, Any]) -> list[str]:
    """Return what the terminal says of records that are not in the page, a line each; nothing where all are.

    Args:
        runs: the folder of the runs.
        records: the second result of `chosen_records`.
    """
    lines = [*records["unreadable"].values()]
    if number := len(records["left_out"]):
        lines.append(
            f"thoughts of {number} more runs are left out: --records {len(records['loss']) + number}"
        )
    if lacking := [*records["without"], *records["unreadable"]]:
        folders = shlex.join(str(runs / key) for key in lacking)
        names = folders if len(lacking) <= MOST_NAMED else f"{shlex.quote(str(runs))}/*"
        lines.append(
            f"thoughts of {len(lacking)} runs are not recorded: {program('toyqs.answers')} record {names}"
        )
    return lines


def _thinking(cell: Cell) -> list[str]:
    """Return the keys of the runs that can have a record: that think, and did not diverge."""
    frame = next(iter(cell.arms.values()))
    return list(frame["key"][frame["nll"].notna()]) if cell.thinks and len(frame) else []
