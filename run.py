"""The command line: `python run.py --help` says what it does."""

import os
import signal
import sys

STOPPED = "toyqs: stopped; complete runs are kept, the same command does the others"
if __name__ == "__main__":  # importing takes seconds, in which Ctrl-C comes as well
    signal.signal(signal.SIGINT, lambda *_: print(STOPPED, file=sys.stderr, flush=True) or os._exit(130))

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from toyqs.sweep import compose, torchrun  # noqa: E402

exit_codes: list[int] = []  # of the calls below, which are several where a launcher does job by job


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(given: DictConfig | list[DictConfig | Exception]) -> None:
    """One run with its controls, or with the local launcher all of a sweep's."""
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
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second one would only meet Python's end
        print(STOPPED, file=sys.stderr)
        exit_codes.append(130)
    except BrokenPipeError:  # whoever read the output has left; files are written before the table
        sys.stdout = None  # nothing is left to flush at the end
    except Exception as error:
        if exit_codes:  # a job's own failure, not a way of typing
            raise
        exit_codes.append(compose.refuse(error))
    sys.exit(max(exit_codes, default=0))
