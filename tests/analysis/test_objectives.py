"""Objectives side by side."""

from __future__ import annotations

import pytest

from analysis import objectives
from tests.analysis.synthetic import Figures, Script, settings, write

THINKING = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
ZERO = {1: 1.1, 2: 1.3, 3: 1.2, 4: 1.4}  # gains 1.0, 1.1, 0.9, 1.0
WORSE = {seed: nll + 0.5 for seed, nll in THINKING.items()}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(objectives.main, "objectives.png", Figures(monkeypatch), capsys)


def cell(folder, name, number=4, found=THINKING, zero=ZERO, columns=None, inactive=(), **changes):
    arms = {"thinking": found} | ({"zero_length": zero} if zero else {})
    write(
        folder / "runs",
        settings(objective=name, trice_samples=number, **changes),
        arms,
        inactive=inactive,
        **(columns or {}),
    )


def test_every_objective_and_k(tmp_path, call):
    for number in (2, 4):
        cell(tmp_path, "reinforce", number, columns={"policy_snr": 0.5})
        cell(tmp_path, "reinforce", number, WORSE, baseline="value", columns={"policy_snr": -0.1})
        cell(tmp_path, "pathwise", number, WORSE)
    code, out, err, figure, table = call(really=True)
    assert (code, err) == (0, "") and (tmp_path / "objectives.png").read_bytes().startswith(b"\x89PNG")
    assert list(table["objective"]) == ["reinforce"] * 2 + ["pathwise"] * 2 + ["reinforce value"] * 2
    assert list(table["K"]) == [2, 4] * 3
    first = table.iloc[0]
    assert first["gain"] == pytest.approx(1.0) and first["gain_half_width"] == pytest.approx(0.1299, abs=1e-4)
    assert first["nll"] == pytest.approx(0.25) and first["cpu_seconds"] == 2.0 and first["snr"] == 0.5
    assert table["snr"].isna().sum() == 2 and (table["started"] == 4).all()
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(table["objective"].unique())
    assert "reinforce value" in out and "+1.000 ± 0.130" in out and "4 of 4" in out
    assert max(map(len, out.splitlines())) <= 110


def test_what_the_names_leave_out_is_said_below(tmp_path, call):
    grpo = {"baseline": "group_mean", "advantage_scale": "group_std"}
    for number in (2, 4):
        cell(tmp_path, "reinforce", number, train_nll_num=number)
        cell(tmp_path, "reinforce", number, WORSE, train_nll_num=number, **grpo)
        cell(
            tmp_path,
            "vargrad",
            number,
            train_nll_num=number,
            max_steps=900,
            inactive=["baseline", "advantage_scale"],
        )
    _, out, _, _, table = call()
    assert set(table["objective"]) == {"reinforce", "reinforce group_mean group_std", "vargrad"}
    assert (
        "Where a name says no other: baseline=leave_one_out; advantage_scale=batch_std. "
        "Different too, but in no name: max_steps=450,900."
    ) in " ".join(out.split())
    for choices in (["objective=vargrad"], ["baseline=group_mean"]):
        code, out, _, _, table = call(*choices)
        assert code == 0 and len(table) == 2 and "no other:" not in out and "Different too" not in out


def test_an_objective_whose_model_needs_a_thought_is_marked(tmp_path, call):
    cell(tmp_path, "reinforce", columns={"nll_no_thought": 3.0})
    assert "*" not in call().out
    cell(tmp_path, "vargrad")
    out = call().out
    assert out.count("4 of 4 *") == 1 and "\n*: judged by other sequences' thoughts alone: the model" in out


def test_the_onset_is_where_the_gain_leaves_chance(tmp_path, call):
    """Check the onset of arms whose curves fall from 1.8 above their ends, so that the gain is immediate."""
    cell(tmp_path, "reinforce")
    cell(tmp_path, "vargrad", found=ZERO)  # no gain at all
    _, out, _, _, table = call()
    assert table["onset"][0] == 23 and table["onset"].isna()[1]
    assert "+1.000 ± 0.130    23\n" in out


def test_without_the_control_the_losses_are_drawn_the_least_first(tmp_path, call):
    cell(tmp_path, "pathwise", found=WORSE, zero=None)
    cell(tmp_path, "reinforce", zero=None)
    code, out, _, figure, table = call()
    losses = figure.axes[0]
    assert code == 0 and list(table["objective"]) == ["reinforce", "pathwise"] and "0.250 ± 0.205" in out
    assert losses.get_xlabel() == "held-out NLL, nats" and losses.lines[0].get_color() != "black"
    means = {c.lines[0].get_ydata()[0]: c.lines[0].get_xdata()[0] for c in losses.containers}
    assert means == pytest.approx({0: 0.25, 1: 0.75})
    cell(tmp_path, "vargrad")
    assert "gain" in call().figure.axes[0].get_xlabel()


def test_a_seed_that_diverged_has_no_mean(tmp_path, call):
    cell(tmp_path, "reinforce", found=THINKING | {4: None})
    code, out, _, _, table = call()
    assert code == 0 and table["gain"].isna().all() and "Diverged" in out


def test_zero_length_thoughts_are_a_control_not_an_objective(tmp_path, call):
    cell(tmp_path, "reinforce")
    cell(tmp_path, "reinforce", found=ZERO, max_reasoning_len=0)
    _, _, _, _, table = call()
    assert len(table) == 1
    code, _, err, _, _ = call("max_reasoning_len=0")
    assert code == 1 and "zero-length thoughts only" in err


def test_choices_narrow_a_folder(tmp_path, call):
    cell(tmp_path, "reinforce")
    cell(tmp_path, "vargrad")
    _, _, _, _, table = call("objective=vargrad")
    assert list(table["objective"]) == ["vargrad"]
