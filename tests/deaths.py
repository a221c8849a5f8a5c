"""Start one run again and again, and kill it once before every kind of change of its files.

`python tests/deaths.py RUNS` prints a line per death, until the run completes. Each death is a SIGKILL
right before a file of the folder is opened for writing, renamed or removed, or a folder made. After each,
the files must be readable.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toyqs.config.builders.cost import count_cost  # noqa: E402
from toyqs.config.resolve import resolved  # noqa: E402
from toyqs.config.run_config import RunConfig  # noqa: E402
from toyqs.evidence.cells import load_cells  # noqa: E402
from toyqs.sweep import main  # noqa: E402

SMALL: dict[str, Any] = {
    "base_lm_hidden_dim": 2,
    "use_reasoner": False,
    "seed": 1,
    "max_steps": 2,
    "data_loader_batch_size": 2,
    "eval_sequences": 2,
    "processes": 1,
}
EVENTS = ("os.rename", "os.remove", "os.mkdir")


def die_at_a_new_change(folder: str, known: set[str], pipe: int) -> None:
    """Let this process be killed at its next change of the folder that is not a known one.

    Args:
        folder: of runs.
        known: changes, in words.
        pipe: a file descriptor to which the change is written right before.
    """

    def look(event: str, details: tuple[Any, ...]) -> None:
        writes = event in EVENTS or (event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and str(details[0]).startswith(folder):
            name = re.sub(
                r"\.[0-9a-f]{8}\.\d+\.[0-9a-f]{8}$", ".TEMPORARY", str(details[0]).removeprefix(folder)
            )
            if (change := f"{event} {name}") not in known:
                os.write(pipe, change.encode())
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def configured(folder: str) -> RunConfig:
    """Return the run's settings."""
    return resolved(replace(RunConfig(), **SMALL, runs_dir=folder))


def deaths(folder: str) -> list[str]:
    """Die at every change, each time in a process of its own; return the changes in words."""
    torch.set_num_threads(1)  # a process with more cannot be forked safely
    config = configured(folder)
    count_cost(config)  # imports here what every forked process needs
    found: list[str] = []
    while True:
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            die_at_a_new_change(folder, set(found), writing)
            os._exit(main.main([config]))
        os.close(writing)
        _, status = os.waitpid(process, 0)
        with os.fdopen(reading) as pipe:
            change = pipe.read()
        if Path(folder).is_dir():
            load_cells(folder)
        if not os.WIFSIGNALED(status):
            assert (change, os.waitstatus_to_exitcode(status)) == ("", 0)
            return found
        found.append(change)


if __name__ == "__main__":
    for death in deaths(sys.argv[1]):
        print(death, file=sys.stderr)
