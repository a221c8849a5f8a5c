"""The notes of cells flattened: a line for each run that is an arm of a cell with a seed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from toyqs.evidence.judging.findings import Finding
from toyqs.evidence.runs import RunsFolder
from toyqs.evidence.states import SETTINGS
from toyqs.files import SEAL, read_json, visible

COLUMNS = ("key", "state", "nll", "gain", "verdict", "verdict_p")  # after cell, settings, arm and seed


def membership_table(folder: RunsFolder, findings: Sequence[Finding], keys: Sequence[str]) -> pd.DataFrame:
    """Return one row for each arm and seed of each cell that has finished or was asked for.

    A run that several cells share has a row in each, and one that is two arms of a cell a row for both.

    Args:
        folder: of the runs.
        findings: of its cells, as they are numbered from 1 on.
        keys: the settings of a cell that become columns.

    Returns:
        `cell`, its number; the cell's values of `keys`, absent where a setting has no effect; `arm`, `seed`;
        the run's `key` and `state`; its `nll`; `gain`, what thinking with this seed gains over it; the
        cell's `verdict`, corrected, and `verdict_p`; the other results that any of the rows has.
    """
    runs = {run.key: run for run in folder.runs}
    others = {*setting_names(folder), *(name for cell in folder.cells for name in cell.settings), SEAL}
    lines = []
    for number, finding in enumerate(findings, 1):
        settings = {name: finding.cell.settings[name] for name in keys if name in finding.cell.settings}
        judged = finding.verdict
        for arm, seed, key in _members(finding, runs.keys()):
            state = runs[key].state
            measured = {name: value for name, value in (state.row or {}).items() if name not in others}
            gain = finding.gains.get(finding.cell.same.get(arm, arm), pd.Series(dtype=float)).get(seed)
            line = {"cell": number, **settings, "arm": arm, "seed": seed, "key": key, "state": state.word}
            line |= {"nll": measured.pop("nll", None), "gain": gain}
            if judged:
                line |= {"verdict": judged.word, "verdict_p": None if math.isnan(judged.p) else judged.p}
            lines.append({name: _shown(value) for name, value in (measured | line).items()})
    table = pd.DataFrame(lines)
    first = [name for name in ("cell", *keys, "arm", "seed", *COLUMNS) if name in table]
    table = table[[*first, *(name for name in table if name not in first)]]
    return table.loc[:, [name for name in table if name in first or table[name].notna().any()]]


def _members(finding: Finding, known: Collection[str]) -> Iterator[tuple[str, int, str]]:
    """Yield arm, seed and key of each run of a cell that has finished or was asked for."""
    cell = finding.cell
    for arm, by_seed in cell.keys.items():
        other = cell.shown_as.get(arm, arm)
        if other not in cell.arms:
            continue
        frame = cell.arms[other]
        seeds = {*(frame["seed"] if len(frame) else ()), *cell.missing.get(other, ())}
        yield from (
            (arm, seed, key) for seed, key in sorted(by_seed.items()) if seed in seeds and key in known
        )


def setting_names(folder: RunsFolder) -> set[str]:
    """Return the names of all settings of a folder's runs, as their config.json have them."""
    names: set[str] = set()
    for run in folder.runs:
        with suppress(OSError, ValueError):
            names |= read_json(run.folder / SETTINGS).keys()
    return names - {"results_version"}


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else value
