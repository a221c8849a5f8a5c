"""Compare values of settings, such as optimisers, each at the point of a grid that suits it best."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, path_of, run, writing
from toyqs.evidence.cells import FOLDER, Cell, load_cells
from toyqs.evidence.judging.findings import estimate_text
from toyqs.evidence.judging.gain import by_seed, reasoning_gain
from toyqs.evidence.judging.significance import holm_bar, p_value
from toyqs.evidence.selection import differing, order
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import csv_text, spans, spelled
from toyqs.files import Refusal, write_text

DESCRIPTION = """\
Compare the values of some settings (--compare), each an arm, as trained with the point of a grid (--by) at
which it does best in the runs of TUNE, by the mean NLL over their seeds. They are compared in the runs of
REPORT, which are of other seeds: the NLL there, what it gains over the first arm, paired by seed, with 95 %
intervals and a t-test's p, corrected (Holm) for all comparisons made; and the CPU time of a step. TUNE and
REPORT are folders of runs, or each holds one for every question, under the same names; the runs of REPORT
may be those of the chosen points alone. All rows are written as CSV."""

SPENT = ("nll", "accuracy", "train_steps", "cpu_seconds", "commit")

Point = tuple[Any, ...]


class Arm(NamedTuple):
    """One value of the compared settings."""

    best: Point  # of the grid
    at_edge: bool  # whether that is the least or the largest value tried of some setting
    tuned: pd.DataFrame  # its rows there, one per seed
    report: pd.DataFrame


class Question(NamedTuple):
    """What was compared in one setting; the first arm is what the others are held against."""

    arms: dict[Point, Arm]
    gains: dict[Point, pd.Series]  # over the first arm by seed, above 0 where the arm is better
    rows: pd.DataFrame


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=DESCRIPTION, formatter_class=form)
    parser.add_argument("tune", metavar="TUNE", type=path_of, help="runs to choose by")
    parser.add_argument("report", metavar="REPORT", type=path_of, help="runs to compare")
    settings = "settings with commas; without this %(default)s"
    parser.add_argument("--compare", metavar="KEYS", default="optimizer,grokfast_lambda", help=settings)
    parser.add_argument("--by", metavar="KEYS", default="base_lr", help=settings)
    output = "the file of all rows; without this %(default)s"
    parser.add_argument("-o", "--output", metavar="FILE.csv", type=path_of, default="rows.csv", help=output)
    return run(_work, parser, words)


def _work(options: argparse.Namespace) -> None:
    compare, by = options.compare.split(","), options.by.split(",")
    inside = sorted(x.parent for x in options.tune.glob(f"*/{FOLDER}")) if options.tune.is_dir() else []
    one = not inside or (options.tune / FOLDER).is_dir()
    pairs = [(options.tune, options.report)] if one else [(x, options.report / x.name) for x in inside]
    found = {tune.name: compared(tune, report, compare, by) for tune, report in pairs}
    bar = holm_bar([p_value(gain) for each in found.values() for gain in each.gains.values()])
    rows = [each.rows.assign(question=name) for name, each in found.items()]
    table = pd.concat(rows, ignore_index=True)
    with writing(options.output):
        write_text(options.output, csv_text(table[["question", *table.columns.drop("question")]]))
    for name, each in found.items():
        print("\n".join(lines(name, each, compare, by, bar)))
    number = sum(len(each.gains) for each in found.values())
    print(f"{number} comparisons, Holm: p of {bar:.3g} or less counts; * at an end of the grid")
    print(f"rows of commits {', '.join(sorted(set(table['commit'])))} in {options.output}", flush=True)


def compared(tune: Path, report: Path, compare: Sequence[str], by: Sequence[str]) -> Question:
    """Choose each arm's point in one folder of runs, and compare the arms there in another.

    Args:
        tune: the folder to choose by; every arm has the same number of points and seeds.
        report: the folder to compare in.
        compare: the settings whose values are the arms.
        by: the settings of the grid.

    Raises:
        Refusal: one line; there are no runs, they differ in other settings too, arms were tuned unequally, a
            seed is in both folders or lacking in one.
    """
    tried, reported = _grids(tune, compare, by), _grids(report, compare, by)
    sizes = {arm: [len(points), *map(len, points.values())] for arm, points in tried.items()}
    (first, size), *others = sizes.items()
    for arm, other in others:
        if other != size:
            raise Refusal(f"{tune}: {_text(first)} has {size} points and seeds of each, {_text(arm)} {other}")
    arms = {}
    for arm, points in tried.items():
        means = {point: by_seed(frame, "nll").mean(skipna=False) for point, frame in points.items()}
        best = min(means, key=lambda point: (math.isnan(means[point]), means[point]))
        there = reported.get(arm, {}).get(best)
        if there is None:
            raise Refusal(f"{report}: lacks {_text(arm)} at {', '.join(by)} = {_text(best)}; run it there")
        if both := set(there["seed"]) & set(points[best]["seed"]):
            raise Refusal(f"{report}: seed {spans(both)} was tuned with; report other seeds")
        arms[arm] = Arm(best, _at_edge(best, list(points)), points[best], there)
    seeds = {arm: set(each.report["seed"]) for arm, each in arms.items()}
    if lacking := [arm for arm in seeds if seeds[arm] != seeds[first]]:
        raise Refusal(f"{report}: {_text(lacking[0])} has other seeds than {_text(first)}")
    gains = {arm: reasoning_gain(x.report, arms[first].report) for arm, x in arms.items() if arm != first}
    rows = [_rows("tune", tried, [*compare, *by]), _rows("report", reported, [*compare, *by])]
    return Question(arms, gains, pd.concat(rows, ignore_index=True))


def _grids(folder: Path, compare: Sequence[str], by: Sequence[str]) -> dict[Point, dict[Point, pd.DataFrame]]:
    """Return the finished rows by arm and point, both in ascending order."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of several commits, which the last line names
            loaded = load_cells(folder)
    except (OSError, ValueError) as error:
        raise Refusal(str(error)) from None
    cells = [cell for cell in loaded if any(len(frame) for frame in cell.arms.values())]
    if not cells:
        raise Refusal(f"{folder}: no run has finished here", 1)
    if other := sorted(differing(cells).keys() - {*compare, *by}):
        raise Refusal(f"{folder}: the cells differ in {', '.join(other)} too; name it in --compare or --by")
    grids: dict[Point, dict[Point, pd.DataFrame]] = {}
    for cell in sorted(cells, key=lambda cell: [order(x) for x in (*_of(cell, compare), *_of(cell, by))]):
        grids.setdefault(_of(cell, compare), {})[_of(cell, by)] = next(iter(cell.arms.values()))
    return grids


def lines(name: str, each: Question, compare: Sequence[str], by: Sequence[str], bar: float) -> list[str]:
    """Return a question's table as text; p up to the bar counts."""
    arms = list(each.arms.values())
    gains = [each.gains.get(arm) for arm in each.arms]
    words = ["" if gain is None else _word(gain, bar) for gain in gains]
    steps = [1000 * x.report["cpu_seconds"] / x.report["train_steps"] for x in arms]
    points = [f"{_text(x.best)}{' *' if x.at_edge else ''}" for x in arms]
    tuned, reported = by_seed(arms[0].tuned, "nll"), by_seed(arms[0].report, "nll")
    columns = [
        Column(", ".join(compare), "", [_text(arm) for arm in each.arms], left=True),
        Column(", ".join(by), "chosen", points, left=True),
        Column("NLL", "tuning", [f"{by_seed(x.tuned, 'nll').mean():.3f}" for x in arms]),
        Column("NLL", "report", [estimate_text(by_seed(x.report, "nll"), ".3f") for x in arms]),
        Column("gain over", "the first", [estimate_text(gain, "+.3f") for gain in gains]),
        Column("p", "", ["–" if gain is None else f"{p_value(gain):.2g}" for gain in gains]),
        Column("", "", words, left=True),
        Column("CPU ms", "/step", [f"{step.mean():.2f}" for step in steps]),
    ]
    seeds = [spans(map(int, values.index)) for values in (tuned, reported)]
    head = f"{name}: NLL in nats; chosen by seeds {seeds[0]}, report of {seeds[1]}"
    return [head, *plain_text(columns), ""]


def _word(gain: pd.Series, bar: float) -> str:
    p = p_value(gain)
    return "undecided" if math.isnan(p) or p > bar else "better" if gain.mean() > 0 else "worse"


def _of(cell: Cell, keys: Sequence[str]) -> Point:
    return tuple(cell.settings.get(key) for key in keys)


def _text(point: Point) -> str:
    return ", ".join("–" if x is None else spelled(x) for x in point)


def _at_edge(best: Point, points: Sequence[Point]) -> bool:
    columns = zip(best, *points, strict=True)
    return any(len(set(tried)) > 1 and own in (min(tried), max(tried)) for own, *tried in columns)


def _rows(part: str, grids: dict[Point, dict[Point, pd.DataFrame]], keys: Sequence[str]) -> pd.DataFrame:
    """Return all runs: part, arm and point, seed, what they measured and spent."""
    tables = []
    for arm, points in grids.items():
        for point, frame in points.items():
            own = {"part": part, **dict(zip(keys, map(spelled, (*arm, *point)), strict=True))}
            table = frame.reindex(columns=["seed", *SPENT]).round(6)
            table["commit"] = table["commit"].str[:7]
            tables.append(table.assign(**own)[[*own, *table]])
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    sys.exit(main())
