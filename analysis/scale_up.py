"""Print the best cells of a GRU sweep as commands that run the same on a transformer."""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, positive, run, whole
from toyqs.evidence.arms import MATCHED
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures.script import chosen_cells, runs_parser
from toyqs.evidence.judging.findings import Finding, find
from toyqs.evidence.judging.gain import estimate
from toyqs.evidence.selection import (
    BASE,
    place_of,
    setting_line,
    telling_apart,
    thinking_cells,
)
from toyqs.evidence.tables.references import joint_lines
from toyqs.evidence.tables.sweep import GAIN_HEADING, gain_lines
from toyqs.evidence.text import WIDTH
from toyqs.files import Refusal
from toyqs.sweep.words.spelling import Size, command

DESCRIPTION = """\
Print the cells of a GRU sweep in which thinking gained most over its controls, paired by seed, and for each
the command that runs it on a transformer: every setting that is not a default is carried over unchanged;
backbone, layers, heads, widths and learning rate are added. What is no command is printed as a comment.
Cells are ordered by their verdict, then by the gain over zero-length thoughts; where capacity or compute
may explain a gain, the comment says so. The verdicts are corrected for the number of all cells to choose
from, not of those printed."""
OVER = ("zero_length", "policy_off", "no_reasoner", *MATCHED)  # the first that was run ranks a cell


class Ranked(NamedTuple):
    """A cell that may be scaled up."""

    finding: Finding
    standing: int  # of its verdict, the best first
    gain: float  # over the control that it is ranked by, the mean over seeds


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run(_print_commands, _parser(), words)


def _print_commands(options: argparse.Namespace) -> None:
    cells = chosen_cells(options)
    size = Size(options.backbone, options.layers, options.heads, options.width, options.lr)
    print("\n".join(scale_up(options.runs, cells, size, options.best)))


def _parser() -> Parser:
    parser = runs_parser(DESCRIPTION, "[options]")
    parser.add_argument("--best", type=whole, default=3, help="how many cells; without this %(default)s")
    parser.add_argument("--backbone", default="gpt2", help="without this %(default)s")
    parser.add_argument("--layers", type=whole, default=2, help="without this %(default)s")
    parser.add_argument("--heads", type=whole, default=4, help="without this %(default)s")
    purpose = "of the widest role, the others keep their share of it; without this %(default)s"
    parser.add_argument("--width", type=whole, default=64, help=purpose)
    parser.add_argument("--lr", type=positive, default=1e-3, help="learning rate; without this %(default)s")
    return parser


def scale_up(runs: Path, cells: Sequence[Cell], size: Size, best: int) -> list[str]:
    """Return the lines to print: the best cells' gains as comments, and a command for each.

    Args:
        runs: their folder.
        cells: those chosen.
        size: of the transformer.
        best: how many.

    Raises:
        Refusal: no cell gained, or none of the best can be run on a transformer.
    """
    chosen = ranked(runs, cells)[:best]
    shown = [each.finding.cell for each in chosen]
    keys = telling_apart(shown, (BASE,)) or [BASE]
    table = gain_lines([each.finding for each in chosen], keys)
    lines = [*textwrap.wrap(setting_line(shown), WIDTH - 2), *joint_lines(shown), "", GAIN_HEADING, *table]
    text, failures = [f"# {line}".rstrip() for line in lines], []
    for place, each in enumerate(chosen, start=1):
        where, verdict = place_of(each.finding.cell, keys), each.finding.verdict
        text += ["", *_comment(f"{place}. {where}. Verdict: {verdict.text}. {verdict.sentence}")]
        try:
            text.append(_command(each.finding.cell, size))
        except Refusal as refusal:
            failures.append(str(refusal))
            text += _comment(f"No command: {refusal}")
    if len(failures) == len(chosen):
        raise Refusal(failures[0], 1)
    return text


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _command(cell: Cell, size: Size) -> str:
    thinking, *controls = cell.arms.items()
    fair = any(name in MATCHED for name, _ in controls)
    return command(cell.settings, sorted(thinking[1]["seed"]), "fair" if fair else "none", size)


def ranked(runs: Path, cells: Sequence[Cell]) -> list[Ranked]:
    """Return the GRU cells whose thinking gained over a control in the mean, the best first.

    Args:
        runs: their folder, for the message.
        cells: of any kind.

    Raises:
        Refusal: there are none.
    """
    grus = [cell for cell in thinking_cells(runs, cells) if cell.settings.get("backbone", "gru") == "gru"]
    ranks = map(_rank, find([cell for cell in grus if cell.thinks]))
    compared = [rank for rank in ranks if rank]
    if not compared:
        raise Refusal(f"{runs}: no GRU cell with thoughts has a finished control to gain over", 1)
    gaining = [each for each in compared if each.gain > 0]
    if not gaining:
        raise Refusal(f"{runs}: thinking gains over no control in any cell; nothing to scale up", 1)
    return sorted(gaining, key=lambda each: (each.standing, -each.gain))


def _rank(finding: Finding) -> Ranked | None:
    control = next((name for name in OVER if name in finding.gains), None)
    if control is None or finding.verdict is None:
        return None
    mean = estimate(finding.gains[control]).mean
    return None if math.isnan(mean) else Ranked(finding, finding.verdict.standing, mean)


if __name__ == "__main__":
    sys.exit(main())
