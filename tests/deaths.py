"""One run, given again and again, that dies before every kind of touch of its files once.

`python tests/deaths.py RUNS` prints a line per death, until the run comes to its end. Each death is a SIGKILL
right before a file of the folder is opened for writing, renamed or removed, or a folder made. After each,
what is there must be readable.
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


def die_somewhere_new(folder: str, known: set[str], told: int) -> None:
    """Let this process be killed at its next touch of the folder that is none of the known ones.

    Args:
        folder: of runs.
        known: touches, in words.
        told: a file descriptor to which the touch is written, right before.
    """

    def look(event: str, details: tuple[Any, ...]) -> None:
        writes = event in EVENTS or (event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and str(details[0]).startswith(folder):
            name = re.sub(r"\.\d+\b", ".PID", str(details[0]).removeprefix(folder))
            if (touch := f"{event} {name}") not in known:
                os.write(told, touch.encode())
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def configured(folder: str) -> RunConfig:
    """The run."""
    return resolved(replace(RunConfig(), **SMALL, runs_dir=folder))


def deaths(folder: str) -> list[str]:
    """Die wherever one can, each time in a process of its own; the touches, in words."""
    torch.set_num_threads(1)  # a process with more cannot be copied
    config = configured(folder)
    count_cost(config)  # what it imports need not be imported by every process
    found: list[str] = []
    while True:
        embed_symbols, tell = os.pipe()
        process = os.fork()
        if not process:
            die_somewhere_new(folder, set(found), tell)
            os._exit(main.main([config]))
        os.close(tell)
        _, status = os.waitpid(process, 0)
        with os.fdopen(embed_symbols) as pipe:
            touch = pipe.read()
        if Path(folder).is_dir():
            load_cells(folder)
        if not os.WIFSIGNALED(status):
            assert (touch, os.waitstatus_to_exitcode(status)) == ("", 0)
            return found
        found.append(touch)


if __name__ == "__main__":
    for death in deaths(sys.argv[1]):
        print(death, file=sys.stderr)
