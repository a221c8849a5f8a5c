"""The page in a real browser: clicks, keys and links change what they should, and numbers are the rows'."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.analysis import synthetic
from tests.evidence.page.browser import Tab
from tests.evidence.page.recorded import (
    OPERATORS,
    SYMBOLS,
    code_record,
    measured,
    number_of,
    text_record,
    vector_record,
)
from tests.records import ranked
from toyqs.evidence import dictionary
from toyqs.evidence.__main__ import main
from toyqs.evidence.cells import load_cells
from toyqs.evidence.figures.style import arm_name
from toyqs.evidence.judging.findings import find, verdict_text
from toyqs.thought_record import Record, read, write

HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e</script>"
PANELS = ("answer", "explorer", "curves", "thoughts", "dictionary", "tests", "provenance")
WIDTHS = (16, 32)
CELLS: dict[Path, str] = {}  # page -> the cell that has records


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen patterns by two widths; two runs have records, in which a token has a hostile name."""
    folder = tmp_path_factory.mktemp("sweep")
    synthetic.pattern_sweep(folder / "runs", WIDTHS, (1.0,), 4)
    for seed in (0, 1):
        record = recorded(seed)
        write(folder / "runs" / key_of("AAAA", 16, seed), record)
    (reports := folder / "runs" / "reports").mkdir()
    result = measured("lengths", [key_of("AAAA", 16, 0)])
    (reports / "lengths.json").write_text(json.dumps(result))
    return made(folder)


@pytest.fixture(scope="module")
def tab(kept: Tab) -> Tab:
    return kept


def recorded(seed: int) -> Record:
    record = code_record(seed, steps=(100, 200))
    return record._replace(tokens=[HOSTILE, *record.tokens[1:]])


def key_of(groups: str, width: int, seed: int) -> str:
    names = ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")
    chosen = synthetic.settings(weight_groups=groups, policy_loss_beta=1.0) | dict.fromkeys(names, width)
    return synthetic.key_of(chosen, "thinking", seed)


def made(folder: Path) -> Path:
    assert main(["report", str(folder / "runs"), "-o", str(folder / "page.html")]) == 0
    return folder / "page.html"


def cell_button(tab: Tab, groups: str, width: int) -> Any:
    return tab.page.locator(f"#explorer [aria-label*='pattern {groups}, base LM {width} wide:']")


def test_a_click_on_the_map_chooses_the_cell_of_all_panels(tab: Tab, sweep: Path) -> None:
    tab.show(sweep)
    assert [tab.page.get_attribute(f"main > :nth-child({i + 1})", "id") for i in range(7)] == list(PANELS)
    findings = find(load_cells(sweep.parent / "runs"))
    for groups, width in (("ABCD", 32), ("ABBA", 16)):
        cell_button(tab, groups, width).click()
        (finding,) = [
            x
            for x in findings
            if (x.cell.settings["weight_groups"], x.cell.settings["base_lm_hidden_dim"]) == (groups, width)
        ]
        assert tab.texts("#verdict")[0].lower() == in_labels(verdict_text(finding)).lower()
        for arm, gain in finding.gains.items():
            (shown,) = tab.texts(f"#answer text.gain[data-arm={arm}]")
            assert float(shown.split(" ± ")[0]) == round(gain.mean(), 3)
        assert f"base LM {width} wide" in tab.texts("#provenance h3:last-of-type, #answer h3")[0]
        assert len(tab.texts("#explorer rect.hatched")) == sum(not decided(x) for x in findings)


def in_labels(words: str) -> str:
    return re.sub(r"\w+", lambda found: arm_name(found[0]), words)


def decided(finding: Any) -> bool:
    gain = finding.gains["zero_length"]
    return abs(gain.mean()) > 3.182446 * gain.std(ddof=1) / 2  # Student's t of 4 seeds


def test_a_link_shows_the_same_again(tab: Tab, sweep: Path, browser: Any) -> None:
    tab.show(sweep)
    cell_button(tab, "AAAB", 32).click()
    tab.page.click("#answer [data-id=forest-compute_matched]")
    tab.page.select_option("#curves [data-id=over]", "flops")
    tab.page.select_option("#curves [data-id=show]", "gain")
    (finding,) = [
        x
        for x in find(load_cells(sweep.parent / "runs"))
        if (x.cell.settings["weight_groups"], x.cell.settings["base_lm_hidden_dim"]) == ("AAAB", 32)
    ]
    ends = dict(tab.page.evaluate("drawnLines().map(({ arm, middle }) => [arm, middle.at(-1).y])"))
    for arm in ("zero_length", "policy_off"):  # that train as long as thinking does
        assert math.isclose(ends[arm], finding.gains[arm].mean(), abs_tol=1e-4)
    tab.page.click("#curves [data-id=hide-policy_off]")
    tab.page.keyboard.press("t")
    chosen = tab.hash()
    assert chosen.keys() == {"cell", "control", "over", "show", "hide", "theme"}
    again = Tab(browser)
    again.open(sweep, tab.page.url.partition("#")[2])
    assert again.hash() == chosen
    for selector in ("#verdict", "#curves text", "#explorer text", "#answer text"):
        assert again.texts(selector) == tab.texts(selector)
    assert again.page.get_attribute("html", "data-theme") == tab.page.get_attribute("html", "data-theme")
    assert again.page.get_attribute("#curves [data-id=hide-policy_off]", "class") == "off"
    assert again.troubles == []
    again.page.close()


def test_keys_do_what_the_mouse_does(tab: Tab, sweep: Path) -> None:
    tab.show(sweep)
    before = tab.hash()
    tab.page.keyboard.press("]")
    assert "(cell 2 of 30)" in tab.texts("#answer h3")[0] and tab.hash() != before
    tab.page.keyboard.press("[")
    assert "(cell 1 of 30)" in tab.texts("#answer h3")[0]
    theme = tab.page.get_attribute("html", "data-theme")
    tab.page.keyboard.press("t")
    assert tab.page.get_attribute("html", "data-theme") != theme
    tab.page.keyboard.press("2")
    assert tab.page.evaluate("document.activeElement.id") == "explorer"
    tab.page.keyboard.press("ArrowDown")
    assert "pattern AAAB, base LM 16 wide" in tab.texts("#answer h3")[0]
    tab.page.keyboard.press("ArrowRight")
    assert "pattern AAAB, base LM 32 wide" in tab.texts("#answer h3")[0]
    button = cell_button(tab, "AABB", 16)
    button.focus()
    tab.page.keyboard.press("Enter")
    assert "pattern AABB, base LM 16 wide" in tab.texts("#answer h3")[0]
    tab.page.keyboard.press("?")
    assert tab.page.evaluate("document.getElementById('help').open")
    tab.page.keyboard.press("Escape")


def test_the_thoughts_are_the_record_s(tab: Tab, sweep: Path) -> None:
    tab.show(sweep, f"cell={cell_id(tab, sweep)}&sequence={number_of(5)}&position={OPERATORS + 3}")
    record = recorded(0)
    q = record.arrays["log_q"][5, 2]
    shown = tab.texts("#thoughts .thought")
    for k, words in enumerate(shown):
        symbols = [SYMBOLS[x] for x in record.arrays["symbols"][5, 2, k]]
        assert words.startswith("".join(symbols)) and f"{math.exp(q[k]):.3f}" in words
    bars = tab.page.eval_on_selector_all(
        "#thoughts .thought", "all => all.map((one) => +one.querySelector('.truth').getAttribute('width'))"
    )
    assert np.allclose(np.array(bars) / max(bars), np.exp(q - q.max()), atol=0.01)
    loss = -record.arrays["log_q"].mean()
    assert f"sequences: {loss:.3f} nats" in tab.texts("#record-loss")[0]
    assert any(
        "<img␣src=x" in x and "\\u{1b}" in x and "\\u{202e}" in x for x in tab.texts("#dictionary text")
    )
    tab.page.keyboard.press("4")
    tab.page.keyboard.press("ArrowLeft")
    tab.page.keyboard.press("ArrowDown")
    assert (tab.hash()["sequence"], tab.hash()["position"]) == (f"{number_of(6)}", f"{OPERATORS + 2}")
    tab.page.click("#thoughts [data-id=chip-3]")
    assert tab.hash()["position"] == f"{OPERATORS + 4}"
    tab.page.select_option("#thoughts [data-id=beside]", key_of("AAAA", 16, 1))
    assert len(tab.texts("#thoughts .side")) == 2
    tab.page.focus("#thoughts [data-id=time]")
    tab.page.keyboard.press("Home")
    assert tab.hash()["time"] == "100"
    (words,) = tab.texts("#sequence-now")
    assert words == f"sequence {number_of(6)} of the held-out ones (4 of 20 here), position {OPERATORS + 4}"
    tab.page.keyboard.press("ArrowRight")
    then = read(sweep.parent / "runs" / key_of("AAAA", 16, 0)).evaluations[1]  # rounded, as the page has it
    assert (then.step, tab.texts("#dictionary output")) == (200, ["after step 200"])
    t = int(tab.hash()["position"]) - OPERATORS - 1
    shown = tab.texts("#thoughts .side:first-child .thought")
    for words, at in zip(shown, then.arrays["log_q"][3, t], strict=True):
        assert f"{math.exp(at):.3f}" in words


def cell_id(tab: Tab, page: Path) -> str:
    if page not in CELLS:
        tab.show(page)
        cell_button(tab, "AAAA", 16).click()
        CELLS[page] = tab.page.evaluate("cellNow().id")
    return CELLS[page]


def test_next_is_where_thinking_gained_or_lost_most_or_was_wrong(tab: Tab, sweep: Path) -> None:
    tab.show(sweep, f"cell={cell_id(tab, sweep)}")
    stored = read(sweep.parent / "runs" / key_of("AAAA", 16, 0))
    for way in ("gained", "lost", "wrong"):
        for sequence, position in ranked(stored, way)[:3]:
            if way == "gained":
                tab.page.keyboard.press("g")
            else:
                tab.page.click(f"#thoughts [data-id=next-{way}]")
            where = f"{number_of(sequence)}", f"{OPERATORS + position + 1}"
            assert (tab.hash()["sequence"], tab.hash()["position"]) == where


def test_the_dictionary_counts_thoughts_by_answer(tab: Tab, sweep: Path) -> None:
    tab.show(sweep, f"cell={cell_id(tab, sweep)}")
    stored = read(sweep.parent / "runs" / key_of("AAAA", 16, 0))
    found = {dictionary.spelled(stored, x.thought): x for x in dictionary.entries(stored)}
    for line in tab.page.query_selector_all("#dictionary .word")[:8]:
        entry = found["".join(x.text_content() for x in line.query_selector_all(".mono"))]
        assert int(line.query_selector(".count").text_content()) == entry.times
        assert line.query_selector(".purity").text_content() == f"{round(100 * entry.purity)} %"
        assert line.query_selector(".stands").text_content()[:4] == stored.tokens[entry.answers[0][0]][:4]
    shares = [f"{name} at place {place + 1}: {share}" for name, place, share in used(stored)]
    assert sorted(x for x in tab.texts("#dictionary rect title") if " at place " in x) == sorted(shares)
    whole = [x for x in dictionary.told(stored) if x.by is None]
    assert [x.partition(" of ")[0] for x in tab.texts("#dictionary text.told")] == [
        f"{x.information - x.chance:.2f}" for x in whole
    ]
    tab.page.click("#dictionary .word >> nth=0")
    assert tab.hash().keys() >= {"word", "sequence", "position"}


def used(record: Record) -> list[tuple[str, int, str]]:
    symbols = record.arrays["symbols"].reshape(-1, 3)
    counts = [
        (name, place, (symbols[:, place] == at).mean())
        for at, name in enumerate(SYMBOLS)
        for place in range(3)
    ]
    return [(name, place, f"{100 * share:.1f} %") for name, place, share in counts]


def test_every_panel_goes_out_as_svg_and_csv(tab: Tab, sweep: Path) -> None:
    link = f"cell={cell_id(tab, sweep)}"
    for place, panel in enumerate(PANELS):
        if place % 4 == 0:  # Chromium holds back the eleventh download of a page for a question
            tab.open(sweep, link)
        drawn = ElementTree.fromstring(tab.saved(panel, "svg"))
        assert drawn.tag.endswith("svg") and len(list(drawn.iter())) > 4, panel
        rows = list(csv.reader(tab.saved(panel, "csv").splitlines()))
        assert len(rows) > 1 and {len(row) for row in rows} == {len(rows[0])}, panel
    rows = list(csv.DictReader(tab.saved("provenance", "csv").splitlines()))
    for row in rows[::50]:
        summary = json.loads((sweep.parent / "runs" / row["key"] / "summary.json").read_text())
        assert float(row["nll"]) == summary["nll"] and int(row["seed"]) == summary["seed"]


def test_other_tasks_and_thoughts_are_drawn_too(browser: Any, tmp_path: Path) -> None:
    """A hostile task, thoughts that are vectors, a text; dark, and narrow as a telephone."""
    text = f"To be, or not to be:\n that is {HOSTILE} the question " * 3
    records = {7: vector_record(7), 8: vector_record(8, named=False, size=2), 9: text_record(9, text)}
    chosen = synthetic.settings(task=HOSTILE)
    losses = {"thinking": dict.fromkeys(records, 0.4), "zero_length": dict.fromkeys(records, 0.9)}
    synthetic.write(tmp_path / "runs", chosen, losses)
    for seed, record in records.items():
        write(tmp_path / "runs" / synthetic.key_of(chosen, "thinking", seed), record)
    page = made(tmp_path)
    tab = Tab(browser, color_scheme="dark")
    for seed in records:
        tab.open(page, f"run={synthetic.key_of(chosen, 'thinking', seed)}")
        assert tab.page.get_attribute("html", "data-theme") == "dark"
        assert tab.texts("#thoughts .thought")
        assert bool(tab.texts("#dictionary circle")) == (seed != 9), "vectors are points"
    assert "<img src=x onerror=alert(1)>" in tab.texts("h1")[0]
    assert tab.page.query_selector_all("img") == []
    tab.page.set_viewport_size({"width": 420, "height": 800})
    tab.page.wait_for_function("document.querySelector('#answer svg').clientWidth < 420")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 440
    assert tab.troubles == []
    tab.page.close()


def test_an_unfinished_sweep_says_what_is_missing(tab: Tab, tmp_path: Path) -> None:
    for width, losses in ((4, {"thinking": {7: 0.5, 8: None}, "zero_length": {}}), (8, {})):
        chosen = synthetic.settings(base_lm_hidden_dim=width)
        asked = {"thinking": (7, 8, 9), "zero_length": (7, 8, 9)}
        synthetic.write(tmp_path / "runs", chosen, losses, asked)
    tab.open(made(tmp_path))
    assert "not judged" in tab.texts("#verdict")[0].lower()
    assert "7–9" in tab.texts("#missing")[0] and "not begun" in tab.texts("#missing")[0]
    tab.page.keyboard.press("]")
    assert "(cell 2 of 2)" in tab.texts("#answer h3")[0]
