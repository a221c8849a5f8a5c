"""The runs of a folder: which cell, arm and seed each is, and its state."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from toyqs.evidence.arms import arm_names
from toyqs.evidence.cells import FOLDER, Cell, cell_of, cells_of, plans_of
from toyqs.evidence.rows import check_folder
from toyqs.evidence.selection import BASE, choose, in_order, telling_apart
from toyqs.evidence.states import LOG, NOT_BEGUN, SETTINGS, State, state_of
from toyqs.files import ROW, Refusal, no_folder


class Place(NamedTuple):
    """One of the places that a run has in a sweep."""

    cell: int  # its place among the cells
    arm: str
    seed: int


class Run(NamedTuple):
    """A run of a folder."""

    folder: Path
    places: list[Place]  # none where no cell knows the run
    state: State

    @property
    def key(self) -> str:
        """Return the run's key."""
        return self.folder.name


class RunsFolder(NamedTuple):
    """A folder of runs."""

    path: Path
    cells: list[Cell]  # in the order of their settings `keys`
    keys: Sequence[str]  # the settings that tell the cells apart
    runs: list[Run]  # in the order of their first places, those without one last


def load_folder(path: Path, first: Sequence[str] = (BASE,)) -> RunsFolder:
    """Load the cells and runs of a folder, also those that are damaged, have failed or not begun.

    Args:
        path: the folder of runs.
        first: settings by which cells are told apart before others.

    Raises:
        FileNotFoundError: there is no such folder.
        Refusal: no run was begun in it.
        ValueError: a note of a cell is damaged.
    """
    check_folder(path)
    plans = plans_of(path)
    beside = _beside(plan.arms for plan in plans)
    begun = begun_in(path)
    states = {}
    for key in sorted(begun | beside.keys()):
        states[key] = state_of(path / key, [path / other for other in beside.get(key, ()) if other != key])
    if not begun and not plans:
        raise nothing_begun(path)
    rows = {key: state.row for key, state in states.items() if state.row}
    runs = [Run(path / key, [], state) for key, state in states.items()]
    return _placed(path, [cell_of(*plan, rows) for plan in plans], runs, first)


def chosen(folder: RunsFolder, words: Sequence[str]) -> RunsFolder:
    """Return the cells of a folder that have every setting asked for, and their runs.

    Args:
        folder: as loaded.
        words: as `choose` takes them; without any all is kept, also runs that no cell knows.

    Raises:
        Refusal: as `choose`.
    """
    if not words:
        return folder
    found = _placed(folder.path, choose(folder.cells, words), folder.runs)
    return found._replace(runs=[run for run in found.runs if run.places])


def _placed(
    path: Path, cells: Sequence[Cell], runs: Iterable[Run], first: Sequence[str] = (BASE,)
) -> RunsFolder:
    """Return the runs in the order of their places in the cells; those not begun only where asked for."""
    cells, keys = _ordered(cells, first)
    places = _places(cells)
    runs = [run._replace(places=places.get(run.key, [])) for run in runs]
    shown = [run for run in runs if run.state.word != NOT_BEGUN or _asked(cells, run)]
    last = [Place(len(cells), "", 0)]
    return RunsFolder(
        path, cells, keys, sorted(shown, key=lambda run: _order(cells, (run.places or last)[0]))
    )


def nothing_begun(path: Path) -> Refusal:
    """Return what there is to say of a folder without cells: what was looked for, and how to make some."""
    if any((path / name).is_file() for name in (SETTINGS, ROW)):
        return Refusal(f"{path}: is the folder of one run; give the folder that it is in, {path.parent}", 1)
    if begun_in(path):
        lists = f"python -m toyqs.evidence list {shlex.quote(str(path))}"
        return Refusal(f"{path}: holds runs, but no {FOLDER}/*.json says of which sweep; see {lists}", 1)
    looked_for = f"neither {FOLDER}/*.json nor KEY/{SETTINGS} is there"
    train = f"python run.py {shlex.quote(f'runs_dir={path}')}"
    return Refusal(f"{path}: no run was begun here: {looked_for}; train some: {train}", 1)


def begun_in(path: Path) -> set[str]:
    """Return the keys of the runs that have a folder."""
    return {x.name for x in path.iterdir() if (x / SETTINGS).is_file() or (x / ROW).is_file()}


def load_run(folder: Path) -> RunsFolder:
    """Load one run, with the cells of its folder but without their other runs' rows.

    Args:
        folder: the run's, runs/KEY.

    Raises:
        Refusal: it is not the folder of a run.
        ValueError: a note of a cell is damaged.
    """
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    if not any((folder / name).is_file() for name in (SETTINGS, ROW, LOG)):
        why = "is not the folder of a run" if folder.is_dir() else no_folder(folder)
        raise Refusal(f"{folder}: {why}; give one, runs/KEY: python -m toyqs.evidence list runs names them")
    cells, keys = _ordered(cells_of(folder.parent, {}), (BASE,))
    beside = _beside(cell.keys for cell in cells).get(folder.name, ())
    stack = [folder.with_name(key) for key in beside if key != folder.name]
    run = Run(folder, _places(cells).get(folder.name, []), state_of(folder, stack))
    return RunsFolder(folder.parent, cells, keys, [run])


def arms_of(folder: Path) -> list[str]:
    """Return the arms that a run is in its folder of runs, each once; none where no cell knows it.

    Args:
        folder: the run's, runs/KEY.

    Raises:
        ValueError: a note of a cell is damaged.
    """
    folder = folder.resolve()
    places = _places(cells_of(folder.parent, {})).get(folder.name, [])
    return arm_names(place.arm for place in places)


def _beside(cells: Iterable[Mapping[str, Mapping[int, str]]]) -> dict[str, dict[str, None]]:
    """Return the keys of all seeds of each run's arms, by its key; cells are arm -> seed -> key."""
    beside: dict[str, dict[str, None]] = {}
    for by_seed in (by_seed for arms in cells for by_seed in arms.values()):
        for key in by_seed.values():
            beside.setdefault(key, {}).update(dict.fromkeys(by_seed.values()))
    return beside


def _ordered(cells: Sequence[Cell], first: Sequence[str]) -> tuple[list[Cell], list[str]]:
    """Return cells in the order of the settings that tell them apart, and these."""
    keys = telling_apart(cells, first)
    return in_order(cells, keys), keys


def _places(cells: Sequence[Cell]) -> dict[str, list[Place]]:
    """Return the places of each run, by its key."""
    places: dict[str, list[Place]] = {}
    for number, cell in enumerate(cells):
        for arm, by_seed in cell.keys.items():
            for seed, key in by_seed.items():
                places.setdefault(key, []).append(Place(number, arm, seed))
    return places


def _order(cells: Sequence[Cell], place: Place) -> tuple[int, int, int]:
    arms = list(cells[place.cell].keys) if place.arm else [""]
    return place.cell, arms.index(place.arm), place.seed


def _asked(cells: Sequence[Cell], run: Run) -> bool:
    """Tell whether a run is one that was asked for."""
    return any(seed in cells[number].missing.get(arm, ()) for number, arm, seed in run.places)
