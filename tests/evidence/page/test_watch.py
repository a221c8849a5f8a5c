"""A page that is written again while it is open shows the new rows, and leaves the reader where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.analysis import synthetic
from tests.evidence.page.browser import Tab
from toyqs.evidence.cells import load_cells
from toyqs.evidence.page.build import page_text

SEEDS = (7, 8)
WHERE = """() => [scrollY, window.first, document.activeElement.id,
  document.querySelector('#answer svg').first,
  [...document.querySelectorAll('details[open] > summary')].map((node) => node.dataset.id),
  document.querySelectorAll('iframe').length, location.hash]"""
GO = """() => { window.first = document.querySelector('#answer svg').first = true;
  scrollTo(0, 700);
  document.querySelector('#provenance [data-id=keys]').click();
  document.querySelector('#curves').focus({ preventScroll: true }); }"""


def write(folder: Path, *seeds: int) -> Path:
    chosen = synthetic.settings()
    losses = {"thinking": {s: 0.4 + s / 100 for s in seeds}, "zero_length": dict.fromkeys(seeds, 0.9)}
    synthetic.write(folder / "runs", chosen, losses)
    text, _ = page_text(folder / "runs", load_cells(folder / "runs"), None, "report", watched=600.0)
    (folder / "page.html").write_text(text, encoding="utf-8")
    return folder / "page.html"


def wait(tab: Tab, what: str) -> None:  # the page itself may not evaluate a text, which playwright's own does
    tab.page.evaluate(
        f"new Promise((done) => {{ const look = () => {what} ? done() : setTimeout(look, 10); look(); }})"
    )


def look(tab: Tab) -> Any:
    tab.page.evaluate("lookAgain()")
    wait(tab, "!document.querySelector('iframe')")
    return tab.page.evaluate(WHERE)


def test_new_rows_come_into_an_open_page_that_stays_where_it_is(tab: Tab, tmp_path: Path) -> None:
    tab.open(write(tmp_path, *SEEDS), "over=flops")
    tab.page.evaluate(GO)
    before = [700, True, "curves", True, ["keys"], 0, "#over=flops"]
    assert look(tab) == before, "an unchanged file changes nothing"
    write(tmp_path, *SEEDS, 9)
    after = look(tab)
    assert after[:3] == before[:3] and after[4:] == before[4:], "the same page, at the same place"
    wait(tab, "document.querySelectorAll('#answer .seed').length === 3")
    assert "seeds 7–9" in tab.texts("#setting")[0]
    assert look(tab)[1:3] == before[1:3]
