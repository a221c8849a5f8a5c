"""`python -m toyqs.evidence report`: one file, nothing loaded, no name obeyed, written anew with rows."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from analysis import learning_curves
from tests.analysis import synthetic
from tests.evidence.page.recorded import code_record
from toyqs.evidence.__main__ import main
from toyqs.evidence.commands import report
from toyqs.evidence.page import build
from toyqs.evidence.page.data import page_data
from toyqs.evidence.runs import load_folder
from toyqs.thought_record import write

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m"


def small(folder: Path, seeds: tuple[int, ...] = (7, 8), **changes: Any) -> list[Path]:
    """Write a cell of two arms; return the folders of the thinking arm's runs."""
    chosen = synthetic.settings(**changes)
    losses = {"thinking": {s: 0.4 + s / 100 for s in seeds}, "zero_length": {s: 0.9 for s in seeds}}
    synthetic.write(folder, chosen, losses)
    return [folder / synthetic.key_of(chosen, "thinking", seed) for seed in seeds]


def test_the_page_is_one_file_that_loads_nothing(tmp_path: Path, capsys: Any) -> None:
    runs = small(tmp_path / "runs")
    write(runs[0], code_record(1))
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "runs"), "-o", str(page)]) == 0
    assert capsys.readouterr().out.startswith(f"page   {page}")
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\s\"'`]+", text) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in text
    assert re.findall(r'id="(record-\w+)"', text) == [f"record-{runs[0].name}"]
    assert len(text) < 400_000
    assert main(["report", str(tmp_path / "runs"), "-o", str(page), "--records", "0"]) == 0
    assert "record-" + runs[0].name not in page.read_text(encoding="utf-8")


def test_equal_rows_give_equal_pages(tmp_path: Path) -> None:
    small(tmp_path / "runs")
    pages = []
    for _ in range(2):
        assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]) == 0
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_hostile_name_is_no_markup(tmp_path: Path) -> None:
    small(tmp_path / "runs", task=HOSTILE, info=HOSTILE)
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "<img" not in text and "\x1b" not in text
    assert "&lt;img src=x onerror=alert(2)&gt;\\x1b[31m" in text.partition("</title>")[0]


def test_words_choose_cells(tmp_path: Path, capsys: Any) -> None:
    for width in (4, 8):
        small(tmp_path / "runs", base_lm_hidden_dim=width)
    words = ["report", str(tmp_path / "runs"), "base_lm_hidden_dim=8", "-o", str(tmp_path / "page.html")]
    assert main(words) == 0
    words[2] = "base_lm_hidden_dim=9"
    capsys.readouterr()
    assert main(words) == 2
    assert "there is base_lm_hidden_dim=4,8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["gone"], "no such folder"),
        (["."], "no run was begun here"),
        ([".", "-o", "no/page.html"], "there is no folder no"),
        ([".", "--records", "-1"], "out of range"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and why in err


def test_it_is_written_again_when_a_row_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    small(runs)
    looks = report._changes(runs, 0.01)
    next(looks)
    added = threading.Timer(0.2, lambda: small(runs, (9,)))
    added.start()
    next(looks)
    added.join()
    assert len(list(runs.glob("*/summary.json"))) >= 5
    monkeypatch.setattr(report.time, "sleep", interrupted)
    page = tmp_path / "page.html"
    assert main(["report", str(runs), "-o", str(page), "--watch"]) == 0
    assert page.is_file(), "Ctrl-C ends it, with the page there"


def test_one_damaged_row_stops_neither_page_nor_table_nor_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    runs, page = tmp_path / "runs", tmp_path / "page.html"
    row = small(runs, (7, 8, 9))[0] / "summary.json"
    row.write_text("{")
    handed: list[Any] = []
    monkeypatch.setattr(build, "page_data", lambda *each: handed.append(page_data(*each)) or handed[-1])
    left_out = f"toyqs: left out: {row}: not a JSON object; move it away and give the command again\n"
    for words in ([], ["--watch"]):
        if words:
            monkeypatch.setattr(report.time, "sleep", interrupted)
        assert main(["report", str(runs), "-o", str(page), *words]) == 0
        assert capsys.readouterr().err == left_out
    (missing,) = handed[0]["provenance"]["missing"]
    assert (missing["seed"], missing["state"], missing["why"]) == (7, "damaged", "summary.json")
    monkeypatch.chdir(tmp_path)
    assert learning_curves.main(["runs"]) == 0
    assert capsys.readouterr().err == left_out.replace(f"{tmp_path}/", "")
    assert main(["table", str(runs), "--csv"]) == 0
    out, err = capsys.readouterr()
    assert err == f"toyqs: left out: {row}: cannot be read\n" and "damaged" in out


def test_rows_of_several_commits_are_a_warning_here_and_in_the_page(tmp_path: Path, capsys: Any) -> None:
    small(tmp_path / "runs")
    words = ["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]
    assert main(words) == 0 and capsys.readouterr().err == ""
    cells = load_folder(tmp_path / "runs").cells
    assert page_data(tmp_path / "runs", cells)["provenance"]["origins"] is None
    synthetic.write(tmp_path / "runs", synthetic.settings(), {"pause": {7: 0.5}}, commit="def")
    assert main(words) == 0
    warning = "warning: these rows are of 2 commits (abc1234, def)"
    assert capsys.readouterr().err == f"toyqs: {warning}\n"
    cells = load_folder(tmp_path / "runs").cells
    assert page_data(tmp_path / "runs", cells)["provenance"]["origins"] == warning


def interrupted(seconds: float) -> None:
    """Stand for Ctrl-C while a command sleeps."""
    raise KeyboardInterrupt


def test_every_template_is_part_of_the_page_and_of_the_package() -> None:
    used = {*build.SCRIPTS, "page.html", "page.css"}
    there = {str(x.relative_to(build.TEMPLATES)) for x in build.TEMPLATES.rglob("*") if x.is_file()}
    assert used == there
    project = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"toyqs.evidence.page" = ["templates/*", "templates/*/*"]' in project


@pytest.mark.parametrize("name", [*build.SCRIPTS, "page.html", "page.css"])
def test_templates_are_as_short_as_other_files(name: str) -> None:
    assert build.template(name).count("\n") <= 300
