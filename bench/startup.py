"""What a command takes before and beside any training: help, refusals, workers, runs that are finished.

`python bench/startup.py` starts each command a few times and prints the median of its CPU seconds, those of
its processes included. For the last line it trains 500 tiny runs, which takes half a minute.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import processor
from toyqs.command_line import Parser, run, whole
from toyqs.files import Refusal

ROOT = Path(__file__).resolve().parents[1]
RUN = str(ROOT / "run.py")
TINY = (
    *("controls=none", "reasoner_hidden_dim=4", "max_steps=2", "data_loader_batch_size=2"),
    *("eval_sequences=4", "trice_samples=2", "max_reasoning_len=1"),
)
WORKERS = 4
FINISHED = (*TINY, "base_lm_hidden_dim=range(1,101)", "seed=range(0,5)")
# What is started -> its words, and the exit code that it should have.
COMMANDS: dict[str, tuple[Sequence[str], int]] = {
    "import torch": (["-c", "import torch"], 0),
    "toyqs --help": ([RUN, "--help"], 0),
    "toyqs --cfg job": ([RUN, "--cfg", "job"], 0),
    "toyqs.evidence --help": (["-m", "toyqs.evidence", "--help"], 0),
    "toyqs say --help": ([RUN, "say", "--help"], 0),
    "refused: an option that does not exist": ([RUN, "--hlep"], 2),
    "refused: a key that does not exist": ([RUN, "max_step=3"], 2),
    "refused: a value that cannot be": ([RUN, "grad_acc=3"], 2),
}


def cpu_seconds(words: Sequence[str], code: int = 0, folder: Path = ROOT) -> float:
    """Start Python with some words; return the CPU seconds of the process and its children.

    Raises:
        Refusal: it ended with another exit code.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != code:
            errors.seek(0)
            raise Refusal(f"{' '.join(words)}: exit code {process.returncode}: {errors.read()[-500:]}", 1)
    return used.ru_utime + used.ru_stime


def sweep(folder: Path, processes: int, *words: str) -> float:
    """Train a tiny run for each process, in an empty folder; return the CPU seconds."""
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        widths = f"base_lm_hidden_dim=range(1,{WORKERS + 1})"
        return cpu_seconds([RUN, "-m", *TINY, widths, f"processes={processes}", f"runs_dir={runs}", *words])


def _print(given: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"CPU seconds, medians of {given.rounds}, on {cores} cores of {processor()}")
    for name, (words, code) in COMMANDS.items():
        print(f"{name:40}{median(cpu_seconds(words, code) for _ in range(given.rounds)):8.2f}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        more = [(sweep(folder, WORKERS) - sweep(folder, 1)) / (WORKERS - 1) for _ in range(given.rounds)]
        print(f"{'a worker more':40}{median(more):8.2f}", flush=True)
        again = [RUN, "-m", *FINISHED]
        print(f"{'500 tiny runs, trained':40}{cpu_seconds(again, folder=folder):8.2f}", flush=True)
        seconds = median(cpu_seconds(again, folder=folder) for _ in range(given.rounds))
        print(f"{'the same, finished':40}{seconds:8.2f}")


def main(words: Sequence[str] | None = None) -> int:
    """Print a line for each command."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=whole, default=5, metavar="N", help="of each command (5)")
    return run(_print, parser, words)


if __name__ == "__main__":
    sys.exit(main())
