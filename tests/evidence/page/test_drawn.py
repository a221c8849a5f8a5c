"""What is drawn is what was measured: signs, places, lengths; a panel that fails fails alone."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis import synthetic
from tests.evidence.page.browser import Tab
from tests.evidence.page.recorded import measured
from toyqs.evidence.__main__ import main

SEEDS = (7, 8, 9, 10)
TAKES_OFF = 8  # which evaluation, from 0, is the first at which thinking is better
LOSSES: dict[str, dict[int, float | None]] = {
    "thinking": {seed: 0.5 + 0.01 * seed for seed in SEEDS},
    "zero_length": dict.fromkeys(SEEDS, 0.9),
    "param_matched": dict.fromkeys(SEEDS, 0.2),
}


def made(folder: Path) -> Path:
    assert main(["report", str(folder / "runs"), "-o", str(folder / "page.html")]) == 0
    return folder / "page.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell that takes off late, with interventions; its second seed of zero_length is missing."""
    folder, chosen = tmp_path_factory.mktemp("drawn"), synthetic.settings(without=None)
    asked = dict.fromkeys(LOSSES, (*SEEDS, 11))
    synthetic.write(folder / "runs", chosen, LOSSES, asked)
    for seed in SEEDS:
        curve = [1.2 if at < TAKES_OFF else 0.5 + 0.01 * seed for at in range(len(synthetic.STEPS))]
        write_curve(folder / "runs" / synthetic.key_of(chosen, "thinking", seed), curve)
        key = synthetic.key_of(chosen, "zero_length", seed)
        write_curve(folder / "runs" / key, [0.9] * len(synthetic.STEPS))
    (folder / "runs" / "reports").mkdir()
    result = changed() | {"runs": [synthetic.key_of(chosen, "thinking", SEEDS[0])]}
    (folder / "runs" / "reports" / "changed.json").write_text(json.dumps(result))
    return made(folder)


def write_curve(folder: Path, losses: list[float]) -> None:
    lines = [
        json.dumps({"step": step, "kind": "held_out", "nll": nll})
        for step, nll in zip(synthetic.STEPS, losses, strict=True)
    ]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, ""]))


def attributes(tab: Tab, selector: str, *names: str) -> list[list[str]]:
    script = f"all => all.map((one) => {json.dumps(names)}.map((name) => one.getAttribute(name)))"
    found: list[list[str]] = tab.page.eval_on_selector_all(selector, script)
    return found


def test_a_seed_s_dot_says_its_gain_with_its_sign(kept: Tab, page: Path) -> None:
    kept.show(page)
    for arm, loss in (("zero_length", 0.9), ("param_matched", 0.2)):
        words = kept.texts(f"#answer [data-id=forest-{arm}] .seed title")
        gains = [loss - 0.5 - 0.01 * seed for seed in SEEDS]
        assert words == [
            f"seed {seed}: {f'{gain:+.3f}'.replace('-', '−')} nats"
            for seed, gain in zip(SEEDS, gains, strict=True)
        ]
    dots = attributes(kept, "#answer [data-id=forest-zero_length] .seed", "cx")
    assert [float(x) for (x,) in dots] == sorted((float(x) for (x,) in dots), reverse=True)


def test_the_take_off_is_marked_where_the_curve_is_then(kept: Tab, page: Path) -> None:
    kept.show(page)
    ((mark, arm),) = attributes(kept, "#curves .onset", "d", "data-arm")
    ((path,),) = attributes(kept, "#curves path.mean[data-arm=thinking]", "d")
    places = [float(point.split()[0]) for point in path.replace("M", "L").split("L")[1:]]
    assert arm == "zero_length" and len(places) == len(synthetic.STEPS)
    assert float(mark[1:].split()[0]) + 5 == pytest.approx(places[TAKES_OFF], abs=0.1)
    assert f"from step {synthetic.STEPS[TAKES_OFF]} on" in kept.texts("#curves .onset title")[0]
    logs = np.log(synthetic.STEPS)
    share = (logs - logs[0]) / (logs[-1] - logs[0])
    assert np.allclose((np.array(places) - places[0]) / (places[-1] - places[0]), share, atol=0.001)


COSTS = {  # as drawn, from top to bottom
    "the thoughts of another sequence": 1.5,
    "no thought": 0.75,
    "own thoughts cut after 0 symbols": 1.0,
    "own thoughts cut after 1 symbol": 0.25,
    "symbol 1 swapped with another sequence's": 0.5,
    "symbol 1 removed": -0.125,
    "symbol 2 made noise": 0.0625,
}


def changed() -> dict[str, Any]:
    """Return a result of interventions with these costs."""
    other, none, *cut, swapped, removed, noise = ({"mean": x, "half_width": 0.01} for x in COSTS.values())
    symbols = [{"symbol": 1, "swapped": swapped, "removed": removed}, {"symbol": 2, "noise": noise}]
    whole = {"shuffled": other, "constant": None, "no_thought": none}
    return measured("interventions") | {"whole": whole, "symbols": symbols, "cut": [*cut, None]}


def test_interventions_are_rows_and_bars_of_the_result(kept: Tab, page: Path) -> None:
    kept.show(page)
    rows = list(csv.DictReader(kept.saved("tests", "csv").splitlines()))
    assert {row["what"]: float(row["mean, nats"]) for row in rows} == COSTS
    assert {(row["file"], row["half width"], row["seeds"]) for row in rows} == {("changed.json", "0.01", "7")}
    bars = attributes(kept, "#tests rect.cost", "x", "width")
    left, wide = np.array(bars, dtype=float).T
    assert np.allclose(wide / wide[0], np.abs([*COSTS.values()]) / 1.5, atol=0.001)
    assert left[5] == pytest.approx(left[0] - wide[5]), "what helps goes to the left of 0"


def test_what_is_missing_is_said_before_the_table_of_it(kept: Tab, page: Path) -> None:
    kept.show(page)
    assert kept.texts("#whole") == ["Asked for, without a result (the same command does what is missing):"]
    assert "11" in kept.texts("#missing")[0]


def test_a_panel_that_fails_says_so_and_fails_alone(kept: Tab, page: Path) -> None:
    kept.show(page)
    kept.page.evaluate("var gain = DATA.cells[0].arms.zero_length.gain, own = gain.values; gain.values = 7")
    kept.page.evaluate("redraw()")
    assert kept.texts("#answer .problem")[0].startswith("This panel cannot be drawn: TypeError")
    assert kept.texts("#curves .onset") and kept.texts("#provenance h3")
    assert len(kept.troubles) == 1
    kept.troubles.clear()
    kept.page.evaluate("gain.values = own; redraw()")
    assert kept.texts("#answer .problem") == []


def test_no_text_of_a_csv_is_a_formula(kept: Tab, page: Path) -> None:
    kept.show(page)
    words = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "a=1", "-0.5", "+3", -0.5, "−1", None]
    (row,) = csv.reader(
        [kept.page.evaluate(f"csvText([{json.dumps(words)}])").replace("\r", "R").strip("\n")]
    )
    assert row[:4] == ["'=1+1", "'+x", "'-x", "'@x"] and row[4:6] == ["'\tx", "'Rx"]
    assert row[6:] == ["a=1", "-0.5", "+3", "-0.5", "−1", ""]
    assert math.isclose(float(row[7]), -0.5)
