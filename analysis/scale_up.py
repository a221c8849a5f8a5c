"""The best cells of a GRU sweep, as commands that run the same on a transformer."""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.config.errors import Refusal as SettingRefusal
from toyqs.evidence.cells import Cell
from toyqs.evidence.decision import verdict
from toyqs.evidence.findings import GAIN_HEADING, LINE, Finding, estimate, find, gain_lines
from toyqs.evidence.gain import MATCHED
from toyqs.evidence.script import Parser, read_cells
from toyqs.evidence.selection import (
    BASE,
    choose,
    place_of,
    setting_line,
    telling_apart,
    thinking_cells,
)
from toyqs.files import Refusal
from toyqs.sweep.spelling import Size, command

DESCRIPTION = """\
Print the cells of a GRU sweep in which thinking gained most over its controls, paired by seed, and for each
the command that runs it on a transformer: every setting that is not a default is carried over unchanged;
backbone, layers, heads, widths and learning rate are added. What is no command is printed as a comment.
Cells are ordered by their verdict, then by the gain over zero-length thoughts; where capacity or compute
explains a gain, that is said."""
VERDICTS = ("helps", "helps at this base width only", "no verdict", "no evidence", "hurts")
OVER = ("zero_length", "policy_off", "no_reasoner", *MATCHED)  # the first that is there ranks a cell


class Ranked(NamedTuple):
    """A cell that may be scaled up."""

    found: Finding
    control: str  # that it is ranked by
    gain: float  # over it, the mean over seeds


def main(words: Sequence[str] | None = None) -> int:
    """The command line: see DESCRIPTION; returns the exit code."""
    parser = _parser()
    try:
        options = parser.parse_intermixed_args(words)
        if options.runs is None:
            raise Refusal("no folder of runs; give RUNS, the runs_dir of a sweep; --help says more")
        size = Size(options.backbone, options.layers, options.heads, options.width, options.lr)
        cells = choose(read_cells(options.runs), options.choices)
        print("\n".join(scale_up(options.runs, cells, size, options.best)))
        return 0
    except Refusal as refusal:
        print(f"{parser.prog}: {refusal}", file=sys.stderr)
        return refusal.code


def _parser() -> Parser:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        usage="%(prog)s RUNS [KEY=VALUE ...] [options]", description=DESCRIPTION, formatter_class=form
    )
    parser.add_argument("runs", metavar="RUNS", type=Path, nargs="?", help="a sweep's runs_dir")
    parser.add_argument("choices", metavar="KEY=VALUE", nargs="*", help="keep the cells with this setting")
    parser.add_argument("--best", type=_count, default=3, help="how many cells; without this %(default)s")
    parser.add_argument("--backbone", default="gpt2", help="without this %(default)s")
    parser.add_argument("--layers", type=_count, default=2, help="without this %(default)s")
    parser.add_argument("--heads", type=_count, default=4, help="without this %(default)s")
    purpose = "of the widest role, the others keep their share of it; without this %(default)s"
    parser.add_argument("--width", type=_count, default=64, help=purpose)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate; without this %(default)s")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def scale_up(runs: Path, cells: Sequence[Cell], size: Size, best: int) -> list[str]:
    """What is printed: the best cells' gains as comments, and a command for each.

    Args:
        runs: their folder.
        cells: those chosen.
        size: of the transformer.
        best: how many.

    Raises:
        Refusal: no cell gained, or none of the best can be run on a transformer.
    """
    chosen = ranked(runs, cells)[:best]
    shown = [each.found.cell for each in chosen]
    keys = telling_apart(shown, (BASE,)) or [BASE]
    table = gain_lines([each.found for each in chosen], keys)
    lines = [*textwrap.wrap(setting_line(shown), LINE - 2), "", GAIN_HEADING, *table]
    text, failures = [f"# {line}".rstrip() for line in lines], []
    for place, each in enumerate(chosen, start=1):
        text += [
            "",
            *_comment(f"{place}. {place_of(each.found.cell, keys)}. {verdict(each.found.gains).sentence}"),
        ]
        try:
            text.append(_command(each.found.cell, size))
        except SettingRefusal as refusal:
            failures.append(str(refusal))
            text += _comment(f"No command: {refusal}")
    if len(failures) == len(chosen):
        raise Refusal(failures[0], 1)
    return text


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, LINE, initial_indent="# ", subsequent_indent="# ")


def _command(cell: Cell, size: Size) -> str:
    thinking, *controls = cell.arms.items()
    fair = any(name in MATCHED for name, _ in controls)
    return command(cell.settings, sorted(thinking[1]["seed"]), "fair" if fair else "none", size)


def ranked(runs: Path, cells: Sequence[Cell]) -> list[Ranked]:
    """The GRU cells whose thinking gained over a control in the mean, the best first.

    Args:
        runs: their folder, for the message.
        cells: of any kind.

    Raises:
        Refusal: there are none.
    """
    grus = [cell for cell in thinking_cells(runs, cells) if cell.settings.get("backbone", "gru") == "gru"]
    found = [_rank(find(cell)) for cell in grus if cell.settings.get("max_reasoning_len", 1)]
    compared = [each for each in found if each]
    if not compared:
        raise Refusal(f"{runs}: no GRU cell with thoughts has a finished control to gain over", 1)
    gaining = [each for each in compared if each.gain > 0]
    if not gaining:
        raise Refusal(f"{runs}: thinking gains over no control in any cell; nothing to scale up", 1)
    return sorted(gaining, key=lambda each: (VERDICTS.index(each.found.verdict), -each.gain))


def _rank(found: Finding) -> Ranked | None:
    control = next((name for name in OVER if name in found.gains), None)
    if control is None:
        return None
    mean = estimate(found.gains[control]).mean
    return None if math.isnan(mean) else Ranked(found, control, mean)


if __name__ == "__main__":
    sys.exit(main())
