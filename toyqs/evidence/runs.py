"""The runs of a folder: which cell, arm and seed each is, and its state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from toyqs.evidence.cells import Cell, cells_of
from toyqs.evidence.selection import BASE, in_order, telling_apart
from toyqs.evidence.states import LOG, NOT_BEGUN, SETTINGS, State, state_of
from toyqs.files import ROW, Refusal
from toyqs.installation import program


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
        ValueError: a note of a cell is damaged.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of runs; give the runs_dir that a run wrote to")
    beside = _beside(cells_of(path, {}))
    begun = {x.name for x in path.iterdir() if (x / SETTINGS).is_file() or (x / ROW).is_file()}
    states = {}
    for key in sorted(begun | beside.keys()):
        states[key] = state_of(path / key, [path / other for other in beside.get(key, ()) if other != key])
    cells, keys = _ordered(cells_of(path, {key: x.row for key, x in states.items() if x.row}), first)
    places = _places(cells)
    runs = [Run(path / key, places.get(key, []), state) for key, state in states.items()]
    shown = [run for run in runs if run.state.word != NOT_BEGUN or _asked(cells, run)]
    last = [Place(len(cells), "", 0)]
    return RunsFolder(
        path, cells, keys, sorted(shown, key=lambda run: _order(cells, (run.places or last)[0]))
    )


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
        why = "there is no such folder" if not folder.is_dir() else "is not the folder of a run"
        how = f"{program('toyqs.evidence')} list runs names them"
        raise Refusal(f"{folder}: {why}; give one, runs/KEY: {how}")
    cells, keys = _ordered(cells_of(folder.parent, {}), (BASE,))
    stack = [folder.with_name(key) for key in _beside(cells).get(folder.name, ()) if key != folder.name]
    run = Run(folder, _places(cells).get(folder.name, []), state_of(folder, stack))
    return RunsFolder(folder.parent, cells, keys, [run])


def _beside(cells: Iterable[Cell]) -> dict[str, dict[str, None]]:
    """Return the keys of all seeds of each run's arms, by its key."""
    beside: dict[str, dict[str, None]] = {}
    for by_seed in (by_seed for cell in cells for by_seed in cell.keys.values()):
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
