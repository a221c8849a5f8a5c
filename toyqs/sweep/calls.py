"""Train from Python: `toyqs.run` and `toyqs.run_sweep`, which are the command line with values for words."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from enum import Enum
from importlib.machinery import ModuleSpec
from typing import Any

import pandas as pd
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.version import VersionBase
from omegaconf.basecontainer import BaseContainer

from toyqs.config.errors import Refusal
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import load_rows
from toyqs.experiment.torch_state import as_in_a_new_process
from toyqs.installation import COMMAND
from toyqs.sweep.main import Done, train_and_report
from toyqs.sweep.words import compose
from toyqs.sweep.words.hydra_errors import refusal_of
from toyqs.sweep.words.spelling import value_text
from toyqs.training import distributed

LISTS = ("plugins", "zip")  # settings of a whole sweep
ADDED = ("run_modifier",)  # settings that take a plus where they are typed
_one_at_a_time = threading.Lock()  # Hydra's state is the process's


def run(**settings: Any) -> pd.DataFrame:
    """Train a run and its controls, as `toyqs KEY=VALUE ...` does; return a row for each, by arm and seed.

    What the command prints is printed: progress, the table, the verdict. Runs that are complete are not
    trained again. Training is in processes of their own, which import nothing of the script that calls this.

        rows = toyqs.run(task="rev_prog", max_steps=200, seed=[1, 2], **{"task.k": 2})

    Args:
        settings: any that may be typed, a list for a list; a task's own as {"task.k": 2}, presets as
            run_modifier="Quick".

    Returns:
        The columns of `toyqs.evidence.load_rows`, and before them the arm.

    Raises:
        Refusal: a setting cannot be; the line that the command would print. A ValueError.
        RuntimeError: a run failed; the lines that the command prints then. The other runs are kept.
    """
    return _call([_word(key, value_text(_plain(key, value))) for key, value in settings.items()])


def run_sweep(**settings: Any) -> pd.DataFrame:
    """Train all combinations of the values given as lists, as `toyqs -m` does; return a row for each run.

        rows = toyqs.run_sweep(base_lm_hidden_dim=[4, 8, 16], seed=[1, 2, 3, 4])

    With zip=["base_lm_hidden_dim", "base_lr"] these two change together.

    Args:
        settings: as for `run`, but a list, a range or an array is swept over. Where a setting's own value is
            a list, give a list of them: weight_groups=[["A", "A", "B", "C"]].

    Returns:
        A row for each run, as `run` does; a control that several combinations share has one.

    Raises:
        Refusal, RuntimeError: as for `run`; a refused combination lets none be run, but for keep_going=True.
    """
    return _call(["-m", *(_word(key, _swept(key, value)) for key, value in settings.items())])


def _word(key: str, value: str) -> str:
    """Return a setting as it is typed.

    Raises:
        Refusal: a key that would be read as something else.
    """
    if not key.lstrip("+") or key.startswith("-") or set(key) & set("= "):
        raise Refusal(f"{key}: is no setting; give KEY=VALUE, as max_steps=200 or **{{'task.k': 2}}")
    return f"{'+' if key in ADDED else ''}{key}={value}"


def _plain(key: str, value: Any) -> Any:
    """Return a value of Python's own types for one of numpy's, of pathlib's or of an enumeration.

    Raises:
        Refusal: it is nothing that can be typed.
    """
    value = value.value if isinstance(value, Enum) else value
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple | range):
        return [_plain(key, one) for one in value]
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if value is not None and not isinstance(value, str | int | float):
        kinds = "a word, a number, True, False, None, or a list of these"
        raise Refusal(f"{key}: a {type(value).__name__} is no value of a setting; give {kinds}")
    return value


def _swept(key: str, value: Any) -> str:
    """Write the values of a setting as they are typed, separated by commas.

    Raises:
        Refusal: there is none.
    """
    value = _plain(key, value)
    if key in LISTS or not isinstance(value, list):
        return value_text(value)
    if not value:
        raise Refusal(f"{key}=[]: is a sweep over nothing; give values, {key}=[VALUE, VALUE]")
    return ",".join(value_text(one) for one in value)


def _call(words: Sequence[str]) -> pd.DataFrame:
    """Do what a command does with some words; return the rows of its runs.

    Raises:
        Refusal, RuntimeError: as for `run`.
    """
    if distributed.ranks() > 1:
        raise Refusal("toyqs.run and run_sweep train in one process; call torchrun with the command instead")
    said: list[str] = []
    trained: list[
        tuple[str, Done]
    ] = []  # of a folder of runs; one, but where a launcher runs jobs one by one
    begun: list[bool] = []

    def train(configs: Sequence[RunConfig], **how: Any) -> int:
        _print(said)
        done = train_and_report(configs, isolate=True, **how)
        trained.append((configs[0].runs_dir, done))
        return done.code

    def job(given: Any) -> None:
        begun.append(True)
        compose.run_jobs(given, said.append, train)

    with _one_at_a_time, _as_command(words), as_in_a_new_process():
        try:
            sys.argv[1:] = compose.prepared(words)
            compose.call(job)
        except Refusal as refusal:
            raise refusal from None  # its line says all; what Hydra raised before it is pages
        except Exception as error:
            if begun:  # a fault of ours
                raise
            raise refusal_of(error) from None
    if not trained:
        raise Refusal("; ".join(said))
    _print(said)
    for _, done in trained:
        if done.faults:
            raise Refusal("; ".join(done.faults)) if done.code == 2 else RuntimeError("\n".join(done.faults))
    return pd.concat([_rows(runs_dir, done.arms) for runs_dir, done in trained], ignore_index=True)


def _print(lines: list[str]) -> None:
    """Print lines as the command does, and forget them."""
    for line in lines:
        print(f"toyqs: {line}", file=sys.stderr)
    lines.clear()


def _rows(runs_dir: str, arms: Mapping[str, str]) -> pd.DataFrame:
    """Load the rows of some runs, with their arms."""
    if not arms:  # a plan, of which no run is finished
        return pd.DataFrame(columns=["arm", "key"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of several commits: printed already
        rows = load_rows(runs_dir, arms).set_index("key", drop=False)
    rows.insert(0, "arm", pd.Series(arms))
    return rows.loc[list(arms)]


@contextmanager
def _as_command(words: Sequence[str]) -> Iterator[None]:
    """Make this process look like the command with some words; undo it and all that Hydra has changed."""
    argv, environment, main = sys.argv[:], dict(os.environ), sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    # the mark by which new processes leave the main module alone: importing it would call this again
    main.__spec__ = ModuleSpec("toyqs.__main__", None)
    sys.argv[:] = [COMMAND, *words]
    try:
        with _hydra_of_its_own():
            yield
    finally:
        if os.environ.get("TOYQS_SCRATCH") != environment.get("TOYQS_SCRATCH"):
            shutil.rmtree(os.environ["TOYQS_SCRATCH"], ignore_errors=True)
        main.__spec__ = spec
        sys.argv[:] = argv
        _restore(os.environ, environment)


@contextmanager
def _hydra_of_its_own() -> Iterator[None]:
    """Let this process's Hydra forget what it is composing, and afterwards what it composed here."""
    store, _ = ConfigStore.instance(), Plugins.instance()  # finds the plug-ins, once and for all
    before, resolvers, stored = Singleton._instances, BaseContainer._resolvers, store.repo
    kept = before.keys() - {GlobalHydra, HydraConfig, VersionBase}
    Singleton._instances = {kind: before[kind] for kind in kept}
    BaseContainer._resolvers, store.repo = dict(resolvers), deepcopy(stored)
    try:
        yield
    finally:
        Singleton._instances, BaseContainer._resolvers, store.repo = before, resolvers, stored


def _restore(mapping: Any, before: Mapping[str, str]) -> None:
    for name in [*mapping]:
        if name not in before:
            del mapping[name]
    mapping.update(before)
