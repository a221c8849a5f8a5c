"""The command `toyqs`, in a checkout also `python run.py`: train, or look at what was trained."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from toyqs import __version__, console
from toyqs.installation import COMMAND, VERBS, scripts
from toyqs.sweep.words import stand_ins

if TYPE_CHECKING:  # importing it takes seconds, in which Ctrl-C comes as well
    from omegaconf import DictConfig

    from toyqs.sweep.words.compose import Sweep

STOPPED = "toyqs: stopped; finished runs are kept, the same command does the others"
INTERRUPTED = "toyqs: interrupted"
HELP = {"--help", "-h"}
PRINTING = {*HELP, "--cfg", "-c"}  # options of training for which nothing is computed


def main() -> int:
    """Do what the program's words ask for; return the exit code."""
    console.prepare()
    if Path(sys.argv[0]).stem in (COMMAND, "__main__"):
        sys.argv[0] = COMMAND  # a run notes how it was typed, without the folder of the command
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if "--version" in sys.argv[1:]:
        print(f"toyqs {__version__}")
        return console.finish(0)
    if verb in VERBS or verb in scripts():
        return _ask(verb)
    _end_at_once(STOPPED)
    return _train()


def _end_at_once(line: str) -> None:
    """Answer Ctrl-C and SIGTERM with one line, until the modules are imported that do it in their way."""

    def end(*_: object) -> None:
        print(line, file=sys.stderr, flush=True)
        os._exit(130)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # is answered like Ctrl-C


@contextmanager
def _imports() -> Iterator[None]:
    """Import within a block; as nothing of that goes again, the garbage collector never looks through it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _ask(verb: str) -> int:
    """Call the command of a verb or a script, with the words after it."""
    _end_at_once(INTERRUPTED)
    given = sys.argv[1:]
    if not HELP.isdisjoint(given):
        stand_ins.stand_in()
    with _imports():
        module = importlib.import_module(f"{VERBS[verb]}.__main__") if verb in VERBS else _script(verb)
    if verb not in VERBS:
        given = given[1:]
        sys.argv[0] = f"{Path(sys.argv[0]).name} {verb}"  # begins its line of usage
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code: int = module.main(given)
    return code


def _script(name: str) -> ModuleType:
    """Import an analysis script, which in a checkout lies beside the package."""
    spec = importlib.util.spec_from_file_location(f"toyqs.analysis.{name}", scripts()[name])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _only_prints(words: Sequence[str]) -> bool:
    """Tell whether a command only prints what the code says of itself; a plug-in may say anything."""
    options = {word.partition("=")[0] for word in words}
    return not options.isdisjoint(PRINTING) and "plugins" not in options


def _train() -> int:
    """Train one run and its controls or, with a launcher of ours, all runs of a sweep."""
    if prints := _only_prints(sys.argv[1:]):
        stand_ins.stand_in()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads would keep workers from being copies
    with _imports():
        from toyqs.sweep import starting
        from toyqs.sweep.words import compose

    if prints:
        compose.list_no_groups()
    codes: list[int] = []  # one for each call of `job`: several where a launcher runs jobs one by one

    def job(given: DictConfig | Sweep) -> None:
        codes.append(1)
        codes[-1] = compose.run_jobs(given)

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv[1:] = compose.prepared(sys.argv[1:])
        with starting.copies_allowed():
            compose.call(job)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C could only disturb Python's exit
        print(STOPPED, file=sys.stderr)
        codes.append(130)
    except Exception as error:
        if codes:  # a job failed: not a mistake on the command line
            raise
        codes.append(compose.refuse(error))
    return console.finish(max(codes, default=0))


if __name__ == "__main__":
    sys.exit(main())
