"""What the scripts have in common: the command line, the cells read, figure and table written."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import pandas as pd
from matplotlib.figure import Figure

from toyqs.evidence import style
from toyqs.evidence.cells import Cell, load_cells
from toyqs.evidence.findings import Finding, notes, origins
from toyqs.evidence.selection import choose
from toyqs.files import Refusal, write_text

ENDINGS = (".png", ".svg", ".pdf")
MORE = """\
A sweep need not be finished: what is missing is said. Where the folder holds more than one figure
can show, KEY=VALUE words choose: reasoner_hidden_dim=32 keeps the cells with that setting,
base_lm_hidden_dim=4,8 keeps both. The table is written beside the figure, as CSV."""


class Product(NamedTuple):
    """What a script makes of the cells."""

    figure: Figure
    table: pd.DataFrame
    text: list[str]  # lines printed above what is missing
    findings: Sequence[Finding]  # of the cells it shows
    keys: Sequence[str]  # the settings that tell them apart


def run_script(
    make: Callable[[Path, list[Cell]], Product], description: str, output: str, words: Sequence[str] | None
) -> int:
    """Read the cells asked for, make figure and table of them, write both, print the text.

    Args:
        make: the folder of runs, the cells chosen -> what they come to, drawn in the house style.
        description: what the figure shows, for --help.
        output: the figure's name where none is given.
        words: of the command line; None: those that the program was called with.

    Returns:
        0; 1 where the folder has nothing to show or a file cannot be written; 2 for a wrong command line.
    """
    parser = _parser(description, output)
    try:
        options = parser.parse_intermixed_args(words)
        if options.runs is None:
            raise Refusal("no folder of runs; give RUNS, the runs_dir of a sweep; --help says more")
        _check_output(options.output)
        with style.style():
            product = make(options.runs, choose(read_cells(options.runs), options.choices))
            written = _write(product, options.output)
        if warning := origins(found.cell for found in product.findings):
            print(f"{parser.prog}: {warning}", file=sys.stderr)
        print(
            "\n".join([*product.text, "", *notes(product.findings, product.keys), "", *written]), flush=True
        )
        return 0
    except Refusal as refusal:
        print(f"{parser.prog}: {refusal}", file=sys.stderr)
        return refusal.code
    except BrokenPipeError:  # whoever read the text has left; the files are written
        sys.stdout = None  # nothing is left to flush at the end
        return 0


class Parser(argparse.ArgumentParser):
    """Refuses a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises `Refusal`."""
        raise Refusal(f"{message}; --help says more")


def _parser(description: str, output: str) -> Parser:
    form = argparse.RawDescriptionHelpFormatter
    usage = "%(prog)s RUNS [KEY=VALUE ...] [-o FILE]"
    parser = Parser(usage=usage, description=description, epilog=MORE, formatter_class=form)
    # not required of argparse, which would then name KEY=VALUE as required too
    parser.add_argument("runs", metavar="RUNS", type=Path, nargs="?", help="a sweep's runs_dir")
    parser.add_argument("choices", metavar="KEY=VALUE", nargs="*", help="keep the cells with this setting")
    purpose = f"the figure, {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}; without this %(default)s"
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path(output), help=purpose)
    return parser


def _check_output(path: Path) -> None:
    if path.suffix not in ENDINGS:
        raise Refusal(f"-o {path}: the ending chooses the format; give one of {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise Refusal(f"-o {path}: there is no folder {path.parent}; make it first")


def read_cells(runs: Path) -> list[Cell]:
    """The cells of a folder of runs.

    Raises:
        Refusal: there is no such folder, nothing was begun in it, or a file is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of several commits; `origins` looks at the rows shown only
            cells = load_cells(runs)
    except FileNotFoundError as error:
        raise Refusal(str(error)) from None
    except (OSError, ValueError) as error:
        raise Refusal(str(error), 1) from None
    if not cells:
        raise Refusal(f"{runs}: no run was begun here; give the runs_dir of a python run.py", 1)
    return cells


def _write(product: Product, path: Path) -> list[str]:
    table = path.with_suffix(".csv")
    try:
        style.save(product.figure, path)
        write_text(table, product.table.to_csv(index=False))
    except OSError as error:
        raise Refusal(f"-o {path}: cannot be written: {error.strerror or error}", 1) from None
    return [f"figure {path}", f"table  {table}"]
