"""What is not in the page is said by one rule in every panel and in the terminal; labels cover nothing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.analysis import synthetic
from tests.evidence.page.browser import Tab
from tests.evidence.page.recorded import code_record
from toyqs.evidence.__main__ import main
from toyqs.thought_record import NAME, write

SEEDS = (7, 8, 9, 10)


def made(folder: Path, *more: str) -> Path:
    assert main(["report", str(folder / "runs"), "-o", str(folder / "page.html"), *more]) == 0
    return folder / "page.html"


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Four thinking runs: recorded, without a record, with a damaged one, diverged."""
    chosen = synthetic.settings()
    losses: dict[str, dict[int, float | None]] = {
        "thinking": {7: 0.4, 8: 0.5, 9: 0.6, 10: None},
        "zero_length": dict.fromkeys(SEEDS, 0.9),
    }
    synthetic.write(tmp_path / "runs", chosen, losses)
    folders = [tmp_path / "runs" / synthetic.key_of(chosen, "thinking", seed) for seed in SEEDS]
    write(folders[0], code_record(0))
    (folders[2] / NAME).write_bytes(b"damaged")
    (folders[1] / "env.json").write_text(json.dumps({"command": "run.py task=rev_prog max_steps=30"}))
    return folders


def test_the_terminal_says_which_thoughts_are_not_there(
    tmp_path: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path)
    page, damaged, lacking = capsys.readouterr().out.splitlines()
    assert page.startswith("page ") and runs[2].name in damaged
    command = f"python -m toyqs.answers record {runs[1]} {runs[2]}"
    assert lacking == f"thoughts of 2 runs are not recorded: {command}"
    for run in runs[1:3]:
        write(run, code_record(1))
    made(tmp_path, "--records", "1")
    assert capsys.readouterr().out.splitlines()[1:] == ["thoughts of 2 more runs are left out: --records 3"]
    made(tmp_path)
    assert len(capsys.readouterr().out.splitlines()) == 1, "nothing is missing: a diverged run has none"


def test_panels_say_which_thoughts_are_not_there_and_how_to_make_them(
    tmp_path: Path, runs: list[Path], tab: Tab
) -> None:
    tab.open(made(tmp_path))
    for panel in ("thoughts", "dictionary", "provenance"):
        (words,) = tab.texts(f"#{panel} .gap")
        assert "Not recorded: the thoughts of seed 8. The record of seed 9 is damaged." in words, panel
        assert runs[2].name in tab.texts(f"#{panel} .problem")[0]
        command = f"python -m toyqs.answers record {runs[1]} {runs[2]}"
        assert command in tab.texts(f"#{panel} pre"), panel
    assert tab.texts("#whole") == ["All that was asked for has finished, but thoughts are missing:"]
    sweep, report = tab.texts("#explorer pre")
    words = "base_lm_hidden_dim=3,6,12,24,48 seed=7,8,9,10 task=rev_prog max_steps=30 runs_dir=widths"
    assert sweep == f"python run.py -m {words}"
    assert report == "python -m toyqs.evidence report widths -o widths.html"
    (runs[1] / NAME).write_bytes((runs[0] / NAME).read_bytes())
    (runs[2] / NAME).write_bytes((runs[0] / NAME).read_bytes())
    tab.open(made(tmp_path))
    assert tab.texts(".gap") == []
    assert tab.texts("#whole") == ["Nothing: all that was asked for has finished."]


BOXES = """all => all.map((one) => { const box = one.getBoundingClientRect();
  return [box.left, box.right, box.top + 2, box.bottom - 2]; })"""  # a line's height has room above and below


@pytest.mark.parametrize("width", [1200, 700])
def test_no_name_of_a_curve_covers_a_line_an_axis_or_another_name(
    tmp_path: Path, tab: Tab, width: int
) -> None:
    """All arms end at the same loss but one, and one of them trains twenty times longer."""
    losses = (0.2, 1.5, 0.2, 0.2, 0.2, 0.2)
    synthetic.write(tmp_path / "runs", synthetic.settings(), synthetic.spread(losses, SEEDS, 1))
    tab.page.set_viewport_size({"width": width, "height": 900})
    tab.open(made(tmp_path))
    names = tab.page.eval_on_selector_all("#curves text.end", BOXES)
    others = tab.page.eval_on_selector_all(
        "#curves svg path.mean, #curves svg .axis, #curves svg .grid", BOXES
    )
    assert len(names) >= len(losses)
    for place, one in enumerate(names):
        assert not [other for other in (*others, *names[:place]) if _overlap(one, other)]
        assert one[1] <= width, "inside the page"


def _overlap(one: list[float], other: list[float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def test_a_hostile_name_stays_one_field_of_a_csv_and_text_of_an_svg(tmp_path: Path, tab: Tab) -> None:
    hostile = 'a "b",c\n<d>&\x1b;=1+1\u2028\ud800'
    chosen = synthetic.settings()
    synthetic.write(tmp_path / "runs", chosen, {"thinking": {7: 0.4}, "zero_length": {7: 0.9}})
    record = code_record(0)
    write(
        tmp_path / "runs" / synthetic.key_of(chosen, "thinking", 7),
        record._replace(tokens=[hostile, *record.tokens[1:]]),
    )
    tab.open(made(tmp_path))
    rows = list(csv.reader(io.StringIO(tab.saved("dictionary", "csv"), newline="")))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert rows[0][4].startswith('answer a "b",c\n<d>&\x1b;=1+1\u2028')
    drawn: Any = tab.saved("dictionary", "svg")
    assert "var(" not in drawn and 'font-family="' in drawn and "&lt;d&gt;&amp;" in drawn
