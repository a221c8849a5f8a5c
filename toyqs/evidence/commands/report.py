"""Write the page of a folder of runs."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toyqs.command_line import check_file, path_of, positive, whole, writing
from toyqs.evidence.page.measures import FOLDER
from toyqs.evidence.page.records import BYTES, RECORDS
from toyqs.files import ROW, Refusal, write_text
from toyqs.thought_record import NAME

DESCRIPTION = """\
Write one page that shows all of a folder of runs: the verdict, gains by setting, learning curves, the
thoughts themselves, provenance. It is a single file that any browser opens, without a network. A sweep need
not be finished. KEY=VALUE words choose cells: base_lm_hidden_dim=4,8 keeps both. Interventions and budget
curves are shown where their results are in RUNS/reports/: python -m toyqs.answers lengths RUN ... -o
RUNS/reports/lengths.json."""
EVERY = 3.0  # seconds between two looks at the folder


def add_to(commands: Any) -> None:
    """Add the command `report`."""
    part = commands.add_parser("report", help="one page of all that the runs show", description=DESCRIPTION)
    part.add_argument("runs", metavar="RUNS", type=path_of, help="a folder of runs, such as runs")
    part.add_argument(
        "choices", metavar="KEY=VALUE", nargs="*", default=(), help="keep the cells with this setting"
    )
    help_ = "the page; without this %(default)s"
    part.add_argument("-o", "--output", metavar="FILE", type=path_of, default=Path("report.html"), help=help_)
    help_ = f"thought records in it (at most {RECORDS}, of {BYTES / 1e6:g} MB together)"
    part.add_argument("--records", metavar="N", type=lambda word: whole(word, least=0), help=help_)
    help_ = "write it again whenever a row was added, until Ctrl-C; an open page then reads itself anew"
    part.add_argument("--watch", action="store_true", help=help_)
    help_ = "seconds between two looks at the folder with --watch (%(default)g)"
    part.add_argument("--every", metavar="S", type=positive, default=EVERY, help=help_)
    part.set_defaults(work=_work)


def _work(given: argparse.Namespace) -> None:
    """Write the page that a command line asks for.

    Raises:
        Refusal: one line.
    """
    check_file(given.output)
    if not given.watch:
        _write(given)
        return
    try:
        for _ in _changes(given.runs, given.every):
            try:
                _write(given)
            except Refusal as refusal:
                if refusal.code != 1:  # what was typed; else the folder has nothing yet
                    raise
                print(refusal, flush=True)
    except KeyboardInterrupt:
        print("\nwatched until here", flush=True)


def _write(given: argparse.Namespace) -> None:
    from toyqs.evidence.figures.script import chosen_cells
    from toyqs.evidence.judging.findings import origins
    from toyqs.evidence.page.build import page_text

    cells = chosen_cells(given)
    text, notes = page_text(
        given.runs,
        cells,
        given.records,
        _command(given),
        given.every if given.watch else None,
    )
    with writing(given.output):
        write_text(given.output, text)
    print(f"page   {given.output}  ({len(text.encode()) / 1e6:.2g} MB; open it in a browser)")
    print(*notes, sep="\n", end="\n" * bool(notes), flush=True)
    if warning := origins(cells):
        print(f"toyqs: {warning}", file=sys.stderr)


def _command(given: argparse.Namespace) -> str:
    words = [str(given.runs), *given.choices, "-o", str(given.output)]
    words += [] if given.records is None else ["--records", str(given.records)]
    return f"python -m toyqs.evidence report {shlex.join(words)}"


def _changes(runs: Path, every: float) -> Iterator[None]:
    """Yield at once, and whenever a row, a record or a result of a measure is new or another."""
    before = None
    while True:
        names = (f"*/{ROW}", f"*/{NAME}", f"{FOLDER}/*.json", "cells/*.json")
        now = {(path, path.stat().st_mtime_ns) for name in names for path in runs.glob(name)}
        if now != before:
            before = now
            yield
        time.sleep(every)
