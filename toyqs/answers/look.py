"""What a finished run's thoughts stand for, and where they helped, from the record in its folder."""

from __future__ import annotations

import argparse
from typing import Any

from toyqs import thought_record
from toyqs.answers.command import add_runs_measure
from toyqs.answers.heading import heading, of_first_token
from toyqs.answers.loaded.load import naming
from toyqs.command_line import whole
from toyqs.config.finished_run import columns_of
from toyqs.evidence.dictionary import entries, loss
from toyqs.evidence.tables.dictionary import dictionary_text
from toyqs.evidence.tables.thoughts import names_of, sequences_text, word, wrapped_line
from toyqs.thought_record import Record


def add_to(measures: Any) -> None:
    """Add the command to the command line."""
    text = "print what thoughts stand for and where they helped, from the record in a run's folder"
    part = add_runs_measure(measures, "look", _look, text)
    help_ = "entries of the dictionary that are printed (12); -o writes all"
    part.add_argument("--entries", type=whole, default=12, metavar="N", help=help_)
    help_ = "sequences that are printed, of those that gained and those that lost (2)"
    part.add_argument("--sequences", type=whole, default=2, metavar="N", help=help_)


def _look(given: argparse.Namespace) -> Any:
    records = {}
    for folder in given.runs:
        with naming(folder):
            columns_of(folder)  # it is a run's
            records[folder] = thought_record.read(folder)
    for place, (folder, record) in enumerate(records.items()):
        print(*([""] * 2 if place else []), *head(folder, record), "", sep="\n")
        print(*dictionary_text(record, given.entries), "", sep="\n")
        print(*sequences_text(record, given.sequences), sep="\n")
    return {folder: _plain(record) for folder, record in records.items()}


def head(folder: str, record: Record) -> list[str]:
    """Return the lines that say which run it is and how many thoughts its record holds."""
    counted = record.arrays["counted"] == 1
    number = record.arrays["log_q"].shape[-1]
    nll, error = loss(record)
    less = (
        f"differs from the row's by a standard error of {error:.3f}" if error else "all that the row measures"
    )
    of = (
        f"{number} thought{'s' * (number > 1)} at each of {counted.sum():,} positions of {len(counted)} "
        f"held-out sequences; NLL there {nll:.3f} nats ({less})"
    )
    lines = [*heading([folder]), *wrapped_line(of), *of_first_token(folder)]
    if "nearest" in record.arrays:
        lines.append("its symbols are vectors; each is called by the token whose embedding is nearest")
    return lines


def _plain(record: Record) -> list[dict[str, Any]]:
    """Return the whole dictionary as -o writes it."""
    names = names_of(record.symbols or [])
    return [
        {
            "thought": word(names, entry.thought),
            "times": entry.times,
            "answers": [(record.tokens[answer], count) for answer, count in entry.answers],
        }
        for entry in entries(record)
    ]
