"""List the runs of folders: which arm, seed and cell each is, and its state."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from toyqs.command_line import path_of
from toyqs.evidence.measures import loss_of, loss_words
from toyqs.evidence.runs import Run, RunsFolder, chosen, load_folder
from toyqs.evidence.selection import place_of
from toyqs.evidence.states import NOT_BEGUN, STATES
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import WIDTH, aligned, short, spans, wrapped
from toyqs.files import Refusal, visible

HEADINGS = ("run", "arm", "seed", "cell", "NLL", "state")


def add_to(commands: Any) -> None:
    """Add the command `list`."""
    text = "which run is which arm, seed and cell; what failed and why"
    part = commands.add_parser("list", help=text, description=text)
    help_ = "a sweep's runs_dir; several are listed one after the other"
    part.add_argument("words", metavar="RUNS", nargs="+", help=help_)
    help_ = "keep the cells with this setting, and the runs that they share"
    part.add_argument("choices", metavar="KEY=VALUE", nargs="*", default=(), help=help_)
    part.set_defaults(work=_work)


def _work(given: argparse.Namespace) -> None:
    words = [*given.words, *given.choices]
    choices = [word for word in words if "=" in word and not path_of(word).is_dir()]
    if len(choices) == len(words):
        raise Refusal(f"no folder of runs beside {choices[0]}; give RUNS, the runs_dir of a sweep")
    folders = [chosen(load_folder(path_of(word)), choices) for word in words if word not in choices]
    for place, folder in enumerate(folders):
        print(*[*([""] if place else []), *lines_of(folder)], sep="\n")


def lines_of(folder: RunsFolder) -> list[str]:
    """Return the lines that list a folder's runs, at most 110 columns wide."""
    counts = Counter(run.state.word for run in folder.runs)
    words = ", ".join(f"{counts[word]} {word}" for word in STATES if counts[word])
    lines = textwrap.wrap(visible(f"{len(folder.runs)} runs in {folder.path}: {words or 'none'}"), WIDTH)
    if len(folder.cells) > 1:
        lines += ["", "cells:"]
        cells = [(f"{n}", place_of(cell, folder.keys)) for n, cell in enumerate(folder.cells, 1)]
        lines += aligned(wrapped(list(zip(*cells, strict=True)), WIDTH - 8), left=[1])
    rows = [*_begun(folder.runs), *_not_begun(folder.runs)]
    left = {"run", "arm", "state"}
    columns = [
        Column("", name, list(texts), name in left)
        for name, *texts in zip((*HEADINGS[:4], _loss_words(folder.runs), *HEADINGS[5:]), *rows, strict=True)
        if name != "cell" or len(folder.cells) > 1
    ]
    return [*lines, "", *plain_text(columns)] if rows else lines


def _loss_words(runs: Iterable[Run]) -> str:
    return loss_words(loss_of(run.state.row) for run in runs if run.state.row) or HEADINGS[4]


def _begun(runs: Iterable[Run]) -> Iterator[tuple[str, ...]]:
    """Yield a line for each run and arm that it is, with all cells in which it is that."""
    for run in runs:
        if run.state.word == NOT_BEGUN:
            continue
        row = run.state.row
        nll = "–" if row is None or row["nll"] is None else short(row[loss_of(row)], ".3f")
        state = ": ".join(filter(None, [run.state.word, run.state.why]))
        for arm in dict.fromkeys(place.arm for place in run.places):
            places = [place for place in run.places if place.arm == arm]
            cells = spans({place.cell + 1 for place in places})
            yield visible(run.key), visible(arm), f"{places[0].seed}", cells, nll, state
        if not run.places:
            yield visible(run.key), "–", "–" if row is None else f"{row['seed']}", "–", nll, state


def _not_begun(runs: Iterable[Run]) -> Iterator[tuple[str, ...]]:
    """Yield a line for each cell and arm of which runs have no folder yet, with their seeds."""
    seeds: dict[tuple[int, str], set[int]] = {}
    for run in runs:
        if run.state.word == NOT_BEGUN:
            for cell, arm, seed in run.places:
                seeds.setdefault((cell, arm), set()).add(seed)
    for (cell, arm), numbers in seeds.items():
        yield "–", visible(arm), spans(numbers), f"{cell + 1}", "–", NOT_BEGUN
