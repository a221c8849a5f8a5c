"""What a sweep of many tiny runs costs beyond their training, by what trains them.

`python bench/executors.py local slurm ray` trains the same 1,000 runs on this machine's cores, as Slurm jobs
and as tasks of Ray, each time into an empty folder, and prints what a run takes. Words KEY=VALUE go to the
commands. Where there is no Slurm, `python tests/one_node.py FOLDER` starts one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import processor
from toyqs.command_line import Parser, run, whole
from toyqs.files import Refusal, read_json

ROOT = Path(__file__).resolve().parents[1]
SEEDS = 40  # of each width, in stacks of 16, 16 and 8
WORDS = (
    *("controls=none", "reasoner_hidden_dim=4", "max_steps=20", "data_loader_batch_size=2"),
    *("eval_sequences=4", "trice_samples=2", "max_reasoning_len=1"),
)


class Sweep(NamedTuple):
    """What a sweep has taken."""

    runs: int
    stacks: int
    wall: float  # seconds from the command's start to its end
    training: float  # seconds of all stacks' trainings and evaluations, one after another


def measured(launcher: str, widths: int, words: Sequence[str], runs_dir: str) -> Sweep:
    """Run the sweep once.

    Raises:
        Refusal: it failed; the end of what it printed says why.
    """
    sweep = [f"base_lm_hidden_dim=range(2,{2 + widths})", f"seed=range(0,{SEEDS})", f"runs_dir={runs_dir}"]
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "-m",
        *WORDS,
        *sweep,
        f"hydra/launcher={launcher}",
        *words,
    ]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    rows = [(read_json(path), path.with_name("env.json")) for path in Path(runs_dir).glob("*/summary.json")]
    if done.returncode or len(rows) != widths * SEEDS:
        raise Refusal(f"{launcher}: exit code {done.returncode}, {len(rows)} rows: {done.stderr[-500:]}", 1)
    shares = [1 / read_json(env)["stack_size"] for _, env in rows]
    training = sum(row["wall_seconds"] * share for (row, _), share in zip(rows, shares, strict=True))
    return Sweep(len(rows), round(sum(shares)), wall, training)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "words", nargs="+", metavar="LAUNCHER|KEY=VALUE", help="launchers, and words for run.py"
    )
    parser.add_argument("--runs", type=whole, default=1000, help=f"how many runs, in cells of {SEEDS} (1000)")
    parser.add_argument(
        "--folder", default=".", help="where the runs are kept meanwhile; nodes must see it (.)"
    )
    return run(_tabulate, parser, words)


def _tabulate(given: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0))
    keys = [word for word in given.words if "=" in word]
    print(f"A sweep of tiny runs, by what trains it, on {cores} cores of {processor()}")
    print("overhead: core seconds beyond the training, where all cores are this machine's")
    heads = ("launcher", "runs", "stacks", "wall s", "overhead, s a run", "training, s a run")
    print("{:10}{:>6}{:>8}{:>9}{:>19}{:>19}".format(*heads))
    for launcher in (word for word in given.words if "=" not in word):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            runs, stacks, wall, training = measured(launcher, max(1, given.runs // SEEDS), keys, folder)
        beyond = (wall * cores - training) / runs
        print(
            f"{launcher:10}{runs:6d}{stacks:8d}{wall:9.1f}{beyond:19.3f}{training / runs:19.3f}", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
