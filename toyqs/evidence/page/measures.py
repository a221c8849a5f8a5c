"""Results of `python -m toyqs.answers` that a page shows: files that were written with -o."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toyqs.files import read_json, visible

FOLDER = "reports"  # below the folder of runs
KINDS = {"interventions": "cut", "lengths": "trained_with"}  # measure -> a name that its results alone have
MOST = 2**53  # a whole number up to which every one is a number of the page, too

# Shapes of JSON: a type; [shape], a list of one or more; {name: shape}; {"*": shape}, of any names; either of
# several, in a tuple.
NUMBER = (int, float, type(None))  # null where it is not finite
ESTIMATE = {"mean": NUMBER, "half_width": NUMBER}
COMMON = {"runs": [str], "seeds": [int], "intervals_over": str}
SHAPES: dict[str, Any] = {
    "interventions": COMMON
    | {
        "own": ESTIMATE,
        "whole": {"*": (ESTIMATE, type(None))},
        "symbols": [{"symbol": int, "*": (ESTIMATE, *NUMBER)}],
        "cut": [(ESTIMATE, type(None))],
    },
    "lengths": COMMON
    | {
        "trained_with": int,
        "lengths": [{"length": int, "nll": ESTIMATE, "accuracy": ESTIMATE, "nll_by_seed": {"*": NUMBER}}],
    },
}


def load_measures(runs: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Find the results of interventions and lengths in RUNS/reports/*.json.

    Args:
        runs: the folder of the runs.
        keys: of the runs shown; what was measured on others is left out.

    Returns:
        `found`: each with its `measure`, `runs` (keys), `file` and `result`, the latest last; `unnamed`: the
        files that do not say which runs they are of, as those of older versions; `damaged`: a line on each
        that is not as it was written.
    """
    shown, found, unnamed, damaged = set(keys), [], [], []
    files = [path for path in (runs / FOLDER).glob("*.json") if path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        try:
            result = read_json(path)
        except (OSError, ValueError) as error:
            damaged.append(visible(f"left out: {error}"))
            continue
        kind = next((kind for kind, name in KINDS.items() if name in result), None)
        if kind and not result.get("runs"):
            unnamed.append(visible(path.name))
        elif kind and not _has_shape(result, SHAPES[kind]):
            damaged.append(visible(f"left out: {path}: no result of `{kind}`; give its command again"))
        elif kind and shown & {*result["runs"]}:
            one = {"measure": kind, "runs": result["runs"], "file": visible(path.name), "result": result}
            found.append(one)
    return {"found": found, "unnamed": unnamed, "damaged": damaged}


def _has_shape(value: Any, shape: Any) -> bool:
    """Tell whether a value of JSON has one of the shapes above."""
    if isinstance(shape, tuple):
        return any(_has_shape(value, each) for each in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and bool(value) and all(_has_shape(x, shape[0]) for x in value)
    if isinstance(shape, dict):
        named = {name: each for name, each in shape.items() if name != "*"}
        return (
            isinstance(value, dict)
            and named.keys() <= value.keys()
            and all(_has_shape(x, shape.get(n, shape.get("*", object))) for n, x in value.items())
        )
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) >= MOST):
        return shape is object
    return isinstance(value, shape)
