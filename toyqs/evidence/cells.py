"""Cells of a sweep: a run and its controls over its seeds, as planned and as found on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from toyqs.evidence.arms import NONE, THINKING, own_arm
from toyqs.evidence.measures import loss_of
from toyqs.evidence.rows import load_rows
from toyqs.files import by_content, make_folder, read_json, write_json

FOLDER = "cells"  # below the folder of runs
NO_KEYS: Mapping[str, Mapping[int, str]] = MappingProxyType({})
PARTS = {"settings": dict, "inactive": list, "asked_for": list, "arms": dict}  # of a plan


class Plan(NamedTuple):
    """What is planned of a cell."""

    settings: dict[str, Any]  # that have an effect in the run itself
    arms: dict[str, dict[int, str]]  # arm -> seed -> key, the run itself first
    asked: set[tuple[str, int]]  # the arms and seeds to be run


class Cell(NamedTuple):
    """One point of a sweep: the run itself first, then its controls."""

    settings: dict[str, Any]  # of the run itself, named as its rows' columns; no seed, none without effect
    arms: dict[str, pd.DataFrame]  # one row per finished seed, ascending; the first is the run itself
    missing: dict[str, list[int]]  # arm -> the seeds asked for without a row; complete arms are absent
    same: Mapping[str, str] = NONE  # arm that is one run with an earlier one -> that one, shown for both
    not_run: Collection[str] = ()  # arms that the plan knows, neither asked for nor finished
    keys: Mapping[str, Mapping[int, str]] = NO_KEYS  # arm -> seed -> key of its run, of all that is planned

    @property
    def thinks(self) -> bool:
        """Tell whether the run itself has thoughts of one symbol or more."""
        return own_arm(self.settings) == THINKING

    @property
    def loss(self) -> str:
        """Return the column of the rows by which the arms are judged."""
        return loss_of(self.settings)

    @property
    def shown_as(self) -> dict[str, str]:
        """Return those of `same` that a reader of a table would look for."""
        return {arm: other for arm, other in self.same.items() if self.compares and other in self.arms}

    @property
    def compares(self) -> bool:
        """Tell whether there are thoughts, and controls to compare them with."""
        return self.thinks and len(self.arms) > 1


def name_of(keys: Iterable[str]) -> str:
    """Return the name of a set of runs, the same whatever their order."""
    return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[:12]


def write_cell(
    runs_dir: Path | str,
    settings: Mapping[str, Any],
    arms: Mapping[str, Mapping[int, str]],
    asked_for: Iterable[str],
    inactive: Iterable[str] = (),
) -> None:
    """Write down what a cell consists of, before its runs begin.

    Args:
        runs_dir: the folder of runs; created where it does not exist.
        settings: of the run itself, named as the columns of its rows; a seed is left out.
        arms: arm -> seed -> key of its run, the run itself first.
        asked_for: the arms to be run; rows of the others count too where they exist.
        inactive: the settings that have no effect in the run itself.
    """
    folder = Path(runs_dir) / FOLDER
    make_folder(folder)
    asked = list(asked_for)
    keys = [key for arm in asked for key in arms[arm].values()]
    plan = {
        "settings": {name: value for name, value in settings.items() if name != "seed"},
        "inactive": sorted(inactive),
        "asked_for": asked,
        "arms": {arm: {str(seed): key for seed, key in by_seed.items()} for arm, by_seed in arms.items()},
    }
    path = folder / f"{name_of(keys)}.json"
    with suppress(OSError, ValueError):
        if json.dumps(read_json(path)) == json.dumps(
            plan
        ):  # what is on the disk already need not be brought there again
            return os.utime(path)  # of two plans for one cell the later command's is valid
    write_json(path, plan)


def load_cells(runs_dir: Path | str) -> list[Cell]:
    """Load every cell that was ever planned in a folder of runs, with the rows that have finished.

    Cells of equal settings, planned for different seeds, controls or labels (`info`), are one. Files are
    compared by what they hold: one text under two paths is one cell, two texts under one path are two.
    Where two plans name different runs for one arm and seed, as after controls were matched again, the
    later is valid.

    Args:
        runs_dir: the folder that the runs were written to.

    Returns:
        In the order of their settings' text; empty where nothing was planned. A row that cannot be read is
        missing, and a warning says so.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a note of a cell is damaged.
    """
    return cells_of(runs_dir, by_key(load_rows(runs_dir)))


def by_key(rows: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    """Return the rows of `load_rows` by their keys."""
    return {} if rows.empty else {row["key"]: row for row in rows.to_dict("records")}


def cells_of(runs_dir: Path | str, finished: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """Return the cells planned in a folder, as `load_cells` does, with rows that were read before.

    Args:
        runs_dir: the folder of runs.
        finished: key -> row.

    Raises:
        ValueError: a note of a cell is damaged.
    """
    return [cell_of(*plan, finished) for plan in plans_of(runs_dir)]


def plans_of(runs_dir: Path | str) -> list[Plan]:
    """Return what is planned in a folder, one for each cell; see `load_cells`.

    Raises:
        ValueError: a note of a cell is damaged.
    """
    merged: dict[str, Plan] = {}
    plans = (Path(runs_dir) / FOLDER).glob("*.json")
    for path in sorted(plans, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        plan = _read_plan(path)
        text = json.dumps(by_content(plan["settings"] | {"info": None}), sort_keys=True)
        active = {name: x for name, x in plan["settings"].items() if name not in plan["inactive"]}
        known = merged.get(text, Plan({}, {}, set()))
        merged[text] = known._replace(settings=active)
        for arm, by_seed in plan["arms"].items():
            known.arms.setdefault(arm, {}).update({int(seed): key for seed, key in by_seed.items()})
            known.asked.update((arm, int(seed)) for seed in by_seed if arm in plan["asked_for"])
    return [merged[text] for text in sorted(merged)]


def _read_plan(path: Path) -> dict[str, Any]:
    plan = {"inactive": []} | read_json(path)  # older notes do not have it
    whole = all(isinstance(plan.get(name), kind) for name, kind in PARTS.items())
    if not whole or not all(map(_is_arm, plan["arms"].values())):
        raise ValueError(f"{path}: not a cell of a sweep; move it away and give the command again")
    return plan


def _is_arm(by_seed: Any) -> bool:
    """Tell whether this is an arm of a plan: seed -> key."""
    return isinstance(by_seed, dict) and all(
        seed.isdecimal() and isinstance(key, str) for seed, key in by_seed.items()
    )


def cell_of(
    settings: Mapping[str, Any],
    arms: Mapping[str, Mapping[int, str]],
    asked: Collection[tuple[str, int]],
    finished: Mapping[str, Mapping[str, Any]],
) -> Cell:
    """Return a cell with the rows that have finished.

    A run without thoughts, planned as thinking, has the name of the control that it is; see `own_arm`.

    Args:
        settings: that have an effect in the run itself.
        arms: arm -> seed -> key, the run itself first.
        asked: the arms and seeds to be run.
        finished: key -> row.
    """
    if THINKING in arms and (own := own_arm(settings)) != THINKING:
        known = {arm: by_seed for arm, by_seed in arms.items() if arm not in (THINKING, own)}
        arms = {own: {**arms.get(own, {}), **arms[THINKING]}, **known}
        asked = {(own if arm == THINKING else arm, seed) for arm, seed in asked}
    same = _same(arms)
    asked = {*asked, *((same[arm], seed) for arm, seed in asked if arm in same)}
    frames, missing, not_run = {}, {}, []
    for place, (arm, by_seed) in enumerate(arms.items()):
        if arm in same:
            continue
        rows = [finished[key] for _, key in sorted(by_seed.items()) if key in finished]
        if rows or place == 0 or any((arm, seed) in asked for seed in by_seed):
            frames[arm] = pd.DataFrame(rows)
        else:
            not_run.append(arm)
        lacking = [seed for seed, key in by_seed.items() if (arm, seed) in asked and key not in finished]
        if lacking:
            missing[arm] = sorted(lacking)
    return Cell(dict(settings), frames, missing, same, not_run, arms)


def _same(arms: Mapping[str, Mapping[int, str]]) -> dict[str, str]:
    """Return each arm whose runs are an earlier arm's -> that arm."""
    same: dict[str, str] = {}
    for arm, by_seed in arms.items():
        for other in arms:
            if other == arm:
                break
            shared = by_seed.keys() & arms[other].keys()
            if shared and other not in same and all(by_seed[seed] == arms[other][seed] for seed in shared):
                same[arm] = other
                break
    return same
