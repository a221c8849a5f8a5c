"""Draw how much thoughts are used where their markers learn faster."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import THINKING
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures.recipes.markers import PUBLISHED, markers_figure
from toyqs.evidence.figures.script import Product, require_one_token, run_script
from toyqs.evidence.judging.findings import estimate_text, find
from toyqs.evidence.judging.gain import by_seed, estimate, paired_gains
from toyqs.evidence.judging.paired import Compared, compare, p_text
from toyqs.evidence.judging.use import use_of
from toyqs.evidence.selection import differing, thinking_cells
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import plus_minus, spelled
from toyqs.files import Refusal

DESCRIPTION = """\
Draw how much finished runs use their thoughts against meta_token_scale, a line for each meta_token_mode. A
run with meta_token_mode=none is scale 1 of every mode, and what the others are compared with, paired by seed.
Three measures of use:

    exchanged   nats that another sequence's thoughts cost, nll_shuffled - nll, over all held-out positions
    changed     the share of thoughts with which another answer is the likeliest than without a thought
    non-empty   the share of thoughts with a symbol or more; 100 % unless variable_len lets thoughts be empty

The last two are of the thoughts in each run's record. Differences of `exchanged` and of the NLL are tested,
and Holm's correction is over all of them that the table has."""

QUESTION = "Are thoughts used more where their markers learn faster?"
MODE, SCALE, PLAIN = "meta_token_mode", "meta_token_scale", "none"
MEASURES = ("exchanged", "changed", "non_empty")
PERCENT = ("changed", "non_empty")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(marker_use, DESCRIPTION, "marker_use.png", words)


def marker_use(runs: Path, cells: Sequence[Cell]) -> Product:
    """Make figure and table of the cells of one sweep over mode and scale.

    Args:
        runs: their folder.
        cells: those chosen; one of them has meta_token_mode=none.
    """
    cells = sorted(thinking_cells(runs, cells), key=_place)
    require_one_token(runs, cells)
    for name, values in differing(cells).items():
        if name not in (MODE, SCALE):
            raise Refusal(f"{runs}: the cells differ in {name} too; choose, say, {name}={values[0]}")
    if not cells or cells[0].settings[MODE] != PLAIN or not len(cells[0].arms[THINKING]):
        raise Refusal(f"{runs}: no finished run has {MODE}={PLAIN}, with which the others are compared", 1)
    measured = {_place(cell): _measured(runs, cell) for cell in cells if len(cell.arms[THINKING])}
    plain = measured[_place(cells[0])]
    differences = {
        f"{place} {name}": (own[name] - plain[name]).dropna()
        for place, own in measured.items()
        for name in ("exchanged", "nll")
        if own is not plain
    }
    tested = compare(differences)
    table = pd.DataFrame([_row(place, own, tested) for place, own in measured.items()])
    text = [*_text(table, measured, tested), "", *_controls(cells)]
    return Product(QUESTION, markers_figure(table), table, text, find(cells), (MODE, SCALE))


def _place(cell: Cell) -> tuple[bool, str, float]:
    """Return what tells a cell from the others, in the order of the table; plain markers have scale 1."""
    mode = cell.settings.get(MODE, PLAIN)
    return mode != PLAIN, mode, 1.0 if mode == PLAIN else float(cell.settings[SCALE])


def _measured(runs: Path, cell: Cell) -> pd.DataFrame:
    """Return NLL, accuracy and MEASURES of a cell's thinking runs, a row for each seed."""
    frame = cell.arms[THINKING]
    found = pd.DataFrame({name: by_seed(frame, name) for name in ("nll", "accuracy", "nll_shuffled")})
    found["exchanged"] = found["nll_shuffled"] - found["nll"]
    records = [use_of(runs / key) for key in frame["key"]]
    found["changed"], found["non_empty"] = zip(*records, strict=True)
    return found


def _row(place: tuple[bool, str, float], own: pd.DataFrame, tested: dict[str, Compared]) -> dict[str, Any]:
    row: dict[str, Any] = {"mode": place[1], "scale": place[2], "seeds": len(own)}
    for name in ("nll", "accuracy", *MEASURES):
        found = estimate(own[name])
        row |= {name: found.mean, f"{name}_half_width": found.half_width}
    for name in ("exchanged", "nll"):
        compared = tested.get(f"{place} {name}")
        row[f"{name}_difference"] = compared.interval.mean if compared else math.nan
        row[f"{name}_difference_half_width"] = compared.interval.half_width if compared else math.nan
        row[f"{name}_p"] = compared.p if compared else math.nan
        row[f"{name}_beyond_chance"] = compared.beyond_chance if compared else None
    return row


def _text(
    table: pd.DataFrame, measured: dict[tuple[bool, str, float], pd.DataFrame], tested: dict[str, Compared]
) -> list[str]:
    """Return the table as text, and what its numbers are."""
    each = list(measured.values())
    columns = [
        Column("mode", "", list(table["mode"]), left=True),
        Column("scale", "", [spelled(x) for x in table["scale"]]),
        Column("NLL", "nats", [estimate_text(own["nll"], ".3f") for own in each]),
        Column("over scale 1", "nats", [_difference(tested, place, "nll") for place in measured]),
        Column("exchanged", "nats", [estimate_text(own["exchanged"], ".2f") for own in each]),
        Column("over scale 1", "nats", [_difference(tested, place, "exchanged") for place in measured]),
        Column("changed", "%", [estimate_text(100 * own["changed"], ".0f") for own in each]),
    ]
    if (table["non_empty"] < 1).any():
        shares = [estimate_text(100 * own["non_empty"], ".0f") for own in each]
        columns.append(Column("non-empty", "%", shares))
    said = ", ".join(f"{100 * share:.0f} % at {scale}" for scale, share in PUBLISHED.items())
    return [
        *plain_text(columns),
        f"after a difference its p; *: beyond chance, by Holm's correction over {len(tested)} comparisons",
        f"published use of thinking tokens by scale: {said}",
    ]


def _difference(tested: dict[str, Compared], place: tuple[bool, str, float], name: str) -> str:
    """Return a difference to scale 1 with its interval, its p-value and a * where it is beyond chance."""
    found = tested.get(f"{place} {name}")
    if found is None:
        return "–"
    star = "*" if found.beyond_chance else " "
    return f"{plus_minus(found.interval.mean, found.interval.half_width, '+.2f')} {p_text(found.p)}{star}"


def _controls(cells: Sequence[Cell]) -> list[str]:
    """Return what thinking gains over each control, of the cells that have some."""
    lines = []
    for cell in cells:
        gains = paired_gains(cell.arms)
        if gains:
            named = [f"{arm} {estimate_text(gain, '+.3f')}" for arm, gain in gains.items()]
            _, mode, scale = _place(cell)
            lines += [f"gain of {mode} at {spelled(scale)}, nats: over {named[0]}"]
            lines += [f"  {', '.join(named[start : start + 3])}" for start in range(1, len(named), 3)]
    return lines


if __name__ == "__main__":
    sys.exit(main())
