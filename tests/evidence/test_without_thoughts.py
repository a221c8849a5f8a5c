"""Runs without thoughts are never called thinking, and nothing is said to gain by their thinking."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.analysis import synthetic
from toyqs.evidence.__main__ import main
from toyqs.evidence.cells import Cell, load_cells, write_cell
from toyqs.evidence.figures import style
from toyqs.evidence.figures.comparison import comparison_figure
from toyqs.evidence.judging.findings import find
from toyqs.evidence.page.data import page_data
from toyqs.evidence.tables.comparison import comparison_table
from toyqs.evidence.tables.pairs import reasoner_pairs
from toyqs.evidence.tables.sweep import sweep_table

SEEDS = (7, 8)
SILENT = [
    ({"max_reasoning_len": 0}, "zero_length"),
    ({"max_reasoning_len": 0, "interpreter_start": "onward"}, "zero_length"),
    ({"use_reasoner": False}, "no_reasoner"),
]


def losses(nll: float) -> dict[int, float]:
    return {seed: nll + seed / 1000 for seed in SEEDS}


def silent(folder: Path, changes: dict[str, Any]) -> Cell:
    """Write a cell as runs note it: the run itself is called thinking, and is one run with its control."""
    chosen = synthetic.settings() | changes
    found = {"thinking": losses(0.5), "pause": losses(0.4), "param_matched": losses(0.9)}
    synthetic.write(folder, chosen, found, started=None)
    keys = {arm: {s: synthetic.key_of(chosen, arm, s) for s in SEEDS} for arm in found}
    own = {"zero_length": keys["thinking"], "no_reasoner": keys["thinking"]}
    write_cell(folder, chosen, keys | own, list(found))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (cell,) = (x for x in load_cells(folder) if not x.thinks)
    return cell


@pytest.mark.parametrize(("changes", "name"), SILENT)
def test_no_table_calls_it_thinking(
    tmp_path: Path, changes: dict[str, Any], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = silent(tmp_path, changes)
    assert next(iter(cell.arms)) == name and list(cell.arms[name]["nll"]) == list(losses(0.5).values())
    (finding,) = find([cell])
    for text in (comparison_table(finding), sweep_table([finding, finding], ["policy_loss_beta"])):
        assert name in text or "0.50" in text
        assert not [x for x in ("thinking", "gain", "erdict", "tarted", "+0.") if x in text]
    for command in ("list", "table"):
        assert main([command, str(tmp_path)]) == 0
        out = capsys.readouterr().out.replace(str(tmp_path), "")
        assert name in out and "thinking" not in out and "gain" not in out
    assert main(["table", str(tmp_path), "--csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert set(table["arm"]) == {name, "pause", "param_matched"} and table["gain"].isna().all()
    assert main(["show", str(tmp_path / cell.arms[name]["key"][0])]) == 0
    assert f"{name}, seed 7" in capsys.readouterr().out


@pytest.mark.parametrize(("changes", "name"), SILENT)
def test_the_page_is_given_no_gain(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    cell = silent(tmp_path, changes)
    (found,) = page_data(tmp_path, [cell])["cells"]
    assert (found["run"], found["thinks"], found["verdict"]) == (name, False, None)
    assert list(found["arms"]) == [name, "pause", "param_matched"]
    assert not [arm for arm in found["arms"].values() if "gain" in arm]
    assert found["judged_seeds"] == 0 and found["thoughts"] == {}


def test_the_note_on_disk_keeps_its_name_and_thinking_cells_theirs(tmp_path: Path) -> None:
    silent(tmp_path, {"max_reasoning_len": 0})
    synthetic.write(tmp_path, synthetic.settings(), {"thinking": losses(0.3), "zero_length": losses(0.5)})
    assert all('"thinking"' in path.read_text() for path in (tmp_path / "cells").iterdir())
    arms = [list(cell.arms) for cell in load_cells(tmp_path)]
    assert sorted(arms) == [["thinking", "zero_length"], ["zero_length", "pause", "param_matched"]]


def test_of_what_is_missing_the_same_name_is_used(tmp_path: Path) -> None:
    chosen = synthetic.settings(max_reasoning_len=0)
    synthetic.write(tmp_path, chosen, {"thinking": {7: 0.5}}, {"thinking": SEEDS})
    (cell,) = load_cells(tmp_path)
    assert cell.missing == {"zero_length": [8]} and page_data(tmp_path, [cell])["cells"][0]["missing"]


def test_zero_length_thoughts_gain_nothing_by_thinking_over_a_plain_model() -> None:
    rows = pd.DataFrame({"seed": SEEDS, "nll": [0.5, 0.6]})
    plain = Cell({"use_reasoner": False}, {"no_reasoner": rows}, {})
    pairs = [Cell({"use_reasoner": True, "max_reasoning_len": n}, {"x": rows}, {}) for n in (0, 3)]
    assert reasoner_pairs([pairs[0], plain], ["use_reasoner", "max_reasoning_len"]) == []
    assert reasoner_pairs([pairs[1], plain], ["use_reasoner", "max_reasoning_len"])


def test_its_figure_asks_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    comparison_figure(find([silent(tmp_path, {"max_reasoning_len": 0})])[0], {}, tmp_path / "x.png")
    title, *others = [figures[0].get_suptitle(), *(x.get_text() for x in figures[0].texts)]
    assert title == "What is the loss without thoughts?" and not [x for x in others if "erdict" in x]
