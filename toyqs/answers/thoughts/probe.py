"""`probe`: what linear probes find in a run, and in controls that were trained alike."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from toyqs.answers.command import add_thoughts_measure
from toyqs.answers.heading import heading
from toyqs.answers.thoughts.arm import Arm, interval_words, load_arm
from toyqs.answers.thoughts.probing import (
    FOLDS,
    NOTHING,
    ROWS,
    Found,
    Split,
    Table,
    difference,
    over,
    probe_arm,
    split_of,
)
from toyqs.answers.thoughts.siblings import controls_of, missing_lines, siblings
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.errors import Refusal
from toyqs.config.identity import run_key
from toyqs.evidence.arms import THINKING
from toyqs.evidence.runs import arms_of
from toyqs.evidence.text import WIDTH, aligned, plus_minus, spans

CONTROLS = ("state_handed_on", "pause", "policy_off")  # that are looked for, in the order of display
MEASURES = {"accuracy": ("%", 100.0, ".1f"), "nll": ("nats", 1.0, ".3f")}
NOT_FOUND, NO_EVIDENCE, MORE = "nothing found", "no evidence", "above controls"
ALONE, MISSING = "no control", "controls missing"

MOST_OTHERS = 3  # arms next to the thinking one, so that a table is not too wide

Tables = dict[str, Table]  # by arm, the thinking one first


def add_to(measures: Any) -> None:
    """Add the measure to the command line."""
    text = "what linear probes find in thoughts and states, and in those of controls"
    number = f"as many as have {ROWS:,} thinking positions, at most those of the runs' own evaluation"
    part = add_thoughts_measure(measures, "probe", _probe, text, number)
    help_ = "other runs to compare with, besides the controls found next to the runs; once for each arm"
    part.add_argument("--against", metavar="RUN", nargs="+", action="append", default=[], help=help_)
    part.add_argument("--features", metavar="NAME", nargs="+", help="only these of the task's features")


def _probe(given: argparse.Namespace) -> Any:
    arm = load_arm(given.runs, given.device)
    _check(arm)
    split = split_of(arm.first, given.sequences)
    found = siblings(arm, CONTROLS, given.device)
    arms = {THINKING: arm, **found.arms}
    for folders in given.against:
        other = load_arm(folders, given.device)
        _check_against(arm, other, split)
        name = _name(arm, other)
        arms[name] = other
        found.missing.pop(name, None)
    probed = {name: probe_arm(each, split, given.features) for name, each in arms.items()}
    tables = {name: table for name, (table, _) in probed.items()}
    _, classes = probed[THINKING]
    untrained = found.missing.keys() - arms.keys()
    results = {feature: results_of(tables, feature, untrained) for feature in classes}
    print(*heading(arm.folders), "", sep="\n")
    own = (arms_of(Path(arm.first.folder)) or [THINKING])[0]
    for feature, count in classes.items():
        print("\n".join(_title(tables, feature, count)))
        for shown in _blocks(list(tables)):
            print("\n".join([*_grid(tables, feature, untrained, shown, own), ""]))
    print("\n".join([*_notes(arm, split, own), *missing_lines(arm, found.missing)]))
    return {"classes": classes, "features": results, "missing": found.missing}


def _check(arm: Arm) -> None:
    """Refuse runs without thoughts, or of a task without features."""
    run = arm.first
    run.check_thoughts()
    if run.config.hands_on:
        raise Refusal(
            f"{run.folder}: thought_into=state has a base state for each of its chains, and a probe reads "
            "one for each position; give runs of thought_into=prediction"
        )
    if run.config.task.features is None:
        raise Refusal(
            f"{run.folder}: its task, {run.config.task.name}, names no features to probe for; "
            "docs/adding-a-task.md says how to add them"
        )


def _check_against(arm: Arm, other: Arm, split: Split) -> None:
    """Refuse runs that cannot be paired with the thinking ones."""
    run = other.first
    inputs = draw_held_out(run.config, 1, next(run.model.parameters()), len(split.inputs)).inputs[0].cpu()
    if inputs.shape != split.inputs.shape or (inputs != split.inputs).any():
        raise Refusal(
            f"--against {run.folder}: its held-out sequences are not those of {arm.first.folder}; give "
            "runs of the same task and settings of it"
        )
    if not arm.runs.keys() & other.runs.keys():
        raise Refusal(
            f"--against {run.folder}: has no seed in common with the runs, which have {spans(arm.runs)}; "
            "give runs of these seeds"
        )


def _name(arm: Arm, other: Arm) -> str:
    """Return the name of the control that some runs are; their first key where they are none."""
    seed, run = next(iter(other.runs.items()))
    names = {run_key(control, seed): name for name, control in reversed(controls_of(arm).items())}
    key = Path(run.folder).resolve().name
    return names.get(key, key)


def evidence(
    row: Mapping[str, Mapping[int, Found]], nothing: Mapping[int, Found], missing: Collection[str] = ()
) -> tuple[str, list[str]]:
    """Judge what is found at one place, by the probes' NLL.

    Args:
        row: arm -> what is found there, the thinking arm first.
        nothing: what its probe finds that reads nothing.
        missing: controls of which no run was trained.

    Returns:
        "nothing found" where thinking's probe is not better, beyond chance, than one that reads nothing and
        than one of shuffled labels; "no evidence" of thinking where a control's probe finds as much;
        "controls missing" where one was not trained, or has fewer than two of several seeds; "above
        controls"; or "no control" where none has such a place. And the controls in which as much is found,
        over two seeds where thinking has several: the interval of their NLL minus thinking's contains 0 or
        lies below.
    """
    thinking, *controls = row
    own = row[thinking]
    shuffled = over({seed: x.shuffled_nll - x.nll for seed, x in own.items()})
    if not (difference(nothing, own).lower > 0 and shuffled.lower > 0):
        return NOT_FOUND, []
    enough = [arm for arm in controls if len(row[arm].keys() & own.keys()) >= min(2, len(own))]
    if alike := [arm for arm in enough if not difference(row[arm], own).lower > 0]:
        return NO_EVIDENCE, alike
    if missing or len(enough) < len(controls):
        return MISSING, []
    return (MORE if controls else ALONE), []


def results_of(tables: Tables, feature: str, missing: Collection[str]) -> dict[str, Any]:
    """Return all numbers of a feature, for JSON: place -> arm -> means, half widths, and the judgement."""
    results: dict[str, Any] = {}
    nothing = tables[THINKING][feature][NOTHING]
    for place in _places(tables, feature):
        row = _row(tables, feature, place)
        entry: dict[str, Any] = {arm: _numbers(row, arm) for arm in row}
        if THINKING in row and place != NOTHING:
            entry["evidence"], entry["as much is found in"] = evidence(row, nothing, missing)
        results[place or "nothing read"] = entry
    return results


def _numbers(row: Mapping[str, Mapping[int, Found]], arm: str) -> dict[str, Any]:
    values = {name: over({s: getattr(x, name) for s, x in row[arm].items()}) for name in Found._fields}
    if arm != THINKING and THINKING in row:
        values["nll_minus_thinking"] = difference(row[arm], row[THINKING])
    numbers: dict[str, Any] = {name: [x.mean, x.half_width] for name, x in values.items()}
    return numbers | {"seeds": list(row[arm])}


def _places(tables: Tables, feature: str) -> list[str]:
    """Return the places of all arms, in the order of the arm that has the most."""
    listed = sorted((list(table[feature]) for table in tables.values() if feature in table), key=len)
    return list(dict.fromkeys(place for places in reversed(listed) for place in places))


def _row(tables: Tables, feature: str, place: str) -> dict[str, dict[int, Found]]:
    rows = {arm: table.get(feature, {}).get(place, {}) for arm, table in tables.items()}
    return {arm: row for arm, row in rows.items() if row}


def _title(tables: Tables, feature: str, classes: int) -> list[str]:
    nothing = tables[THINKING][feature][NOTHING]
    rows = [row for table in tables.values() for row in table.get(feature, {}).values()]
    ends = []
    for name, (unit, factor, form) in MEASURES.items():
        means = [
            factor * over({s: getattr(x, f"shuffled_{name}") for s, x in row.items()}).mean for row in rows
        ]
        ends.append(f"{min(means):{form}} to {max(means):{form}} {unit}")
    right, nll = (over({s: getattr(x, name) for s, x in nothing.items()}).mean for name in MEASURES)
    text = (
        f"{feature}: {classes} classes. A probe that reads nothing: {100 * right:.1f} % right, {nll:.3f} nats"
    )
    return textwrap.wrap(f"{text}; probes of shuffled labels: {ends[0]}, {ends[1]}.", WIDTH)


def _blocks(arms: list[str]) -> list[list[str]]:
    """Return the arms that are shown side by side, the thinking one with some of the others."""
    first, *others = arms
    starts = range(0, max(1, len(others)), MOST_OTHERS)
    return [[first, *others[start : start + MOST_OTHERS]] for start in starts]


def _grid(tables: Tables, feature: str, missing: Collection[str], shown: list[str], own: str) -> list[str]:
    """Return two lines for each place, of some arms: how many are right, and the NLL with the judgement."""
    nothing = tables[THINKING][feature][NOTHING]
    seeds = [f"seed {spans(tables[arm][feature][NOTHING])}" for arm in shown]
    lines = [["", "", own, *shown[1:], "evidence of"], ["read from", "", *seeds, "thinking"]]
    for place in _places(tables, feature)[1:]:
        row = _row(tables, feature, place)
        judgement, alike = evidence(row, nothing, missing) if THINKING in row else ("", [])
        for name, (unit, factor, form) in MEASURES.items():
            cells = [_cell(row.get(arm), name, factor, form) for arm in shown]
            if name == "nll":
                marks = [" =" if arm in alike else "  " for arm in shown]
                lines.append(["", unit, *map("".join, zip(cells, marks, strict=True)), judgement])
            else:
                lines.append([place, unit, *(f"{cell}  " for cell in cells), ""])
    columns = list(zip(*lines, strict=True))
    return aligned(columns, left=[0, 1, len(columns) - 1], rule=True)


def _cell(row: Mapping[int, Found] | None, measure: str, factor: float, form: str) -> str:
    if row is None:
        return "–"
    mean, half, _ = over({seed: getattr(x, measure) for seed, x in row.items()})
    return plus_minus(factor * mean, factor * half if math.isfinite(half) else math.nan, form)


def _seen(share: float) -> str:
    """Say how much of what is scored was fitted on, as other sequences begin alike."""
    return (
        f", in which {100 * share:.1f} % of the positions have a twin with the same whole context"
        if share
        else ""
    )


def _notes(arm: Arm, split: Split, own: str) -> list[str]:
    name = arm.first.config.task.group_name
    text = (
        f"{len(split.fold)} different held-out {name} are parted into {FOLDS} folds; each fold is scored by "
        f"probes fitted on the others{_seen(split.seen())}. {interval_words(arm, f'different {name}')}. "
        f"=: this control's probe finds as much as {own}'s (the 95 % interval of its NLL minus {own}'s, "
        "paired, contains 0 or lies below), so what is found there is no evidence of thinking. Intervals are "
        "not corrected for their number."
    )
    return textwrap.wrap(text, WIDTH)
