"""Show how two runs differ: settings, commit, versions, results side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from toyqs.command_line import path_of
from toyqs.evidence.commands import description
from toyqs.evidence.measures import MEASURES, measure_of, written
from toyqs.evidence.runs import RunsFolder, load_run
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import WIDTH, spelled
from toyqs.installation import program

MADE_BY = ("commit", "dirty", *description.VERSIONS, "platform", "cpu_count", "stack_size", "command")
ONE_SEED = """\
b - a: both have seed {seed}, so the difference is paired; it is of one seed, so it has no interval. Of a
sweep's seeds `{evidence} table RUNS` prints gains with theirs."""
TWO_SEEDS = """\
b - a: their seeds differ ({a} and {b}), so the difference is not paired: it holds what another seed alone
would change, and has no interval."""


def add_to(commands: Any) -> None:
    """Add the command `diff`."""
    text = "how two runs differ: settings, commit, versions, results side by side"
    part = commands.add_parser("diff", help=text, description=text)
    part.add_argument("a", metavar="RUN", type=path_of, help="folder of a run, runs/KEY")
    part.add_argument("b", metavar="RUN", type=path_of, help="folder of another one")
    part.set_defaults(work=lambda given: print("\n".join(lines_of(load_run(given.a), load_run(given.b)))))


def lines_of(*folders: RunsFolder) -> list[str]:
    """Return how the runs of two folders differ, in lines of at most 110 columns."""
    runs = [folder.runs[0] for folder in folders]
    settings = [description.settings_of(run) for run in runs]
    made = [description.environment_of(run) for run in runs]
    lines = []
    for letter, folder, run in zip("ab", folders, runs, strict=True):
        lines += [(letter, f"{run.folder}: {description.state_text(run)}")]
        lines += [("", place) for place in description.places_of(folder)]
    changed = [each.get(description.CHANGED) for each in made]
    differ = _differing(settings, _told(settings, changed), changed)
    made_by = _differing(made, MADE_BY)
    return [
        *description.listed(lines),
        "",
        *_side_by_side("setting", differ, "no setting differs"),
        "",
        *_side_by_side("made by", made_by, "both were made by the same command, commit and versions"),
        "",
        *_results([run.state.row or {} for run in runs], settings),
    ]


def _told(settings: Sequence[dict[str, Any]], changed: Sequence[Any]) -> list[str]:
    """Return the settings that may be named: where both runs note which are not the defaults, these alone.

    Else a run without thoughts would differ in all settings of thoughts, which have no effect in it.
    """
    names = list(dict.fromkeys(name for each in settings for name in each))
    if not all(isinstance(each, dict) for each in changed):
        return names
    return [name for name in names if name == "seed" or any(name in each for each in changed)]


def _differing(
    given: Sequence[dict[str, Any]], names: Sequence[str], changed: Sequence[Any] = (None, None)
) -> list[tuple[str, str, str]]:
    """Return name and both values of what differs; what one of them lacks is "–"."""
    rows = []
    for name in names:
        values = [each.get(name) for each in given]
        if values[0] != values[1]:
            texts = [spelled(x) if name in each else "–" for x, each in zip(values, given, strict=True)]
            default = [isinstance(each, dict) and name not in {*each, "seed"} for each in changed]
            first, second = (
                f"{x} (default)" if is_default else x for x, is_default in zip(texts, default, strict=True)
            )
            rows.append((name, first, second))
    return rows


def _side_by_side(title: str, rows: Sequence[tuple[str, str, str]], nothing: str) -> list[str]:
    """Return a table of names and values of a and b; values that are too long for it stand below it."""
    if not rows:
        return [nothing]
    most = (WIDTH - max(len(row[0]) for row in rows) - 4) // 2
    short = [row for row in rows if max(map(len, row[1:])) <= most]
    names, first, second = ([row[place] for row in short] for place in range(3))
    columns = [Column("", title, names, True), Column("", "a", first, True), Column("", "b", second, True)]
    lines = plain_text(columns) if short else [title]
    for name, *values in (row for row in rows if row not in short):
        pairs = [(f"{name}  {letter}", value) for letter, value in zip("ab", values, strict=True)]
        lines += description.listed(pairs)
    return lines


def _results(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]]) -> list[str]:
    names = [name for name in MEASURES if any(row.get(name) is not None for row in rows)]
    if not all(rows):
        return ["no results to compare: not both have finished"]
    columns = [
        Column("", "result", [measure_of(name).words for name in names], True),
        *(Column("", x, [written(n, row.get(n)) for n in names]) for x, row in zip("ab", rows, strict=True)),
        Column("", "b - a", [_difference(name, *(row.get(name) for row in rows)) for name in names]),
        Column("", "unit", [measure_of(name).unit for name in names], True),
    ]
    a, b = (each.get("seed") for each in settings)
    words = (
        ONE_SEED.format(seed=a, evidence=program("toyqs.evidence")) if a == b else TWO_SEEDS.format(a=a, b=b)
    )
    return [*plain_text(columns), "", *textwrap.wrap(" ".join(words.split()), WIDTH)]


def _difference(name: str, a: Any, b: Any) -> str:
    """Return b - a of two numbers that differ; "" of anything else."""
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    return written(name, b - a, "+") if numbers and a != b else ""
