"""Judge thinking against controls each of which was tuned as thinking was, or as all were run."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, path_of, run, writing
from toyqs.evidence.cells import FOLDER
from toyqs.evidence.figures import style
from toyqs.evidence.figures.frame import frame
from toyqs.evidence.figures.script import add_output, check_output
from toyqs.evidence.figures.tuned import tuned_figure
from toyqs.evidence.judging.findings import estimate_text
from toyqs.evidence.judging.significance import p_value
from toyqs.evidence.judging.tuning import LENGTH, Tuned, as_run, point_text, tuned_alike
from toyqs.evidence.measures import measure_of
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import WIDTH, csv_text, spans
from toyqs.files import Refusal, replacing, write_text

DESCRIPTION = """\
Choose for each arm the point of a grid at which it does best in the runs of TUNE, by the mean over their
seeds, and compare the arms at these points in the runs of REPORT, which are of other seeds. TUNE and REPORT
are folders of runs, or each holds one for every question, under the same names. Without TUNE all arms are
compared as they were run. A run with a label, info=NAME, is one more arm of that name, tuned likewise.
Thinking is better or worse than a control by a paired t-test at .05, corrected (Holm) for the number of
controls. All rows are written next to the figure, as CSV."""
QUESTION = "What does thinking gain over controls that were tuned alike?"
UNTUNED = "What does thinking gain over each other arm?"
MEASURE = """columns to choose and compare by: one for all questions, and NAME=COLUMN for those judged by
another; with commas; without this %(default)s"""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=DESCRIPTION, formatter_class=form)
    parser.add_argument("tune", metavar="TUNE", type=path_of, nargs="?", help="runs to choose by")
    parser.add_argument("report", metavar="REPORT", type=path_of, help="runs to compare")
    grid = "settings of the grid, with commas; without this %(default)s"
    parser.add_argument("--by", metavar="KEYS", default="weight_decay", help=grid)
    parser.add_argument("--measure", metavar="COLUMNS", default="accuracy", help=MEASURE)
    add_output(parser, "tuned_controls.png")
    return run(_work, parser, words)


def _work(options: argparse.Namespace) -> None:
    beside, by = options.output.with_suffix(".csv"), options.by.split(",") if options.tune else []
    check_output(options.output, beside)
    found = questions(options.tune, options.report, by, options.measure.split(","))
    tuned = f"every arm at its own best {', '.join(by)}, chosen on other seeds"
    about = tuned if options.tune else "all arms as they were run"
    footer = [f"{name}: thinking {each.verdict}" for name, each in found.items()]
    rows = [each.rows.assign(question=name) for name, each in found.items()]
    table = pd.concat(rows, ignore_index=True)
    with style.style(options.talk), writing(options.output), replacing(beside) as temporary:
        figure = tuned_figure([(name, each.measure, each.gains) for name, each in found.items()])
        frame(figure, QUESTION if options.tune else UNTUNED, [about], footer, options.talk)
        write_text(temporary, csv_text(table[["question", *table.columns.drop("question")]]))
        style.save(figure, options.output)
    print("\n".join(line for name, each in found.items() for line in lines(name, each, by)))
    print(f"rows of commits {', '.join(sorted(set(table['commit'])))}\n")
    print(f"figure {options.output}\ntable  {beside}", flush=True)


def questions(
    tune: Path | None, report: Path, by: Sequence[str], measures: Sequence[str]
) -> dict[str, Tuned]:
    """Load the questions of two folders, by name.

    Args:
        tune: a folder of runs, or of such folders; None: nothing was tuned.
        report: likewise.
        by: settings of the grid.
        measures: COLUMN or NAME=COLUMN each.

    Raises:
        Refusal: as `tuned_alike`, or a name is no question's.
    """
    own = dict(word.split("=", 1) for word in measures if "=" in word)
    usual = next((word for word in measures if "=" not in word), "accuracy")
    first = tune or report
    inside = sorted(path.parent for path in first.glob(f"*/{FOLDER}")) if first.is_dir() else []
    pairs = {folder.name: (folder, report / folder.name) for folder in inside}
    if not pairs or (first / FOLDER).is_dir():
        pairs = {first.name: (first, report)}
    if unknown := sorted(own.keys() - pairs.keys()):
        raise Refusal(f"--measure {unknown[0]}=…: no such question; there is {', '.join(pairs)}")
    if tune is None:
        return {name: as_run(folder, own.get(name, usual)) for name, (folder, _) in pairs.items()}
    return {name: tuned_alike(*pair, by, own.get(name, usual)) for name, pair in pairs.items()}


def _lengths(tuned: Tuned, arms: Sequence[str]) -> list[Column]:
    """Return a column of how many symbols the thoughts of untuned arms had on average, where they differ."""
    if LENGTH not in tuned.rows or tuned.tuning:
        return []
    means = tuned.rows.groupby("arm")[LENGTH].mean()
    return [Column("length of", "a thought", [f"{means[arm]:.2f}" if means[arm] > 0 else "" for arm in arms])]


def lines(name: str, tuned: Tuned, by: Sequence[str]) -> list[str]:
    """Return a question's table and verdict as text."""
    scale, form = (100, ".1f") if measure_of(tuned.measure).form == "%" else (1, ".3f")
    arms, words = list(tuned.chosen), tuned.words
    points = [f"{point_text(tuned.chosen[arm])}{' *' if tuned.at_edge[arm] else ''}" for arm in arms]
    gains = [tuned.gains.get(arm) for arm in arms]
    ps = ["–" if gain is None else f"{p_value(gain):.2g}" for gain in gains]
    means = [f"{scale * tuned.tuning[arm].mean():{form}}" for arm in arms if arm in tuned.tuning]
    columns = [
        Column("arm", "", arms, left=True),
        *([Column("best", "point", points, left=True)] if by else []),
        *([Column(tuned.measure, "tuning", means)] if by else []),
        *_lengths(tuned, arms),
        Column(tuned.measure, "report", [estimate_text(scale * tuned.values[arm], form) for arm in arms]),
        Column(
            "gain of thinking", "", [estimate_text(x if x is None else scale * x, f"+{form}") for x in gains]
        ),
        Column("p", "", ps),
        Column("thinking is", "", [words.get(arm, "") for arm in arms], left=True),
    ]
    parts = (tuned.tuning, tuned.values)
    seeds = [spans(int(seed) for seed in each[arms[0]].index) for each in parts if each]
    edge = ["* the largest value that was tried of one of them"] if any(tuned.at_edge.values()) else []
    unit = "%" if scale == 100 else "nats"
    chosen = f"best {', '.join(by)} by seeds {seeds[0]}" if by else "all as run"
    head = f"{name}: {tuned.measure}, {unit}; {chosen}, report of {seeds[-1]}"
    verdict = f"Thinking {tuned.verdict} ({len(words)} controls, Holm)."
    return [*textwrap.wrap(head, WIDTH), *plain_text(columns), *edge, *textwrap.wrap(verdict, WIDTH), ""]


if __name__ == "__main__":
    sys.exit(main())
