"""Where ahead=joint, nll_joint judges: verdict, tables, figures, curves, page and list follow it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from analysis import budget, capacity_vs_gain, gain_by_depth, learning_curves
from tests.analysis.synthetic import Figures, Script, settings, write
from toyqs.evidence.cells import Cell, load_cells
from toyqs.evidence.commands.listing import lines_of
from toyqs.evidence.figures.comparison import comparison_figure
from toyqs.evidence.judging.decision import BEATS_ALL
from toyqs.evidence.judging.findings import arm_table, find
from toyqs.evidence.page.data import page_data
from toyqs.evidence.rows import load_curve
from toyqs.evidence.runs import load_folder
from toyqs.evidence.tables.arm_columns import arm_columns
from toyqs.evidence.tables.comparison import comparison_table
from toyqs.evidence.tables.paper import paper_table
from toyqs.evidence.tables.sweep import sweep_table

SEEDS = range(4)
JUDGED = ("zero_length", "state_handed_on", "pause", "policy_off", "compute_matched", "param_matched")
JOINT = {"thinking": 0.4, "policy_off": 0.7} | dict.fromkeys((*JUDGED[:3], *JUDGED[4:]), 2.6)
FLOORS = {arm: round(loss, 1) - 0.1 for arm, loss in JOINT.items()}
TEACHER = "before it predicts the next (teacher forcing) closes this gap, too."


def written(folder: Path, samples: int = 0, number: int = 8, **changes: Any) -> list[Cell]:
    """Write a joint cell of which each run's `nll` says the opposite: thinking's is the greatest."""
    first = {arm: {seed: (3.0 if arm == "thinking" else 0.2) + seed / 100 for seed in SEEDS} for arm in JOINT}
    more = {"nll_joint": JOINT, "joint_floor": FLOORS, "joint_samples": samples, "nll_joint_shuffled": 1.1}
    chosen = settings(n_tokens_ahead=number, ahead="joint", **changes)
    write(folder, chosen, first, **more, nll_shuffled=9.0, nll_no_thought=9.0, nll_joint_no_thought=5.0)
    for path in folder.glob("*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        joint = [line | {"nll_joint": line["nll"] + 100} for line in lines if "nll_joint" not in line]
        path.write_text("".join(json.dumps(line) + "\n" for line in joint or lines))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_cells(folder)


def test_the_joint_loss_decides(tmp_path: Path) -> None:
    (finding,) = find(written(tmp_path))
    assert finding.verdict is not None and finding.verdict.word == BEATS_ALL
    assert {arm: x.unique().tolist() for arm, x in finding.losses.items()} == {
        a: [x] for a, x in JOINT.items()
    }
    assert finding.gains["policy_off"].round(9).unique().tolist() == [0.3]
    table = arm_table([finding]).set_index("arm")
    assert table["nll_joint"].to_dict() == JOINT and "nll" not in table
    assert table["joint_floor"].to_dict() == FLOORS


def words(text: str) -> str:
    return " ".join(text.split())


def test_tables_name_the_loss_its_floor_and_what_else_would_close_the_gap(tmp_path: Path) -> None:
    (finding,) = find(written(tmp_path))
    text = comparison_table(finding)
    assert all(len(line) <= 110 for line in text.splitlines())
    assert "joint NLL floor" in words(text)
    assert "accuracy" not in text.split("\n\n")[1]
    assert "gain: this arm's joint NLL minus thinking's" in text and TEACHER in words(text)
    assert "of the 8 tokens ahead together" in words(text) and "summed over all thoughts" in words(text)
    assert "joint NLL, nats 0.400 with its own thought, 1.100 with another" in words(text)
    assert "5.000 without a thought" in words(text)
    line = next(x for x in text.splitlines() if x.startswith("policy_off"))
    assert line.split()[:3] == ["policy_off", "0.700", "±"] and " 0.600 " in line
    for other in (sweep_table([finding], []), "\n".join(paper_table([finding], [], "text", {}))):
        assert "joint NLL" in other and TEACHER in words(other)


def test_how_many_thoughts_an_estimate_is_from(tmp_path: Path) -> None:
    (finding,) = find(written(tmp_path, samples=32))
    assert "estimated from K = 32 of them, on average too high" in words(comparison_table(finding))


def test_a_sweep_of_both_kinds_names_both(tmp_path: Path) -> None:
    plain = {arm: {seed: loss + seed / 1000 for seed in SEEDS} for arm, loss in JOINT.items()}
    write(tmp_path, settings(), plain)
    findings = find(written(tmp_path, base_lm_hidden_dim=4))
    assert {finding.cell.loss for finding in findings} == {"nll", "nll_joint"}
    text = sweep_table(findings, ["base_lm_hidden_dim"])
    assert "NLL or joint NLL" in words(text) and TEACHER in words(text)
    (right,) = (column.texts for column in arm_columns(findings) if column.name == "accuracy")
    judged = [finding.cell.loss for finding in findings for _ in finding.cell.arms]
    assert ["nll_joint" if x == "–" else "nll" for x in right] == judged, "it is of the first token alone"
    other = sweep_table([x for x in findings if x.cell.loss == "nll"], ["base_lm_hidden_dim"])
    assert "joint" not in other and "teacher" not in other


def test_page_and_list_show_it(tmp_path: Path) -> None:
    cells = written(tmp_path)
    (cell,) = page_data(tmp_path, cells)["cells"]
    assert cell["arms"]["thinking"]["nll"]["mean"] == pytest.approx(0.4)
    assert any(TEACHER in note for note in cell["notes"])
    assert cell["thoughts"]["nll_shuffled"] == 1.1 and cell["thoughts"]["nll_no_thought"] == 5.0
    curves = page_data(tmp_path, cells)["curves"]
    assert all(min(x for x in curve["nll"]) > 100 for curve in curves.values())
    listed = "\n".join(lines_of(load_folder(tmp_path)))
    assert " 0.400 " in listed and " 3.000 " not in listed and "joint NLL  state" in listed


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Figures:
    monkeypatch.chdir(tmp_path)
    return Figures(monkeypatch)


def texts(figure: Any) -> str:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [axes.get_xlabel(), axes.get_ylabel()]
    label = figure._supylabel  # of learning curves
    return words(" ".join([*found, label.get_text() if label else ""]))


def test_figures_draw_it_and_say_so(tmp_path: Path, figures: Figures, capsys: Any) -> None:
    written(tmp_path / "runs", base_lm_hidden_dim=4)
    cell, _ = written(tmp_path / "runs", base_lm_hidden_dim=8)
    for script, name in (
        (learning_curves, "learning_curves.png"),
        (capacity_vs_gain, "capacity.png"),
    ):
        done = Script(script.main, name, figures, capsys)()
        assert done.code == 0, done.err
        assert "held-out joint NLL" in texts(done.figure) and TEACHER in texts(done.figure)
        assert TEACHER in words(done.out) and "held-out joint NLL" in done.out
    curves = {
        arm: {row["seed"]: load_curve(tmp_path / "runs", row["key"]) for row in frame.to_dict("records")}
        for arm, frame in cell.arms.items()
    }
    held_out = {a: {s: x[x["kind"] == "held_out"] for s, x in each.items()} for a, each in curves.items()}
    comparison_figure(find([cell])[0], held_out, tmp_path / "drawn.png")
    drawn = figures.drawn[-1]
    assert "held-out joint NLL" in texts(drawn) and TEACHER in texts(drawn)
    assert drawn.axes[0].get_ylim()[1] > 100


@pytest.mark.parametrize("script", [budget, gain_by_depth], ids=lambda x: x.__name__)
def test_measures_of_the_first_token_alone_are_refused(
    tmp_path: Path, figures: Figures, capsys: Any, script: Any
) -> None:
    written(tmp_path / "runs", max_reasoning_len=1)
    done = Script(script.main, "drawn.png", figures, capsys)()
    assert done.code == 2 and "with ahead=joint all tokens of a position are judged together" in done.err
