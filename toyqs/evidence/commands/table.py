"""Print or write the cells of a sweep as a table: for reading, for papers, or every run as CSV."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from toyqs.command_line import check_file, path_of, writing
from toyqs.evidence.runs import chosen, load_folder, nothing_begun
from toyqs.evidence.selection import columns_of, differing
from toyqs.evidence.states import DAMAGED
from toyqs.evidence.text import csv_text
from toyqs.files import ROW, visible, write_text

FORMS = {
    "--md": "as Markdown: a line for each cell and arm, mean ± half of a 95 %% interval",
    "--latex": "as LaTeX with the rules of booktabs, likewise",
    "--csv": "as CSV: a line for each run in each of its cells, with arm, cell, verdict and all results",
}


def add_to(commands: Any) -> None:
    """Add the command `table`."""
    text = "the cells of a sweep as a table: arms, losses, gains, verdicts"
    part = commands.add_parser("table", help=text, description=text)
    part.add_argument("runs", metavar="RUNS", type=path_of, help="a sweep's runs_dir")
    part.add_argument(
        "choices", metavar="KEY=VALUE", nargs="*", default=(), help="keep the cells with this setting"
    )
    forms = part.add_mutually_exclusive_group()
    for option, purpose in FORMS.items():
        forms.add_argument(option, dest="form", action="store_const", const=option[2:], help=purpose)
    part.add_argument("-o", "--output", metavar="FILE", type=path_of, help="write it there, print nothing")
    part.set_defaults(work=_work, form="text")


def _work(given: argparse.Namespace) -> None:
    from toyqs.evidence.judging.findings import find, origins
    from toyqs.evidence.tables.memberships import membership_table
    from toyqs.evidence.tables.paper import paper_table

    if given.output is not None:
        check_file(given.output)
    folder = chosen(load_folder(given.runs), given.choices)
    if not (cells := folder.cells):
        raise nothing_begun(given.runs)
    findings = find(cells)
    if given.form == "csv":
        text = csv_text(membership_table(folder, findings, list(differing(cells))))
    else:
        states = {run.key: run.state.word for run in folder.runs}
        text = "\n".join([*paper_table(findings, columns_of(cells), given.form, states), ""])
    for run in folder.runs:
        if run.state.word == DAMAGED and run.state.row is None:
            print(f"toyqs: left out: {visible(str(run.folder / ROW))}: cannot be read", file=sys.stderr)
    if warning := origins(cells):
        print(f"toyqs: {warning}", file=sys.stderr)
    if given.output is None:
        print(text, end="")
        return
    with writing(given.output):
        write_text(given.output, text)
