"""The processes that torchrun started: rank 0 runs the command, the others train with it."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile

from toyqs.config.errors import Refusal
from toyqs.config.plain import from_plain
from toyqs.config.run_config import register
from toyqs.sweep.hydra_errors import all_keys
from toyqs.sweep.presets import register_lists
from toyqs.training import distributed


def prepare(words: list[str]) -> None:
    """Prepare Hydra for a command line; in torchrun's processes other than rank 0, train and exit.

    Args:
        words: the command line after the program's name.

    Raises:
        Refusal: a setting is written as --key=value, or follows -m without a blank, which Hydra would answer
            with a page of usage.
    """
    if distributed.rank():
        sys.exit(serve_rank())
    distributed.lead()
    for word in words:
        setting = word.lstrip("-")
        if setting != word and setting.partition("=")[0] in all_keys():
            raise Refusal(f"{word}: settings are written without dashes; give {setting}")
        after_m = word.removeprefix("-m")
        if after_m != word and (after_m[:1] in ("+", "~") or after_m.partition("=")[0] in all_keys()):
            raise Refusal(f"{word}: a blank is missing; give -m {after_m}")
    register()
    register_lists()
    scratch = tempfile.TemporaryDirectory(prefix="toyqs-")
    atexit.register(scratch.cleanup)
    os.environ["TOYQS_SCRATCH"] = scratch.name  # conf/config.yaml sends Hydra's own files there
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would otherwise print over many lines


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
