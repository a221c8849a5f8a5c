"""Rows and learning curves on disk."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toyqs.files import ROW, damage, json_object, no_folder, read_json

if TYPE_CHECKING:  # imported where there are tables: the processes that train ask for no more than a row
    import pandas as pd

# Columns that are numbers, or null, in every row that has them.
NUMBERS = (
    *("nll", "accuracy", "nll_shuffled", "nll_marginal", "nll_no_thought", "bayes_floor", "policy_snr"),
    *("thought_entropy", "information", "information_shuffled", "parameters", "recurrent_steps_per_token"),
    *("flops_per_token", "flops_per_step", "train_steps", "cpu_seconds", "wall_seconds", "started"),
    *("marginal_gap", "pass_at_k", "symbol_zipf", "distinct_thoughts", "homogeneity", "completeness"),
    *("diverged_at", "largest_logit", "uniform_nll", "unigram_nll", "bigram_nll"),
    *("nll_joint", "joint_samples", "nll_joint_shuffled", "nll_joint_no_thought", "joint_floor"),
    *("nll_deeper", "accuracy_deeper"),
    *("attention_entropy", "thought_coherence", "thought_semantic", "thought_syntactic"),
    "thought_predictive",
    *("nll_hinted", "accuracy_hinted", "nll_teacher", "accuracy_teacher", "kl_teacher"),
)
ORIGINS = {"commit": "commits", "results_version": "results versions"}  # columns that say what made a row


def load_rows(folder: Path | str, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """Load every complete run below a folder, one row each, in the order of their keys.

    Rows made by several commits or results versions are loaded together and a warning says so; a row that
    cannot be read is left out and a warning says which.

    Args:
        folder: holds one folder per run, named by the run's key.
        keys: only these runs; None: all.

    Returns:
        One column per name in the summaries; empty where no run is complete.
        `frame.attrs["unfinished"]` lists the keys of runs begun but not finished, `frame.attrs["damaged"]`
        a line on each row that cannot be read.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    import pandas as pd

    folder = Path(folder)
    check_folder(folder)
    rows, unfinished, damaged = [], [], []
    for run in sorted(folder.iterdir() if keys is None else {folder / key for key in keys}):
        try:
            rows.append(read_row(run / ROW))
        except (FileNotFoundError, NotADirectoryError):
            if (run / "config.json").is_file():
                unfinished.append(run.name)
        except (OSError, ValueError) as error:
            damaged.append(f"left out: {error}")
    frame = pd.DataFrame(rows)
    frame.attrs |= {"unfinished": unfinished, "damaged": damaged}
    for line in damaged:
        warnings.warn(line, stacklevel=2)
    for column, noun in ORIGINS.items():
        if column in frame and (count := frame[column].nunique(dropna=False)) > 1:
            message = f"{folder}: rows from {count} {noun}; column {column!r} tells them apart"
            warnings.warn(message, stacklevel=2)
    return frame


def check_folder(folder: Path) -> None:
    """Raise FileNotFoundError where there is no such folder of runs."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: {no_folder(folder)}; give the runs_dir that a run wrote to")


def read_row(path: Path) -> dict[str, Any]:
    """Read a run's row.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object, or not a row.
    """
    row = read_json(path)
    numbers = {name: float | int | None for name in NUMBERS if name in row or name == "nll"}
    for name, kind in {"key": str, "seed": int, **numbers}.items():
        if name not in row or not isinstance(row[name], kind):
            found = f"{name}={row[name]!r:.40} is no such value" if name in row else f"it has no {name}"
            raise ValueError(f"{path}: not a row ({found}); move it away and give the command again")
    return row


def load_curve(folder: Path | str, key: str) -> pd.DataFrame:
    """Load what one run measured while it trained, one row per line of its metrics.jsonl.

    A last line that an interruption cut short is left out.

    Args:
        folder: the folder of runs.
        key: the run's key, the name of its folder.

    Returns:
        Columns `step`, `kind` ("train", "held_out", or "by_depth" of the last evaluation, see `by_depth`) and
        the metrics, NaN where a line has none.

    Raises:
        FileNotFoundError: the run has no metrics.jsonl.
        ValueError: a line before the last is not a JSON object.
    """
    import pandas as pd

    path = Path(folder) / key / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    # a whole line ends in a newline, so what follows the last newline is empty or incomplete
    rows = [json_object(line, f"{path} line {number}") for number, line in enumerate(lines[:-1], 1)]
    return pd.DataFrame(rows, columns=None if rows else ["step", "kind", "nll"])


def by_depth(folder: Path | str, key: str) -> pd.DataFrame:
    """Load a run's held-out losses by depth; empty where its task has none, or cannot be read.

    Args:
        folder: the folder of runs.
        key: the run's key.

    Returns:
        Indexed by `depth`, ascending: `trained`, 1 where training has that depth, `nll` and `accuracy`.
    """
    import pandas as pd

    names = ["depth", "trained", "nll", "accuracy"]
    try:
        curve = load_curve(folder, key)
    except (OSError, ValueError):
        curve = pd.DataFrame(columns=["kind"])
    lines = curve[curve["kind"] == "by_depth"].reindex(columns=names)
    return lines.astype(float).astype({"depth": int, "trained": int}).set_index("depth")


def damaged_files(folder: Path | str, key: str) -> list[str] | None:
    """List the files of a finished run that are not as they were written; return None where it has no row.

    Args:
        folder: the folder of runs.
        key: the run's key.
    """
    return row_and_damage(Path(folder) / key)[1]


def row_and_damage(run: Path) -> tuple[dict[str, Any] | None, list[str] | None]:
    """Return the row in a run's folder, None where none can be read, and what `damaged_files` lists."""
    try:
        row = read_row(run / ROW)
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (OSError, ValueError):
        return None, [ROW]
    return row, damage(row, run)


def is_complete(folder: Path | str, key: str) -> bool:
    """Tell whether a run has its row and all its files are as they were when that was written."""
    return damaged_files(folder, key) == []


def held_out(runs: Path, key: str, loss: str = "nll") -> pd.Series:
    """Load a run's held-out loss by step, of the column named; empty where the file is missing or damaged."""
    import pandas as pd

    try:
        lines = load_curve(runs, key)
        # a logarithmic axis cannot show what was measured before the first step
        curve = lines[(lines["kind"] == "held_out") & (lines["step"] > 0)]
        return curve.drop_duplicates("step", keep="last").set_index("step")[loss].astype(float)
    except (OSError, ValueError, KeyError, TypeError):
        return pd.Series(dtype=float)


def by_step(runs: Path, rows: pd.DataFrame, loss: str = "nll") -> pd.DataFrame:
    """Load the `held_out` of an arm's rows: a row for each step, a column for each seed that has one."""
    import pandas as pd

    keys = zip(rows.get("key", ()), rows.get("seed", ()), strict=True)
    curves = {seed: held_out(runs, key, loss) for key, seed in keys}
    return pd.DataFrame({seed: curve for seed, curve in curves.items() if len(curve)})
