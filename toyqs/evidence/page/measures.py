"""Results of `python -m toyqs.answers` that a page shows: files that were written with -o."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toyqs.files import visible

FOLDER = "reports"  # below the folder of runs
KINDS = {"interventions": "cut", "lengths": "trained_with"}  # measure -> a name that its results alone have


def load_measures(runs: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Find the results of interventions and lengths in RUNS/reports/*.json.

    Args:
        runs: the folder of the runs.
        keys: of the runs shown; what was measured on others is left out.

    Returns:
        `found`: each with its `measure`, `runs` (keys), `file` and `result`, the latest last; `unnamed`: the
        files that do not say which runs they are of, as those of older versions.
    """
    shown, found, unnamed = set(keys), [], []
    files = [path for path in (runs / FOLDER).glob("*.json") if path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        try:
            result = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        kind = next(
            (kind for kind, name in KINDS.items() if isinstance(result, dict) and name in result), None
        )
        of = result.get("runs", []) if kind else []
        if kind and not of:
            unnamed.append(visible(path.name))
        elif kind and shown & set(map(str, of)):
            found.append({"measure": kind, "runs": of, "file": visible(path.name), "result": result})
    return {"found": found, "unnamed": unnamed}
