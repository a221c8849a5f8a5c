"""Draw the loss of finished runs against the number of symbols of their thoughts."""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.answers.thoughts.lengths import TWICE, curve, upto
from toyqs.command_line import Parser, run, whole
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import style
from toyqs.evidence.figures.budget import (
    CONTROLS,
    LONGEST,
    OF_LENGTH,
    Line,
    budget_figure,
    controls_of,
    in_panel,
    panels_of,
    table,
)
from toyqs.evidence.figures.script import (
    MORE,
    add_output,
    check_output,
    chosen_cells,
    require_one_token,
    runs_parser,
    write,
)
from toyqs.evidence.judging.findings import origins
from toyqs.evidence.judging.gain import by_seed, estimate
from toyqs.evidence.selection import (
    differing,
    in_order,
    place_of,
    setting_line,
    telling_apart,
    thinking_cells,
)
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import WIDTH, plus_minus, spans
from toyqs.files import Refusal

DESCRIPTION = """\
Draw the held-out NLL of finished runs against L', the number of symbols of their thoughts: fewer than
trained with, and more. There is a line for each cell, its colour by L, its marker by the schedule of L in
training, with 95 % t-intervals over seeds. Controls come from their rows: as level lines, or as points at
the L of their cell where they depend on it."""
MOST_PANELS = 4
NAMED_FIRST = ("thoughts", "objective", "backbone")  # what a panel is named by, where it differs
QUESTION = "What if trained models think longer, or less?"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run(_work, _parser(), words)


def _parser() -> Parser:
    parser = runs_parser(DESCRIPTION, "[--upto N] [--sequences N] [-o FILE] [--talk]", MORE)
    add_output(parser, "budget.png")
    help_ = "the largest L', a number or a multiple of the largest L of the cells (2L)"
    parser.add_argument("--upto", type=upto, default=TWICE, metavar="N", help=help_)
    help_ = "held-out sequences (as many as the runs' own evaluation)"
    parser.add_argument("--sequences", type=lambda word: whole(word, least=2), metavar="N", help=help_)
    return parser


def _work(options: argparse.Namespace) -> None:
    check_output(options.output, options.output.with_suffix(".csv"))
    cells, panels = by_panel(options.runs, chosen_cells(options))
    most = options.upto.of(max(int(cell.settings[LONGEST]) for cell in cells))

    def measure(key: str, seed: int) -> dict[int, tuple[float, float]]:
        return curve(str(options.runs / key), seed, most, options.sequences)

    lines = [measured(cell, panel, most, measure) for cell, panel in zip(cells, panels, strict=True)]
    with style.style(options.talk):
        written = write(options, budget_figure(lines), QUESTION, cells, [], table(lines))
    if warning := origins(cells):
        print(f"analysis/budget.py: {warning}", file=sys.stderr)
    text = [
        *textwrap.wrap(setting_line(cells), WIDTH),
        *(x for panel in panels_of(lines) for x in _text(lines, panel)),
    ]
    print("\n".join([*text, "", *_missing(lines), "", *written]), flush=True)


def by_panel(runs: Path, cells: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
    """Return the cells whose thoughts have symbols, and for each the name of its panel.

    Cells that differ in the lengths of their thoughts alone share a panel.

    Raises:
        Refusal: there are none of which a run has finished, too many panels, or two cells of one name.
    """
    chosen = [cell for cell in thinking_cells(runs, cells) if cell.settings.get(LONGEST)]
    chosen = [cell for cell in chosen if len(next(iter(cell.arms.values())))]
    require_one_token(runs, chosen)
    if not chosen:
        raise Refusal(f"{runs}: no run whose thoughts have symbols has finished", 1)
    others = [name for name in differing(chosen) if name not in OF_LENGTH]
    keys = [key for key in telling_apart(chosen, [*NAMED_FIRST, *others, *OF_LENGTH]) if key not in OF_LENGTH]
    chosen = in_order(chosen, [*keys, *OF_LENGTH])
    panels = [place_of(cell, keys) for cell in chosen]
    if (count := len(set(panels))) > MOST_PANELS:
        raise Refusal(f"{runs}: {count} panels, {MOST_PANELS} at most; choose with {keys[0]}=VALUE")
    return chosen, panels


def measured(
    cell: Cell, panel: str, most: int, measure: Callable[[str, int], dict[int, tuple[float, float]]]
) -> Line:
    """Measure the thinking runs of a cell.

    Args:
        cell: with at least one finished thinking run.
        panel: of its line.
        most: the largest L'.
        measure: key and seed of a run -> L' -> NLL and accuracy.
    """
    rows = next(iter(cell.arms.values()))
    lost = dict.fromkeys(range(most + 1), (math.nan, math.nan))
    losses = by_seed(rows, "nll")
    keys = zip(rows["key"], rows["seed"], strict=True)
    curves = {int(s): lost if math.isnan(losses[s]) else measure(key, int(s)) for key, s in keys}
    return Line(cell, panel, curves)


def _text(lines: Sequence[Line], panel: str) -> list[str]:
    """Return a panel's table of NLL by L', and its controls."""
    own = in_panel(lines, panel)
    lengths = own[0].lengths
    columns = [Column("", "L'", [str(length) for length in lengths])]
    for line in own:
        found = [estimate(seeds) for seeds in line.values(0).values()]
        texts = [plus_minus(x.mean, x.half_width, ".3f", "diverged") for x in found]
        marked = zip(texts, (" *" if length == line.length else "  " for length in lengths), strict=True)
        columns.append(Column("", line.name, ["".join(each) for each in marked]))
    text = [
        "",
        *([panel] if panel else []),
        "held-out NLL, nats; *: as long as in training",
        *plain_text(columns),
    ]
    for control in controls_of(own):
        x = estimate(by_seed(control.rows, "nll"))
        place = "" if control.level else f" ({control.line.name})"
        text.append(f"{control.arm}{place}: {plus_minus(x.mean, x.half_width, '.3f', 'diverged')}")
    return text


def _missing(lines: Sequence[Line]) -> list[str]:
    """Return what was asked for and has not finished."""
    found = []
    for line in lines:
        for arm, seeds in line.cell.missing.items():
            if arm == "thinking" or arm in CONTROLS:
                found.append(f"{' '.join(filter(None, [line.panel, line.name]))}, {arm}: seed {spans(seeds)}")
    title = "Missing, asked for but not finished:" if found else "Missing: nothing that was asked for."
    return [title, *found]


if __name__ == "__main__":
    sys.exit(main())
