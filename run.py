"""The command line of toyqs; see `python run.py --help`."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # also under python -P, by a link, by runpy

from toyqs import console

STOPPED = "toyqs: stopped; finished runs are kept, the same command does the others"
if __name__ == "__main__":  # importing takes seconds, in which Ctrl-C comes as well
    console.prepare()
    signal.signal(signal.SIGINT, lambda *_: print(STOPPED, file=sys.stderr, flush=True) or os._exit(130))
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # is answered like Ctrl-C

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from toyqs.sweep.words import compose  # noqa: E402

exit_codes: list[int] = []  # one for each call of `job`: several where a launcher runs jobs one by one


@hydra.main(version_base="1.3", config_path=f"{sys.path[0]}/conf", config_name="config")
def job(given: DictConfig | list[compose.Job]) -> None:
    """Train one run and its controls or, with the local launcher, all runs of a sweep."""
    exit_codes.append(1)
    exit_codes[-1] = compose.run_jobs(given)


if __name__ == "__main__":
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv[1:] = compose.prepared(sys.argv[1:])
        job()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C could only disturb Python's exit
        exit_codes.append(print(STOPPED, file=sys.stderr) or 130)
    except Exception as error:
        if exit_codes:  # a job failed: not a mistake on the command line
            raise
        exit_codes.append(compose.refuse(error))
    sys.exit(console.finish(max(exit_codes, default=0)))
