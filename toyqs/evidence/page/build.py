"""The page as one text: templates, data and thought records put into one file that needs no other."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from toyqs.evidence.cells import Cell
from toyqs.evidence.page.data import page_data
from toyqs.evidence.page.measures import load_measures
from toyqs.evidence.page.records import chosen_records, record_notes
from toyqs.files import finite, visible

TEMPLATES = Path(__file__).parent / "templates"
# In the order in which they are read: parts first, then the panels from top to bottom.
PARTS = ("data", "state", "words", "draw", "axes", "settings", "panel", "map", "thoughts")
PANELS = ("answer", "explorer", "curves", "browser", "dictionary", "measures", "provenance")
SCRIPTS = (
    *(f"parts/{name}.js" for name in PARTS),
    *(f"panels/{name}.js" for name in PANELS),
    "parts/watch.js",
    "parts/start.js",
)


def page_text(
    runs: Path, cells: Sequence[Cell], most_records: int | None, command: str, watched: float | None = None
) -> tuple[str, list[str]]:
    """Make the page of some cells.

    Args:
        runs: the folder of the runs.
        cells: those to be shown, at least one.
        most_records: the thought records that it may hold; None: as many as keep it small.
        command: that makes the page, for the reader.
        watched: seconds after which an open page looks whether it was written again; None: never.

    Returns:
        HTML in UTF-8 that loads nothing, from nowhere; and lines on what is not in it.
    """
    data = page_data(runs, cells)
    records, others = chosen_records(runs, cells, most_records)
    measured = load_measures(runs, data["provenance"]["runs"])
    data["problems"] += measured.pop("damaged")
    data |= {"records": others, "measures": measured, "command": command, "watched": watched}
    blobs = {"data": json.dumps(finite(data), allow_nan=False, separators=(",", ":")).encode()}
    texts = {"data": packed(gzip.compress(blobs["data"], mtime=0))}
    texts |= {f"record-{key}": packed(content) for key, content in records.items()}
    text = filled(
        "page.html",
        {
            "stamp": hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:16],
            "title": html.escape(visible(data["title"])),
            "style": template("page.css"),
            "script": "".join(template(name) for name in SCRIPTS),
            "data": "\n".join(
                f'<script type="text/plain" id="{html.escape(name)}">{text}</script>'
                for name, text in texts.items()
            ),
        },
    )
    return text, [*data["problems"], *record_notes(runs, others)]


def packed(content: bytes) -> str:
    """Return gzipped bytes as letters that HTML leaves alone."""
    return base64.b64encode(content).decode("ascii")


def template(name: str) -> str:
    """Read a template."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def filled(name: str, parts: Mapping[str, str]) -> str:
    """Return a template with its {{names}} replaced, each once; what is put in is not looked at again."""
    pieces = template(name).split("{{")
    text = [pieces[0]]
    for piece in pieces[1:]:
        part, after = piece.split("}}", 1)
        text += [parts[part], after]
    return "".join(text)
