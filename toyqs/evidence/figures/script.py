"""Parts that the analysis scripts share: command line, reading cells, writing figure and table."""

from __future__ import annotations

import argparse
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from toyqs.command_line import Parser, check_file, path_of, run, writing
from toyqs.evidence.cells import Cell, by_key, cells_of
from toyqs.evidence.figures import style
from toyqs.evidence.figures.frame import about_line, frame
from toyqs.evidence.figures.style import ENDINGS
from toyqs.evidence.judging.findings import Finding, origins
from toyqs.evidence.rows import load_rows
from toyqs.evidence.runs import nothing_begun
from toyqs.evidence.selection import choose, setting_line
from toyqs.evidence.tables.references import joint_lines, joint_note
from toyqs.evidence.tables.sweep import names_of, notes
from toyqs.evidence.text import WIDTH, csv_text
from toyqs.files import Refusal, replacing, visible, write_text

MORE = """\
A sweep need not be finished: missing runs are listed. Where the folder holds more than one figure
can show, KEY=VALUE words choose: reasoner_hidden_dim=32 keeps the cells with that setting,
base_lm_hidden_dim=4,8 keeps both. The table is written next to the figure, as CSV."""


class Product(NamedTuple):
    """The figure, table and text that a script makes of the cells, each without the common settings."""

    question: str  # that the figure answers, its title
    figure: Figure
    table: pd.DataFrame
    text: list[str]  # lines printed between the common settings and what is missing
    findings: Sequence[Finding]  # of the cells shown
    keys: Sequence[str]  # the settings that name a cell
    notes: Sequence[str] = ()  # lines of the figure below the common settings


def run_script(
    make: Callable[..., Product],
    description: str,
    output: str,
    words: Sequence[str] | None,
    over: Mapping[str, Any] | None = None,
) -> int:
    """Read the cells asked for, make figure and table of them, write both, print the text.

    Args:
        make: the folder of runs, the cells chosen -> figure, table and text, drawn in the figure style; what
            --over says comes third, where there is such an option.
        description: what the figure shows, for --help.
        output: the figure's name where none is given.
        words: of the command line; None: those that the program was called with.
        over: the option --over, which chooses the horizontal axis, as argparse takes it; None: there is none.

    Returns:
        0; 1 where the folder has nothing to show or a file cannot be written; 2 for a wrong command line or a
        damaged file.
    """
    parser = runs_parser(
        description, "[--over AXIS] [-o FILE] [--talk]" if over else "[-o FILE] [--talk]", MORE
    )
    add_output(parser, output)
    if over:
        parser.add_argument("--over", metavar="AXIS", **over)

    def work(options: argparse.Namespace) -> None:
        check_output(options.output, options.output.with_suffix(".csv"))
        with style.style(options.talk):
            product = make(options.runs, chosen_cells(options), *([options.over] if over else []))
            cells = [finding.cell for finding in product.findings]
            written = write(options, product.figure, product.question, cells, product.notes, product.table)
        if warning := origins(cells):
            print(f"{parser.prog}: {warning}", file=sys.stderr)
        missing = notes(product.findings, names_of(product.findings, product.keys))
        text = [*textwrap.wrap(setting_line(cells), WIDTH), *joint_lines(cells), "", *product.text]
        print("\n".join([*text, "", *missing, "", *written]), flush=True)

    return run(work, parser, words)


def require_one_token(runs: Path, cells: Sequence[Cell]) -> None:
    """Refuse cells that are judged by several tokens together where the first alone is measured.

    Args:
        runs: their folder.
        cells: those chosen.

    Raises:
        Refusal: one line.
    """
    if any(cell.loss == "nll_joint" for cell in cells):
        why = "with ahead=joint all tokens of a position are judged together, and this measures the first"
        raise Refusal(f"{runs}: {why}; choose other cells with KEY=VALUE")


def runs_parser(description: str, options: str, epilog: str | None = None) -> Parser:
    """Create a parser of RUNS and of KEY=VALUE words; `options` ends the line of usage."""
    form, usage = argparse.RawDescriptionHelpFormatter, f"%(prog)s RUNS [KEY=VALUE ...] {options}"
    parser = Parser(usage=usage, description=description, epilog=epilog, formatter_class=form)
    # not required of argparse, which would then name KEY=VALUE as required too
    parser.add_argument("runs", metavar="RUNS", type=path_of, nargs="?", help="a sweep's runs_dir")
    parser.add_argument("choices", metavar="KEY=VALUE", nargs="*", help="keep the cells with this setting")
    return parser


def add_output(parser: argparse.ArgumentParser, output: str) -> None:
    """Add the options that name the figure and choose its size."""
    purpose = f"the figure, {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}; without this %(default)s"
    parser.add_argument("-o", "--output", metavar="FILE", type=path_of, default=Path(output), help=purpose)
    parser.add_argument("--talk", action="store_true", help="for a slide: 16:9, in large letters")


def check_output(figure: Path, *beside: Path) -> None:
    """Refuse the path of a figure, and of files beside it, before anything is computed.

    Raises:
        Refusal: the ending is no known format, or a file cannot be there.
    """
    if figure.suffix not in ENDINGS:
        raise Refusal(f"-o {figure}: the ending chooses the format; give one of {', '.join(ENDINGS)}")
    for path in (figure, *beside):
        check_file(path)


def chosen_cells(options: argparse.Namespace) -> list[Cell]:
    """Load the cells that a command line of `runs_parser` chooses; name the rows that cannot be read.

    Raises:
        Refusal: no folder is given, it does not exist, no run was started in it, a note of a cell is damaged,
            or no cell is left.
    """
    runs: Path | None = options.runs
    if runs is None:
        raise Refusal("no folder of runs; give RUNS, the runs_dir of a sweep; --help says more")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of several commits; `origins` looks at the rows shown only
            rows = load_rows(runs)
        cells = cells_of(runs, by_key(rows))
    except (OSError, ValueError) as error:
        raise Refusal(str(error)) from None
    if not cells:
        raise nothing_begun(runs)
    for line in rows.attrs["damaged"]:
        print(f"toyqs: {visible(line)}", file=sys.stderr)
    return choose(cells, options.choices)


def write(
    options: argparse.Namespace,
    figure: Figure,
    question: str,
    cells: Sequence[Cell],
    notes: Sequence[str],
    table: pd.DataFrame,
) -> list[str]:
    """Frame a figure of cells, write it, and a table next to it as CSV; return the lines that name them.

    Args:
        options: of a command line with `add_output`.
        figure: drawn within the style that is still in force.
        question: that it answers.
        cells: that it shows.
        notes: lines of the footer below the common settings.
        table: its numbers.

    Raises:
        Refusal: a file cannot be written; then neither is.
    """
    frame(
        figure, question, [about_line(cells)], [setting_line(cells), *notes, *joint_note(cells)], options.talk
    )
    path = options.output
    beside = path.with_suffix(".csv")
    with writing(path), replacing(beside) as temporary:  # it takes its place once the figure has
        write_text(temporary, csv_text(table))
        style.save(figure, path)
    return [f"figure {path}", f"table  {beside}"]
