"""The command line: `python run.py --help` says what it does."""

import sys

import hydra
from omegaconf import DictConfig

from toyqs.compose import compose_checked, prepare, refuse
from toyqs.config_checks import Refusal

exit_codes: list[int] = []  # of the jobs begun, which are several with -m


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(cfg: DictConfig) -> None:
    """One run with its controls."""
    exit_codes.append(1)
    try:
        config = compose_checked(cfg)
        from toyqs.comparison import main  # noqa: PLC0415, slow: a refusal need not wait for it

        exit_codes[-1] = main(config)
    except Refusal as refusal:
        exit_codes[-1] = refuse(refusal)


if __name__ == "__main__":
    try:
        prepare(sys.argv[1:])
        job()
    except KeyboardInterrupt:
        print("toyqs: stopped; complete runs are kept, the same command does the others", file=sys.stderr)
        exit_codes.append(130)
    except BrokenPipeError:  # whoever read the output has left; files are written before the table
        sys.stdout = None  # nothing is left to flush at the end
    except Exception as error:
        if exit_codes:  # a job's own failure, not a way of typing
            raise
        exit_codes.append(refuse(error))
    sys.exit(max(exit_codes, default=0))
