"""A damaged file costs the page what is in it, and no more: a line says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evidence.page.recorded import measured
from tests.evidence.page.test_report import small
from toyqs.evidence.__main__ import main
from toyqs.evidence.page import build
from toyqs.evidence.page.curves import load_curves
from toyqs.evidence.page.data import page_data
from toyqs.evidence.page.measures import load_measures
from toyqs.evidence.runs import load_folder

LENGTHS, CHANGES = measured("lengths"), measured("interventions")
STRAY = [
    {"trained_with": 3, "runs": 5},
    {"cut": 1, "runs": ["a"]},
    LENGTHS | {"runs": [1]},
    LENGTHS | {"runs": "a"},
    LENGTHS | {"seeds": [True]},
    LENGTHS | {"lengths": []},
    LENGTHS | {"lengths": [{"length": 1}]},
    LENGTHS | {"trained_with": 10**20},
    LENGTHS | {"lengths": [LENGTHS["lengths"][0] | {"nll": {"mean": "0.5", "half_width": None}}]},
    LENGTHS | {"lengths": [LENGTHS["lengths"][0] | {"nll_by_seed": {"7": "x"}}]},
    {name: x for name, x in LENGTHS.items() if name != "intervals_over"},
    CHANGES | {"own": 0.5},
    CHANGES | {"whole": {"shuffled": 0.5}},
    CHANGES | {"symbols": [{"symbol": 1, "swapped": "much"}]},
    CHANGES | {"cut": [0.5]},
]


@pytest.mark.parametrize("value", STRAY)
def test_a_stray_result_is_left_out_with_a_line(tmp_path: Path, value: Any) -> None:
    (tmp_path / "reports").mkdir()
    path = tmp_path / "reports" / "stray.json"
    path.write_text(json.dumps(value))
    (tmp_path / "reports" / "whole.json").write_text(json.dumps(LENGTHS))
    found = load_measures(tmp_path, ["a"])
    assert [x["file"] for x in found["found"]] == ["whole.json"] and found["unnamed"] == []
    kind = "interventions" if "cut" in value else "lengths"
    assert found["damaged"] == [f"left out: {path}: no result of `{kind}`; give its command again"]


def test_the_page_and_the_terminal_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path / "runs")
    (tmp_path / "runs" / "reports").mkdir()
    (tmp_path / "runs" / "reports" / "stray.json").write_text(json.dumps(STRAY[0]))
    handed: list[Any] = []
    monkeypatch.setattr(build, "page_data", lambda *each: handed.append(page_data(*each)) or handed[-1])
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]) == 0
    (line,) = handed[0]["problems"]
    assert "stray.json: no result of `lengths`" in line and line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\\xff", '"x"'])
def test_a_file_that_is_no_result_at_all_likewise(tmp_path: Path, text: str) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "x.json").write_text(text)
    (line,) = load_measures(tmp_path, ["a"])["damaged"]
    assert line.startswith(f"left out: {tmp_path}/reports/x.json: not a JSON object")


def test_what_the_commands_write_has_the_shape(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    lost = {"mean": None, "half_width": None, "count": 2}
    row = LENGTHS["lengths"][0] | {"nll": lost, "nll_by_seed": {"7": None}}
    for name, value in {"a": LENGTHS, "b": CHANGES, "c": LENGTHS | {"lengths": [row]}}.items():
        (tmp_path / "reports" / f"{name}.json").write_text(json.dumps(value))
    assert len(load_measures(tmp_path, ["a"])["found"]) == 3


@pytest.mark.parametrize("step", ["1e400", "true", "-1", "1.5", '"3"', "null", f"{10**20}", "[1]"])
def test_a_curve_with_a_step_that_is_none_is_left_out_with_a_line(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = small(tmp_path / "runs")
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write(f'{{"kind": "held_out", "step": {step}, "nll": 0.5}}\n')
    handed: list[Any] = []
    monkeypatch.setattr(build, "page_data", lambda *each: handed.append(page_data(*each)) or handed[-1])
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]) == 0
    (data,) = handed
    assert runs[0].name not in data["curves"] and runs[1].name in data["curves"]
    (line,) = data["problems"]
    assert line.startswith(f"left out: the curve {runs[0]}/metrics.jsonl line 41: step=")
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("nll", ["1e400", "true", "NaN", "-Infinity", '"low"', "[0.5]", "9" * 400])
def test_a_measure_that_is_no_finite_number_is_none(tmp_path: Path, nll: str) -> None:
    folder = small(tmp_path)[0]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f'{{"kind": "held_out", "step": 900, "nll": {nll}}}\n')
    problems: list[str] = []
    curve = load_curves(tmp_path, load_folder(tmp_path).cells, problems)[folder.name]
    assert (curve["steps"][-1], curve["nll"][-1], problems) == (900, None, [])
    assert 0 < curve["nll"][-2] < 1
