"""Draw bias and noise of every estimator of the policy's gradient against the number of thoughts."""

from __future__ import annotations

import argparse
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, run, writing
from toyqs.evidence.figures import style
from toyqs.evidence.figures.estimators import COLUMNS, NOTES, QUESTION, estimators_figure
from toyqs.evidence.figures.frame import frame
from toyqs.evidence.figures.script import add_output, check_output
from toyqs.files import Refusal

DESCRIPTION = """\
Draw the table of `python bench/estimators.py -o estimators.csv`: for each estimator and number of thoughts K
the direction of its expected gradient (cosine with the exact one), its length over the exact one's, and
its noise (standard deviation over the expected gradient's length)."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    form = argparse.RawTextHelpFormatter
    parser = Parser(description=DESCRIPTION, formatter_class=form)
    parser.add_argument("table", help="the CSV that bench/estimators.py wrote")
    add_output(parser, "estimators.png")
    return run(_draw_table, parser, words)


def _draw_table(options: argparse.Namespace) -> None:
    check_output(options.output)
    table = read(options.table)
    with style.style(options.talk), writing(options.output):
        drawn = estimators_figure(table)
        number = table["estimator"].nunique()
        frame(drawn, QUESTION, [f"{number} estimators, by the number of thoughts K"], NOTES, options.talk)
        style.save(drawn, options.output)
    print(f"figure {options.output}")


def read(path: str) -> pd.DataFrame:
    """Read the table, one row for each estimator and K.

    Raises:
        Refusal: it cannot be read, or is another table.
    """
    remedy = "give the CSV of python bench/estimators.py"
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ValueError("a pipe or a device, which may have no end")
        table = pd.read_csv(path, dtype={"estimator": str, "aim": str})
    except (OSError, ValueError) as error:
        raise Refusal(f"{path}: cannot be read; {remedy}") from error
    lacking = {"estimator", "K", "aim", *COLUMNS} - set(table.columns)
    if lacking or table.empty:
        raise Refusal(f"{path}: holds no estimators; {remedy}")
    numbers = table[["K", *COLUMNS]].apply(pd.to_numeric, errors="coerce")
    right = np.isfinite(numbers).all(axis=1) & (numbers["K"] >= 1) & table["estimator"].notna()
    if not right.all():
        raise Refusal(f"{path}: line {int(right.argmin()) + 2} holds no estimator's numbers; {remedy}")
    return table.assign(**numbers)


if __name__ == "__main__":
    sys.exit(main())
