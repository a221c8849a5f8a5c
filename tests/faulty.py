"""run.py with faults in its runs, chosen by environment variables: for tests only.

FAULTS: JSON, width of the base -> how its training ends, a key of ENDS.
TRAINED: a file to which the key of every run is appended when its training starts.
WAIT_FOR: a file, such as another command's TRAINED, for which every training waits.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toyqs.config.identity import run_key  # noqa: E402
from toyqs.config.run_config import RunConfig  # noqa: E402
from toyqs.sweep import worker  # noqa: E402
from toyqs.training.flops import Cost  # noqa: E402


def _raise(error: BaseException) -> None:
    raise error


ENDS: dict[str, Callable[[], None]] = {
    "exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(4),
    "raise": lambda: _raise(ValueError("a fault\nof two lines")),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "memory": lambda: _raise(MemoryError()),
}

train = worker.run_stack


def faulty(
    config: RunConfig,
    seeds: Sequence[int],
    cost: Cost,
    progress: Callable[[int, float | None], None],
    *rest: Any,
) -> None:
    """Run a stack as `run_stack` does, ended during the training where FAULTS says so."""
    if trained := os.environ.get("TRAINED"):
        with Path(trained).open("a", encoding="utf-8") as file:
            file.write("".join(f"{run_key(config, seed)}\n" for seed in seeds))
    if other := os.environ.get("WAIT_FOR"):
        while not Path(other).exists():
            time.sleep(0.01)
    end = json.loads(os.environ.get("FAULTS", "{}")).get(str(config.base_lm_hidden_dim))

    def report(step: int, loss: float | None) -> None:
        progress(step, loss)
        if end and step == 2:
            ENDS[end]()

    train(config, seeds, cost, report, *rest)


worker.run_stack = faulty  # worker processes import this file too, as their main module

if __name__ == "__main__":
    run = ROOT / "run.py"
    # its own __file__, for it finds its presets by that; workers find this file by that of the main module
    exec(compile(run.read_text(encoding="utf-8"), run, "exec"), globals() | {"__file__": str(run)})
