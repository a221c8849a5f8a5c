"""What the page shows of the cells: verdicts, gains and losses by seed, what tells them apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toyqs.evidence.arms import JUDGED, THINKING, arm_names, control_words, one_run
from toyqs.evidence.cells import Cell, name_of
from toyqs.evidence.figures.style import ARM_LABELS, arm_colour, arm_name
from toyqs.evidence.judging.findings import (
    COSTS,
    Finding,
    direction,
    estimate_text,
    find,
    floor_of,
    num_started,
    started_flags,
    without_thought,
)
from toyqs.evidence.judging.gain import column_of, estimate, mean_of, onset
from toyqs.evidence.page.curves import Curves, frame_of, load_curves
from toyqs.evidence.page.provenance import provenance
from toyqs.evidence.page.words import in_words, width_sweep, words_for
from toyqs.evidence.selection import (
    BASE,
    differing,
    in_order,
    place_of,
    setting_line,
    telling_apart,
    value_of,
)
from toyqs.evidence.tables.divergence import divergence_notes
from toyqs.evidence.tables.references import joint_note
from toyqs.evidence.tables.thought_measures import most_information
from toyqs.evidence.text import task_words
from toyqs.files import IDENTITY, by_content, visible

FIRST = ("task", "weight_groups", BASE, "policy_loss_beta")  # the settings that name a cell if they can
# Means over seeds that the page shows of a thinking run, where its rows have them; of a joint loss its own.
ABOUT_THOUGHTS = (
    *("nll_shuffled", "nll_no_thought"),
    *("thought_entropy", "information", "pass_at_k"),
)


def page_data(runs: Path, cells: Sequence[Cell]) -> dict[str, Any]:
    """Collect what the page shows of the rows; numbers that are not finite become null when it is written.

    Args:
        runs: the folder of the runs.
        cells: those to be shown, at least one; they are judged together, as in a printed table.

    Returns:
        A JSON object: `title`, `setting` (what all cells share), `arms` (name -> label and colour, in the
        order of display), `names` (all labels), `keys` (the settings that name the
        cells), `axes` (all that differ), `floor`, `cells`, `sweep` (of a single cell: the
        commands that sweep a width around it), `curves` (key -> metric -> values), `problems`, a
        line on each file that is damaged and left out, and `provenance`.
    """
    keys = telling_apart(cells, FIRST)
    findings = find(in_order(cells, keys))
    cells = [finding.cell for finding in findings]
    problems: list[str] = []
    curves = load_curves(runs, cells, problems)
    arms = arm_names(arm for cell in cells for arm in cell.arms)
    spellings = differing(cells)
    axes = [name for name in spellings if not name.endswith(IDENTITY)]
    axes.sort(key=lambda name: keys.index(name) if name in keys else len(keys))
    tasks = sorted({task_words(cell.settings) for cell in cells})
    return {
        "title": "; ".join(tasks[:3]) + (f" … ({len(tasks)} tasks)" if len(tasks) > 3 else ""),
        "folder": visible(str(runs)),
        "setting": setting_line(cells),
        "arms": {arm: {"label": arm_name(arm), "colour": arm_colour(arm)} for arm in arms},
        "names": ARM_LABELS,
        "keys": keys,
        "axes": [
            {"key": x, "values": _values(cells, x, spellings[x])} | words_for(x)._asdict() for x in axes
        ],
        "floor": floor_of(cells),
        "cells": [_cell(finding, keys, axes, curves) for finding in findings],
        "sweep": width_sweep(runs, cells[0]) if len(cells) == 1 else {},
        "curves": curves,
        "problems": problems,
        "provenance": provenance(runs, cells),
    }


def _cell(finding: Finding, keys: Sequence[str], axes: Sequence[str], curves: Curves) -> dict[str, Any]:
    cell, judged = finding.cell, finding.verdict
    run, frame = next(iter(cell.arms.items()))
    text = json.dumps(by_content(cell.settings | {"info": None}), sort_keys=True)
    return {
        "id": name_of([text]),
        "name": place_of(cell, keys),
        "label": in_words(cell, keys),
        "task": task_words(cell.settings),
        "values": {name: value_of(cell, name) for name in axes},
        "numbers": {name: cell.settings[name] for name in axes if _is_number(cell.settings.get(name))},
        "thinks": cell.thinks,
        "run": run,
        "verdict": judged
        and {
            "text": judged.text,
            "word": judged.word,
            "sentence": judged.sentence,
            "standing": judged.standing,
            "judged": judged.judged,
            "cells": judged.cells,
        },
        "started": num_started(frame),
        "judged_seeds": len(started_flags(frame)),
        "without_thought": without_thought(frame),
        "thoughts": _about_thoughts(frame, cell) if cell.thinks else {},
        "arms": {arm: _arm(finding, arm, curves) for arm in cell.arms},
        "missing": cell.missing,
        "same": one_run(cell.shown_as),
        "notes": [*divergence_notes(cell.arms), *joint_note([cell])],
    }


def _about_thoughts(frame: pd.DataFrame, cell: Cell) -> dict[str, float | None]:
    means = {name: mean_of(frame, name.replace("nll", cell.loss)) for name in ABOUT_THOUGHTS}
    return means | {"information_most": most_information(cell.settings)}


def _values(cells: Sequence[Cell], name: str, spellings: Sequence[str]) -> list[str]:
    """Return the values of a setting, ascending; last what `value_of` says of cells that lack it."""
    return [*spellings, *({value_of(cell, name) for cell in cells} - {*spellings})]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _arm(finding: Finding, arm: str, curves: Curves) -> dict[str, Any]:
    """Return an arm's numbers: its runs, its losses, and what thinking gains over it."""
    cell, frame = finding.cell, finding.cell.arms[arm]
    loss, gain = finding.losses.get(arm), finding.gains.get(arm)
    accuracy = column_of(frame, "accuracy")
    found: dict[str, Any] = {
        "words": control_words(arm, cell.settings) if arm != THINKING else "",
        "judged": arm in JUDGED and cell.thinks,
        "keys": list(frame["key"]) if len(frame) else [],
        "nll": _numbers(loss) | {"text": estimate_text(loss, ".3f", "not finished")},
        "accuracy": _numbers(accuracy) | {"text": estimate_text(100 * accuracy, ".1f")},
        "costs": {name: mean_of(frame, name) for name in COSTS},
    }
    if gain is not None:
        found["gain"] = _numbers(gain) | {"text": estimate_text(gain, "+.3f")}
        found["gain"] |= {"word": direction(gain), "onset": _onset(cell, arm, curves)}
    return found


def _numbers(values: pd.Series | None) -> dict[str, Any]:
    """Return the values by seed, their mean and half of the 95 % t-interval."""
    mean, half_width, _ = estimate(values)
    seeds: Mapping[Any, float] = {} if values is None else values.to_dict()
    return {"seeds": list(seeds), "values": list(seeds.values()), "mean": mean, "half_width": half_width}


def _onset(cell: Cell, control: str, curves: Curves) -> int | None:
    """Return the step from which on thinking is better than a control beyond chance; see `onset`."""
    both = [frame_of(cell.arms[arm], curves) for arm in (next(iter(cell.arms)), control)]
    return None if any(frame.empty for frame in both) else onset(*both)
