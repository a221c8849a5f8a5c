"""Processes that torchrun started: rank 0 runs the command, the others follow it."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import traceback
from pathlib import Path

from toyqs.config.errors import Refusal
from toyqs.config.run_config import register
from toyqs.sweep.hydra_errors import all_keys
from toyqs.sweep.presets import register_lists
from toyqs.training import distributed


def prepare(words: list[str]) -> None:
    """Make Hydra ready for a command line. Of torchrun's processes only the first returns from here.

    Args:
        words: what was typed after the program's name.

    Raises:
        Refusal: a setting is written as --key=value, which Hydra would answer with a page of usage.
    """
    if distributed.rank():
        sys.exit(serve_rank())
    distributed.lead()
    for word in words:
        setting = word.lstrip("-")
        if setting != word and setting.partition("=")[0] in all_keys():
            raise Refusal(f"{word}: settings are written without dashes; give {setting}")
    register()
    register_lists()
    scratch = tempfile.TemporaryDirectory(prefix="toyqs-")
    atexit.register(scratch.cleanup)
    os.environ["TOYQS_SCRATCH"] = scratch.name  # conf/config.yaml sends Hydra's own files there
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would else print over many lines


def serve_rank() -> int:
    """Train along until rank 0 ends; a failure is said in one line, by the first that fails.

    Returns:
        The exit code.
    """
    from toyqs.experiment.stack import train_along  # slow, and only followers train from here

    try:
        for config, seeds in distributed.receive_jobs():
            train_along(config, seeds)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        if distributed.is_first_to_fail():
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(f"{type(error).__name__}: {error}".split())
            place = f"{Path(where.filename).name}:{where.lineno}"
            print(f"toyqs: rank {distributed.rank()} failed: {said} ({place})", file=sys.stderr, flush=True)
        os._exit(1)  # at once: what other libraries do at the end would wait for the other processes
    return 0
