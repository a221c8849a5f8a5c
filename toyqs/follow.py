"""What a process of torchrun's does that is not the first: train what it is told to, say nothing."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from toyqs import parallel
from toyqs.experiment import train_along


def follow() -> int:
    """Train along until rank 0 ends; a failure is said in one line, by the first that fails.

    Returns:
        The exit code.
    """
    try:
        for config, seeds in parallel.jobs():
            train_along(config, seeds)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        if parallel.is_first_to_fail():
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(f"{type(error).__name__}: {error}".split())
            place = f"{Path(where.filename).name}:{where.lineno}"
            print(f"toyqs: rank {parallel.rank()} failed: {said} ({place})", file=sys.stderr, flush=True)
        os._exit(1)  # at once: what other libraries do at the end would wait for the other processes
    return 0
