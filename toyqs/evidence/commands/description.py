"""What the files of a run say, in words."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from toyqs.evidence.runs import Run, RunsFolder
from toyqs.evidence.selection import place_of
from toyqs.evidence.states import SETTINGS
from toyqs.evidence.text import WIDTH, aligned, spelled, wrapped
from toyqs.files import read_json, visible
from toyqs.installation import COMMAND

ENVIRONMENT = "env.json"
CHANGED = "changed"  # in env.json: the settings that are not the defaults, by name
VERSIONS = ("toyqs", "python", "torch", "numpy", "hydra-core", "kernels")
UNKNOWN = "not noted"


def settings_of(run: Run) -> dict[str, Any]:
    """Return a run's settings; empty where they cannot be read."""
    return _content(run.folder / SETTINGS)


def environment_of(run: Run) -> dict[str, Any]:
    """Return what a run was made by; empty where it cannot be read."""
    return _content(run.folder / ENVIRONMENT)


def _content(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return read_json(path)
    return {}


def state_text(run: Run) -> str:
    """Return the state of a run and its reason."""
    return ": ".join(filter(None, [run.state.word, run.state.why]))


def places_of(folder: RunsFolder) -> list[str]:
    """Return the places of a folder's one run: "pause, seed 0, of cell 2: base_lm_hidden_dim=4"."""
    texts = []
    for place in folder.runs[0].places:
        cell = place_of(folder.cells[place.cell], folder.keys)
        where = f", of cell {place.cell + 1}: {cell}" if cell else ""
        texts.append(f"{place.arm}, seed {place.seed}{where}")
    return texts or ["no cell of the folder knows it"]


def commit_of(environment: dict[str, Any]) -> str:
    """Return the commit of a run's source."""
    commit = environment.get("commit") or UNKNOWN
    return f"{commit}, with changes" if environment.get("dirty") else f"{commit}"


def command_of(environment: dict[str, Any]) -> str:
    """Return the command that trained a run, as it was typed."""
    command = environment.get("command")
    if not command:
        return UNKNOWN
    return f"{command}" if f"{command}".partition(" ")[0] == COMMAND else f"python {command}"


def versions_of(environment: dict[str, Any]) -> str:
    """Return the versions that a run was made with."""
    known = [f"{name} {environment[name]}" for name in VERSIONS if environment.get(name)]
    return ", ".join(known) or UNKNOWN


def starts_of(environment: dict[str, Any]) -> list[str]:
    """Return what a run took over of finished runs' weights, a text for each of them."""
    started = dict(environment.get("started_from") or {})
    new = len(started.pop("new", ()))
    return [
        f"{name}={x['run']}: {len(x['taken'])} weights taken over, {len(x['left'])} left there, {new} new"
        for name, x in started.items()
    ]


def shortages_of(environment: dict[str, Any]) -> str:
    """Return the steps of a run that did not fit into memory; "" where all did."""
    last = {x["step"]: x["micro_batch"] for x in environment.get("grad_acc_found") or []}
    return ", ".join(f"step {step}: {size} sequences at a time from then on" for step, size in last.items())


def typed(name: str, value: Any) -> str:
    """Return a setting as it is typed."""
    return f"{name}={''.join(map(str, value)) if isinstance(value, list) else spelled(value)}"


def listed(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return lines of a name and a text each, which is broken where it is too long; none without rows."""
    columns = [[visible(text) for text in column] for column in zip(*rows, strict=True)]
    if not columns:
        return []
    room = max(30, WIDTH - max(map(len, columns[0])) - 2)
    return aligned(wrapped(columns, room), left=[0, 1])
