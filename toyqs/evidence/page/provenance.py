"""Where the rows of a page come from: commands, commits, versions, times, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.findings import origins
from toyqs.evidence.states import state_of
from toyqs.files import ROW, read_json, visible

COLUMNS = ("seed", "cpu_seconds", "wall_seconds", "train_steps", "diverged_at", "results_version")
NOT_VERSIONS = ("command", "commit", "dirty", "stack_size", "changed")  # what else env.json holds


def provenance(runs: Path, cells: Sequence[Cell]) -> dict[str, Any]:
    """Collect what made the rows of some cells.

    Args:
        runs: the folder of the runs.
        cells: with the rows that have finished.

    Returns:
        `origins`, a warning in one line where several commits or results versions made the rows, else null;
        `commands` and `machines`, each with the number of its runs, the most frequent first; `runs` (key,
        seed, cpu and wall seconds, when it finished, where training diverged); `missing`, the runs asked
        for that have no row: cell (its place), arm, seed, key, state and why.
    """
    commands: Counter[tuple[str, str]] = Counter()
    machines: Counter[str] = Counter()
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        for frame in cell.arms.values():
            for row in frame.reindex(columns=["key", "commit", *COLUMNS]).to_dict("records"):
                if row["key"] in found:
                    continue
                found[row["key"]] = _run(runs, row)
                made_by = _environment(runs / row["key"])
                commit = (
                    f"{made_by.get('commit', row.get('commit'))}{' + changes' * bool(made_by.get('dirty'))}"
                )
                commands[visible(str(made_by.get("command", "not known"))), commit] += 1
                versions = {name: x for name, x in made_by.items() if name not in NOT_VERSIONS}
                machines[", ".join(f"{name} {visible(str(x))}" for name, x in versions.items())] += 1
    return {
        "origins": origins(cells),
        "commands": [{"command": x, "commit": y, "runs": n} for (x, y), n in commands.most_common()],
        "machines": [{"words": words, "runs": n} for words, n in machines.most_common()],
        "runs": found,
        "missing": _missing(runs, cells),
    }


def _run(runs: Path, row: dict[Any, Any]) -> dict[str, Any]:
    file = runs / row["key"] / ROW
    finished = file.stat().st_mtime if file.exists() else None
    return {name: row[name] for name in COLUMNS} | {"finished": finished}


def _environment(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "env.json")
    except (OSError, ValueError):
        return {}


def _missing(runs: Path, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return the runs asked for that have no row: where they belong, their state and why."""
    found = []
    for number, cell in enumerate(cells):
        for arm, seeds in cell.missing.items():
            keys = cell.keys[arm]
            for seed in seeds:
                state = state_of(
                    runs / keys[seed], [runs / key for key in keys.values() if key != keys[seed]]
                )
                names = {"cell": number, "arm": arm, "seed": seed, "key": keys[seed]}
                found.append(names | {"state": state.word, "why": state.why})
    return found
