"""Draw bias and noise of every estimator of the policy's gradient against the number of thoughts."""

from __future__ import annotations

import argparse
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, run
from toyqs.evidence.figures import style
from toyqs.evidence.figures.script import add_output, check_output, write
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw the table of `python bench/estimators.py -o estimators.csv`: for each estimator and number of thoughts K
the direction of its expected gradient (cosine with the exact one), its length over the exact one's, and
its noise (standard deviation over the expected gradient's length)."""

COLUMNS = {
    "cosine": "cosine of expected and exact gradient",
    "length": "expected over exact length",
    "noise": "standard deviation over expected length",
}
MARKS = "os^vD<>pPX*hd"
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    form = argparse.RawTextHelpFormatter
    parser = Parser(prog=Path(__file__).name, description=DESCRIPTION, formatter_class=form)
    parser.add_argument("table", help="the CSV that bench/estimators.py wrote")
    add_output(parser, "estimators.png")
    return run(_draw_table, parser, words)


def _draw_table(options: argparse.Namespace) -> None:
    check_output(options.output)
    table = read(options.table)
    with style.style():
        print(*write(options.output, figure(table)))


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


def figure(table: pd.DataFrame) -> Figure:
    """Draw three panels against K, a line for each estimator.

    Args:
        table: from `read`.
    """
    drawn = style.new_figure(13.5, 5.5)
    panels = drawn.subplots(1, 3)
    for place, (name, rows) in enumerate(table.groupby("estimator", sort=False)):
        look = {"color": COLOURS[place % len(COLOURS)], "marker": MARKS[place % len(MARKS)]}
        if (rows["aim"] != "reward").any():
            look["linestyle"] = "--"
        for axes, column in zip(panels, COLUMNS, strict=True):
            axes.plot(rows["K"], rows[column], label=str(name), markersize=5, linewidth=1.4, **look)
    for axes, (column, title) in zip(panels, COLUMNS.items(), strict=True):
        _label(axes, title, table["K"], log=column != "cosine")
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=5)
    drawn.suptitle(
        "Solid: held against the gradient of the reward; dashed: of reward and entropy", fontsize=11
    )
    return drawn


def _label(axes: Axes, title: str, numbers: pd.Series, *, log: bool) -> None:
    axes.set_title(title)
    axes.set_xlabel("thoughts per position K (log scale)")
    axes.set_xscale("log", base=2)
    ticks = sorted(set(numbers))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    if log:
        axes.set_yscale("log")
        axes.axhline(1.0, color="#4D4D4D", linewidth=0.8)


if __name__ == "__main__":
    sys.exit(main())
