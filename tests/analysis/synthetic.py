"""Sweeps that were never run: run folders and cells with numbers like those of real ones."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from toyqs.evidence.cells import write_cell
from toyqs.evidence.figures import style

ARMS = ("thinking", "no_reasoner", "zero_length", "policy_off", "compute_matched", "param_matched")
WIDTHS = (2, 4, 8, 16, 32, 64)
PATTERNS = (
    *("AAAA", "AAAB", "AABA", "AABB", "ABAA", "ABAB", "ABBA", "ABBB"),
    *("AABC", "ABAC", "ABBC", "ABCA", "ABCB", "ABCC", "ABCD"),
)
# held-out NLL of every arm by base width, in the order of ARMS
LOSSES = {
    2: (0.633, 1.783, 1.784, 1.784, 1.734, 0.010),
    4: (0.594, 1.773, 1.766, 1.766, 1.516, 0.010),
    8: (0.518, 1.348, 1.363, 1.360, 0.923, 0.010),
    16: (0.171, 0.643, 0.639, 0.639, 0.092, 0.008),
    32: (0.034, 0.052, 0.062, 0.064, 0.020, 0.006),
    64: (0.005, 0.007, 0.007, 0.007, 0.005, 0.004),
}
STEPS = tuple(math.ceil(450 * i / 20) for i in range(1, 21))
SETTINGS: dict[str, Any] = {
    "task": "rev_prog",
    "task.p": 6,
    "task.m": 3,
    "task.k": 3,
    "task.label_noise": 0.0,
    "base_lm_hidden_dim": 12,
    "reasoner_hidden_dim": 24,
    "interpreter_hidden_dim": 24,
    "use_reasoner": True,
    "weight_groups": "ABCD",
    "thought_vocab": None,
    "baseline": "leave_one_out",
    "advantage_scale": "batch_std",
    "policy_loss_beta": 1.0,
    "max_steps": 450,
    "info": "",
}

Losses = Mapping[str, Mapping[int, float | None]]  # arm -> seed -> NLL; None: diverged


def settings(**changes: Any) -> dict[str, Any]:
    """Return the columns of a thinking run; `task.k` is written task_k."""
    return SETTINGS | {name.replace("task_", "task."): value for name, value in changes.items()}


def key_of(chosen: Mapping[str, Any], arm: str, seed: int) -> str:
    text = json.dumps({**chosen, "info": "", "arm": arm, "seed": seed}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(
    folder: Path,
    chosen: Mapping[str, Any],
    found: Losses,
    asked: Mapping[str, Iterable[int]] | None = None,
    inactive: Iterable[str] = (),
    **columns: Any,
) -> None:
    """Write one cell: the seeds asked for (None: those finished), and the runs that have finished.

    Args:
        folder: of the runs.
        chosen: the thinking run's settings.
        found: arm -> seed -> its NLL.
        asked: arm -> seeds.
        inactive: settings without effect in the thinking run.
        columns: of every row, or by arm; `started` of the thinking arm's alone.
    """
    plan = {arm: sorted(seeds) for arm, seeds in (asked or found).items()}
    started = columns.pop("started", True)
    keys = {a: {s: key_of(chosen, a, s) for s in seeds} for a, seeds in plan.items()}
    write_cell(folder, chosen, keys, plan, inactive)
    for arm, by_seed in found.items():
        for seed, nll in by_seed.items():
            row = {"seed": seed, "nll": nll, "commit": "abc1234", "results_version": 1, "bayes_floor": 0.0}
            row |= {
                "parameters": 1000 + 100 * [*ARMS, arm].index(arm),
                "flops_per_token": 2000,
                "cpu_seconds": 2.0,
            }
            row["flops_per_step"] = 50_000
            row |= {"train_steps": STEPS[-1] * (23 if arm == "compute_matched" else 1), "accuracy": 0.5}
            own = {name: value[arm] if isinstance(value, dict) else value for name, value in columns.items()}
            row |= {"started": started if arm == "thinking" else None} | chosen | own
            write_run(folder, key_of(chosen, arm, seed), row)


def write_run(folder: Path, key: str, row: Mapping[str, Any]) -> None:
    """Write one finished run: its row, and a curve that falls towards its NLL."""
    (folder / key).mkdir(parents=True, exist_ok=True)
    (folder / key / "summary.json").write_text(json.dumps({"key": key, **row}))
    last, lines = row["train_steps"], []
    for step in (max(1, s * last // STEPS[-1]) for s in STEPS):
        nll = None if row["nll"] is None else row["nll"] + 1.8 * (1 - math.log1p(step) / math.log1p(last))
        for kind in ("train", "held_out"):
            lines.append(json.dumps({"step": step, "kind": kind, "nll": nll}))
    (folder / key / "metrics.jsonl").write_text("\n".join([*lines, ""]))


def spread(losses: Iterable[float], seeds: Iterable[int], salt: int) -> dict[str, dict[int, float]]:
    """Draw losses of every arm at every seed around given means; thinking's vary most."""
    drawn = np.random.default_rng(salt)
    found: dict[str, dict[int, float]] = {}
    for arm, mean in zip(ARMS, losses, strict=True):
        noise = 0.5 if arm == "thinking" else 0.06
        found[arm] = {seed: round(float(mean * np.exp(noise * drawn.normal())), 4) for seed in seeds}
    return found


def capacity_sweep(folder: Path, seeds: Iterable[int] = range(7, 12), **columns: Any) -> None:
    """Write a sweep over base widths of the default task."""
    for width in WIDTHS:
        chosen = settings(base_lm_hidden_dim=width)
        write(folder, chosen, spread(LOSSES[width], seeds, width), **columns)


def pattern_sweep(
    folder: Path, widths: Iterable[int] = (32,), betas: Iterable[float] = (0.1, 1.0), num_seeds: int = 5
) -> None:
    """Write a sweep over the fifteen patterns, at some widths and weights of the policy loss."""
    for width in widths:
        for beta in betas:
            for place, groups in enumerate(PATTERNS):
                chosen = settings(weight_groups=groups, policy_loss_beta=beta)
                chosen |= dict.fromkeys(
                    ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim"), width
                )
                means = [0.643 - 0.02 * place * beta * 16 / width, 0.643, 0.639, 0.645, 0.45, 0.30]
                write(folder, chosen, spread(means, range(num_seeds), place))


class Figures:
    """A replacement of `style.save` that collects the figures, and writes them only where asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[Figure] = []
        self.really = False
        self._save = style.save
        monkeypatch.setattr(style, "save", self)

    def __call__(self, figure: Figure, path: Path) -> None:
        self.drawn.append(figure)
        if self.really:
            self._save(figure, path)
        else:
            path.write_bytes(b"")


class Result(NamedTuple):
    """The exit code, output and files of a script."""

    code: int
    out: str
    err: str
    figure: Figure | None  # None: not drawn
    table: pd.DataFrame | None  # None: not written


class Script:
    """A script's main, called on the folder `runs` below the working folder.

    Args:
        main: of the script.
        output: its figure's name where none is given.
        figures: where they go.
        capsys: of pytest.
    """

    def __init__(self, main: Any, output: str, figures: Figures, capsys: Any) -> None:
        self.main, self.output, self.figures, self.capsys = main, output, figures, capsys

    def __call__(self, *words: str, really: bool = False) -> Result:
        self.figures.really = really
        path = Path(words[words.index("-o") + 1] if "-o" in words else self.output)
        path.unlink(missing_ok=True)
        path.with_suffix(".csv").unlink(missing_ok=True)
        drawn = len(self.figures.drawn)
        code = self.main(["runs", *words])
        out, err = self.capsys.readouterr()
        assert path.exists() == path.with_suffix(".csv").exists() == (code == 0), "both or none"
        assert code == 0 or (out, err.count("\n")) == ("", 1), "a refusal is one line"
        table = pd.read_csv(path.with_suffix(".csv")) if code == 0 else None
        return Result(code, out, err, self.figures.drawn[-1] if self.figures.drawn[drawn:] else None, table)
