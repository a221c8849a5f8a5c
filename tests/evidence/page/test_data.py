"""What the page is made of: the tables' numbers, curves, what is missing, records, measures."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.analysis import synthetic
from tests.evidence.page.recorded import code_record, measured
from toyqs.evidence import dictionary
from toyqs.evidence.cells import Cell, load_cells
from toyqs.evidence.judging.findings import find
from toyqs.evidence.page import records
from toyqs.evidence.page.data import page_data
from toyqs.evidence.page.measures import load_measures
from toyqs.evidence.page.records import chosen_records
from toyqs.evidence.tables.sweep import sweep_table
from toyqs.thought_record import NAME, packed, read, write

SEEDS = (7, 8, 9, 10)
OTHERS = synthetic.ARMS[1:]


def cells_in(folder: Path) -> list[Cell]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_cells(folder)


def data_of(folder: Path) -> dict[str, Any]:
    return page_data(folder, cells_in(folder))


def sweep(folder: Path, widths: tuple[int, ...] = (4, 16), seeds: tuple[int, ...] = SEEDS) -> None:
    for width in widths:
        chosen = synthetic.settings(base_lm_hidden_dim=width)
        synthetic.write(folder, chosen, synthetic.spread(synthetic.LOSSES[width], seeds, width))


def thinking_keys(data: dict[str, Any]) -> list[list[str]]:
    return [cell["arms"]["thinking"]["keys"] for cell in data["cells"]]


def test_verdicts_and_gains_are_those_of_the_printed_table(tmp_path: Path) -> None:
    sweep(tmp_path)
    data, findings = data_of(tmp_path), find(cells_in(tmp_path))
    printed = sweep_table(findings, ["base_lm_hidden_dim"])
    assert [cell["name"] for cell in data["cells"]] == ["base_lm_hidden_dim=4", "base_lm_hidden_dim=16"]
    for cell in data["cells"]:
        (finding,) = [
            x for x in findings if str(x.cell.settings["base_lm_hidden_dim"]) in cell["name"].split("=")
        ]
        assert finding.verdict is not None
        assert (cell["verdict"]["text"], cell["verdict"]["cells"]) == (finding.verdict.text, 2)
        for arm, gain in finding.gains.items():
            found = cell["arms"][arm]["gain"]
            assert found["text"].replace(" ± ", "±") in printed.replace(" ± ", "±")
            assert dict(zip(found["seeds"], found["values"], strict=True)) == gain.to_dict()
            assert found["mean"] == pytest.approx(gain.mean())
        assert cell["arms"]["thinking"]["nll"]["values"] == list(finding.losses["thinking"])


def test_a_gain_is_better_worse_or_undecided_by_its_interval(tmp_path: Path) -> None:
    found = {"thinking": (0.5, 0.6), "zero_length": (0.9, 1.0), "pause": (0.1, 0.2), "policy_off": (0.9, 0.3)}
    arms = {arm: {s: values[s % 2] + s / 1000 for s in SEEDS} for arm, values in found.items()}
    synthetic.write(tmp_path, synthetic.settings(), arms)
    (cell,) = data_of(tmp_path)["cells"]
    words = {arm: x["gain"]["word"] for arm, x in cell["arms"].items() if "gain" in x}
    assert words == {"zero_length": "better", "pause": "worse", "policy_off": "undecided"}


def test_curves_are_the_runs_own_with_the_cost_of_a_step(tmp_path: Path) -> None:
    sweep(tmp_path, (4,))
    data = data_of(tmp_path)
    key = thinking_keys(data)[0][0]
    row = json.loads((tmp_path / key / "summary.json").read_text())
    held_out = [json.loads(x) for x in (tmp_path / key / "metrics.jsonl").read_text().splitlines()]
    held_out = [x for x in held_out if x["kind"] == "held_out"]
    curve = data["curves"][key]
    assert curve["steps"] == [x["step"] for x in held_out]
    assert curve["nll"] == pytest.approx([x["nll"] for x in held_out], rel=1e-5)
    assert (curve["flops"], curve["cpu_seconds"]) == (row["flops_per_step"], 2.0 / curve["steps"][-1])
    assert "accuracy" not in curve, "no line of the file has it"
    file = tmp_path / key / "metrics.jsonl"
    file.write_text('{"step": 0, "kind": "held_out", "nll": 9}\n' + file.read_text())
    assert data_of(tmp_path)["curves"][key] == curve, "a logarithmic axis has no 0"
    file.write_text("no JSON\n")
    assert key not in data_of(tmp_path)["curves"], "a damaged curve does not cost the page"


def test_what_a_cell_hands_to_the_page_is_its_rows_own(tmp_path: Path) -> None:
    losses = {"thinking": dict.fromkeys(SEEDS, 0.2), "no_reasoner": {7: 0.9, 8: 1.1}}
    losses |= {"zero_length": {s: 0.8 + s / 1000 for s in SEEDS}}
    columns = {"thinking": 0.9, "no_reasoner": 0.4, "zero_length": 0.5}
    used = {"nll_shuffled": 2.0, "nll_no_thought": 1.5, "information": 1.2}
    asked = {arm: SEEDS for arm in losses}
    synthetic.write(tmp_path, synthetic.settings(), losses, asked, accuracy=columns, **used)
    data = data_of(tmp_path)
    (cell,) = data["cells"]
    assert data["floor"] == 0.0 and cell["missing"] == {"no_reasoner": [9, 10]}
    assert {arm: x["judged"] for arm, x in cell["arms"].items()} == {
        **{"thinking": False, "no_reasoner": False, "zero_length": True},
    }
    for arm, share in columns.items():
        found = cell["arms"][arm]
        assert found["accuracy"]["mean"] == share and found["nll"]["values"] == list(losses[arm].values())
        assert found["keys"] == [synthetic.key_of(synthetic.settings(), arm, s) for s in losses[arm]]
        assert found["costs"]["cpu_seconds"] == 2.0 and found["costs"]["train_steps"] == 450
    assert (cell["started"], cell["judged_seeds"]) == (4, 4)
    assert {name: cell["thoughts"][name] for name in used} == used
    thinking, other = ([x["nll"] for x in held_out(tmp_path, arm)] for arm in ("thinking", "zero_length"))
    better = [b > a for a, b in zip(thinking, other, strict=True)]
    onset = cell["arms"]["zero_length"]["gain"]["onset"]
    assert onset == synthetic.STEPS[better.index(True)] and all(better[better.index(True) :])


def held_out(folder: Path, arm: str) -> list[dict[str, Any]]:
    file = folder / synthetic.key_of(synthetic.settings(), arm, 7) / "metrics.jsonl"
    lines = map(json.loads, file.read_text().splitlines())
    return [line for line in lines if line["kind"] == "held_out"]


def test_commands_are_counted_and_the_most_frequent_is_first(tmp_path: Path) -> None:
    sweep(tmp_path, (4,))
    rows = sorted(tmp_path.glob("*/summary.json"))
    for number, row in enumerate(rows):
        made_by = {"command": "run.py seed=7" if number < 2 else "run.py seed=[7,8]", "commit": "abc"}
        (row.parent / "env.json").write_text(json.dumps(made_by | {"dirty": number < 2}))
    found = data_of(tmp_path)["provenance"]["commands"]
    assert [(x["command"], x["commit"], x["runs"]) for x in found] == [
        ("python run.py seed=[7,8]", "abc", len(rows) - 2),
        ("python run.py seed=7", "abc + changes", 2),
    ]


def test_what_is_missing_is_said_with_its_state(tmp_path: Path) -> None:
    losses = {"thinking": {7: 0.5, 8: 0.6}, "zero_length": {7: 0.9}}
    asked = {"thinking": SEEDS, "zero_length": (7, 8)}
    synthetic.write(tmp_path, synthetic.settings(), losses, asked)
    chosen = synthetic.settings()
    failed = tmp_path / synthetic.key_of(chosen, "thinking", 9)
    failed.mkdir()
    (failed / "config.json").write_text("{}")
    log = 'Traceback (most recent call last):\n  File "x.py", line 3, in f\nValueError: <b>no</b>\n'
    (failed / "log.txt").write_text(log)
    (failed / "config.json").touch()
    found = {
        (x["arm"], x["seed"]): (x["state"], x["why"]) for x in data_of(tmp_path)["provenance"]["missing"]
    }
    assert found.keys() == {("thinking", 9), ("thinking", 10), ("zero_length", 8)}
    assert found["zero_length", 8] == ("not begun", "")
    assert found["thinking", 9][0] in ("failed", "unfinished")


def test_a_machine_is_one_whatever_settings_were_changed(tmp_path: Path) -> None:
    sweep(tmp_path, (4,))
    for number, row in enumerate(sorted(tmp_path.glob("*/summary.json"))):
        made_by = {"torch": "2.13", "changed": {"base_lr": number}, "stack_size": number}
        (row.parent / "env.json").write_text(json.dumps(made_by))
    (machine,) = data_of(tmp_path)["provenance"]["machines"]
    assert machine["words"] == "torch 2.13"


def test_settings_that_differ_are_axes_and_hashes_are_not(tmp_path: Path) -> None:
    for width in (16, 4):
        for beta in (0.1, 1.0):
            chosen = synthetic.settings(
                base_lm_hidden_dim=width, policy_loss_beta=beta, reasoner_hidden_dim=width
            )
            chosen["task.path.identity"] = f"{width}"
            synthetic.write(tmp_path, chosen, {"thinking": {7: 0.5}, "zero_length": {7: 0.6}})
    data = data_of(tmp_path)
    assert {x["key"]: x["values"] for x in data["axes"]} == {
        "base_lm_hidden_dim": ["4", "16"],
        "reasoner_hidden_dim": ["4", "16"],
        "policy_loss_beta": ["0.1", "1"],
    }
    assert data["cells"][0]["numbers"]["base_lm_hidden_dim"] == 4
    assert len({cell["id"] for cell in data["cells"]}) == 4


def test_the_first_seed_of_every_cell_is_recorded_before_any_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(tmp_path)
    cells = cells_in(tmp_path)
    keys = thinking_keys(data_of(tmp_path))
    content = packed(code_record(0))
    for key in (key for of_cell in keys for key in of_cell[:3]):
        (tmp_path / key / NAME).write_bytes(content)
    chosen, others = chosen_records(tmp_path, cells, 3)
    firsts = [of_cell[0] for of_cell in keys]
    assert sorted(list(chosen)[:2]) == sorted(firsts)
    assert set(chosen.values()) == {content}
    assert len(others["left_out"]) == 3 and sorted(others["without"]) == sorted(x[3] for x in keys)
    monkeypatch.setattr(records, "BYTES", len(content) + 1)
    assert len(chosen_records(tmp_path, cells, None)[0]) == 1
    assert len(chosen_records(tmp_path, cells, 3)[0]) == 3, "so many were asked for"
    monkeypatch.setattr(records, "BYTES", 10**9)
    monkeypatch.setattr(records, "RECORDS", 5)
    assert len(chosen_records(tmp_path, cells, None)[0]) == 5
    assert chosen_records(tmp_path, cells, 0)[0] == {}


def test_the_numbers_of_a_record_are_the_dictionary_s_and_a_damaged_one_costs_nothing(tmp_path: Path) -> None:
    chosen = synthetic.settings(base_lm_hidden_dim=4)
    losses = synthetic.spread(synthetic.LOSSES[4], SEEDS, 4)
    synthetic.write(tmp_path, chosen, losses, nll_no_thought={"thinking": 1.75} | dict.fromkeys(OTHERS))
    cells, (keys,) = cells_in(tmp_path), thinking_keys(data_of(tmp_path))
    record = code_record(3)
    write(tmp_path / keys[0], record)
    (tmp_path / keys[1] / NAME).write_bytes(b"damaged")
    chosen, numbers = chosen_records(tmp_path, cells, None)
    assert list(chosen) == [keys[0]] and len(numbers["unreadable"]) == 1
    stored = read(tmp_path / keys[0])
    own = float(cells[0].arms["thinking"].set_index("key").loc[keys[0], "nll"])
    assert numbers["loss"] == {keys[0]: dictionary.loss(stored)._asdict() | {"row": own}}
    assert numbers["others"] == {
        keys[0]: {
            "nll_no_thought": dictionary.loss(stored, "log_q_none")._asdict() | {"row": 1.75},
            "nll_shuffled": dictionary.loss(stored, "log_q_shuffled")._asdict() | {"row": None},
        }
    }
    found = [(x["about"], x["by"], x["information"]) for x in numbers["told"][keys[0]]]
    assert found == [(x.about, x.by, x.information) for x in dictionary.told(stored)]


def test_results_of_measures_are_shown_where_they_are_of_runs_shown(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()

    def put(name: str, value: object) -> None:
        (tmp_path / "reports" / name).write_text(json.dumps(value))

    lengths = measured("lengths")
    put("mine.json", lengths | {"runs": ["a", "b"]})
    put("others.json", {"runs": ["z"], "cut": []})
    put("old.json", {"seeds": [1], "cut": []})
    put("else.json", {"x": 1})
    found = load_measures(tmp_path, ["a", "c"])
    assert [(x["measure"], x["runs"], x["file"]) for x in found["found"]] == [
        ("lengths", ["a", "b"], "mine.json")
    ]
    assert found["unnamed"] == ["old.json"]
    put("a_later.json", lengths | {"runs": ["a"]})
    os.utime(tmp_path / "reports" / "mine.json", (1, 1))
    files = [x["file"] for x in load_measures(tmp_path, ["a"])["found"]]
    assert files == ["mine.json", "a_later.json"], "the latest last"
