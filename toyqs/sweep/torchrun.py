"""The processes that torchrun started: rank 0 runs the command, the others train with it."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
from collections.abc import Sequence

from toyqs.config.errors import Refusal
from toyqs.config.plain import from_plain
from toyqs.config.plugins import load
from toyqs.sweep.words.presets import register, register_lists
from toyqs.training import distributed

RANKS = ("RANK", "WORLD_SIZE")  # of what torchrun puts into the environment, this process and its number
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")  # where the processes meet


def prepare(plugins: Sequence[str] = ()) -> None:
    """Prepare Hydra; in torchrun's processes other than rank 0, train and exit.

    Args:
        plugins: files, folders or installed ones, whose choices are known from here on.

    Raises:
        Refusal: the environment has some of what torchrun sets, and not all; or a plug-in cannot be loaded.
    """
    _check_environment()
    if distributed.rank():
        sys.exit(serve_rank())
    distributed.lead()
    load.reset()
    load.load(plugins)
    register()
    register_lists()
    scratch = tempfile.TemporaryDirectory(prefix="toyqs-")
    atexit.register(scratch.cleanup)
    os.environ["TOYQS_SCRATCH"] = scratch.name  # conf/config.yaml sends Hydra's own files there
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would otherwise print over many lines


def _check_environment() -> None:
    """Refuse RANK and WORLD_SIZE that something else than torchrun has left in the environment."""
    given = {name: os.environ[name] for name in (*RANKS, *ADDRESS) if name in os.environ}
    if "RANK" not in given or given.get("WORLD_SIZE", "1") == "1":
        return
    rank, ranks = (int(given[name]) if given[name].isdecimal() else -1 for name in RANKS)
    missing = " and ".join(name for name in ADDRESS if name not in given)
    if missing or not 0 <= rank < ranks:
        why = f"without {missing}" if missing else "and are no number and how many"
        shown = " ".join(f"{name}={given[name]}" for name in RANKS)
        raise Refusal(
            f"{shown}: the environment has these, as under torchrun, {why}; unset {' '.join(RANKS)}"
        )


def serve_rank() -> int:
    """Train the jobs that rank 0 broadcasts until it ends; the first rank to fail prints why, in one line.

    Returns:
        The exit code.
    """
    # the command answers SIGTERM; here it would be answered only once rank 0 sends something
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # slow to import, and only these ranks train from here
    from toyqs.experiment.stack import train_along
    from toyqs.sweep.worker import one_line

    try:
        for job in distributed.receive_jobs():
            train_along(from_plain(job["config"]), job["seeds"])
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        if distributed.is_first_to_fail():
            line = f"toyqs: rank {distributed.rank()} failed: {one_line(error)}"
            print(line, file=sys.stderr, flush=True)
        os._exit(1)  # at once: an orderly exit would wait for the other processes
    return 0
