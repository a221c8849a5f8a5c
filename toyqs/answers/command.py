"""Arguments that measures share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from toyqs.answers.loaded.load import LoadedRun, load
from toyqs.command_line import path_of, whole


def add_measure(
    measures: Any, name: str, measure: Callable[[argparse.Namespace, LoadedRun], Any], text: str
) -> argparse.ArgumentParser:
    """Add a measure of one run on a text, with the arguments that all such measures share."""
    part = add_command(
        measures, name, lambda given: measure(given, load(given.run, given.device, given.seed)), text
    )
    part.add_argument("run", metavar="RUN", help="folder of a finished run, runs/KEY")
    part.add_argument("--seed", type=int, default=0, help="seed of thoughts and sampled tokens (0)")
    return part


def add_thoughts_measure(
    measures: Any,
    name: str,
    measure: Callable[[argparse.Namespace], Any],
    text: str,
    number: str = "as many as the runs' own evaluation",
) -> argparse.ArgumentParser:
    """Add a measure of the thoughts of runs that differ in their seed alone, on held-out sequences.

    `number` says how many of them there are by default.
    """
    help_ = "folders of finished runs that differ in their seed alone, runs/KEY"
    part = add_runs_measure(measures, name, measure, text, help_)
    help_ = f"held-out sequences ({number})"
    part.add_argument("--sequences", type=lambda word: whole(word, least=2), metavar="N", help=help_)
    return part


def add_runs_measure(
    measures: Any,
    name: str,
    measure: Callable[[argparse.Namespace], Any],
    text: str,
    of: str = "folders of finished runs, runs/KEY",
) -> argparse.ArgumentParser:
    """Add a measure of several runs; `of` says which."""
    part = add_command(measures, name, measure, text)
    part.add_argument("runs", metavar="RUN", nargs="+", help=of)
    return part


def add_command(
    measures: Any, name: str, measure: Callable[[argparse.Namespace], Any], text: str
) -> argparse.ArgumentParser:
    """Add a command with the options that all have.

    Args:
        measures: the commands of the command line.
        name: of the command.
        measure: what was typed -> the result, which -o writes.
        text: what it does, in one line.

    Its default `code` takes what was typed and the result, and returns the exit code.
    """
    part: argparse.ArgumentParser = measures.add_parser(name, help=text, description=text)
    part.add_argument("-o", "--output", metavar="FILE", type=path_of, help="also write the results as JSON")
    part.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cpu if not given")
    part.add_argument("--threads", type=_threads, metavar="N", help="CPU threads (all)")
    part.set_defaults(measure=measure, code=lambda given, result: 0)
    return part


def _threads(word: str) -> int:
    """Parse a number of threads; many more than there are CPUs end the process."""
    return whole(word, most=os.cpu_count() or 1)


def temperature(word: str) -> float:
    """Parse a number of at least 0; a type of argparse."""
    try:
        number = float(word)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is no temperature; give 0 or more")
    return number
