"""The command line of toyqs; see `python run.py --help`."""

import os
import signal
import sys

STOPPED = "toyqs: stopped; complete runs are kept, the same command does the others"
if __name__ == "__main__":  # importing takes seconds, in which Ctrl-C comes as well
    signal.signal(signal.SIGINT, lambda *_: print(STOPPED, file=sys.stderr, flush=True) or os._exit(130))
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # is answered like Ctrl-C

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from toyqs.sweep import compose, torchrun  # noqa: E402

exit_codes: list[int] = []  # one for each call of `job`: several where a launcher runs jobs one by one


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(given: DictConfig | list[DictConfig | Exception]) -> None:
    """Train one run and its controls or, with the local launcher, all runs of a sweep."""
    exit_codes.append(1)
    configs, exit_codes[-1] = compose.compose_jobs(given if isinstance(given, list) else [given])
    if configs:
        from toyqs.sweep.main import main  # noqa: PLC0415, slow: a refusal need not wait for it

        exit_codes[-1] = max(exit_codes[-1], main(configs, sweep=isinstance(given, list)))


if __name__ == "__main__":
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torchrun.prepare(sys.argv[1:])
        job()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C could only disturb Python's exit
        exit_codes.append(print(STOPPED, file=sys.stderr) or 130)
    except BrokenPipeError:  # the reader of the output has gone; files are written before the table
        sys.stdout = None  # so that Python flushes nothing at exit
    except Exception as error:
        if exit_codes:  # a job failed: not a mistake on the command line
            raise
        exit_codes.append(compose.refuse(error))
    sys.exit(max(exit_codes, default=0))
