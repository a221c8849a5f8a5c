"""Accuracy and gains by depth: pairs of seeds, grey where training has a depth, what is missing."""

from __future__ import annotations

import json

import pytest

from analysis import gain_by_depth
from tests.analysis.synthetic import Figures, Script, key_of, settings, write

LOSSES = {  # arm -> seed -> NLL by depth from 1
    "thinking": {1: [0.1, 0.2, 0.4], 2: [0.1, 0.4, 0.6]},
    "pause": {1: [0.2, 0.2, 1.4], 2: [0.2, 0.6, 1.2], 3: [9.0, 9.0, 9.0]},
    "zero_length": {3: [1.0, 1.0, 1.0]},
}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(gain_by_depth.main, "gain_by_depth.png", Figures(monkeypatch), capsys)


def sweep(folder, losses=LOSSES, trained=2, **changes):
    chosen = settings(**changes)
    write(folder, chosen, {arm: {seed: x[-1] for seed, x in each.items()} for arm, each in losses.items()})
    for arm, each in losses.items():
        for seed, values in each.items():
            path = folder / key_of(chosen, arm, seed) / "metrics.jsonl"
            with path.open("a") as file:
                for depth, nll in enumerate(values, 1):
                    line = {"step": 9, "kind": "by_depth", "depth": depth, "trained": int(depth <= trained)}
                    line |= {"positions": 5.0, "nll": nll, "accuracy": 1 - nll / 10}
                    file.write(json.dumps(line) + "\n")


def test_gains_are_paired_by_seed_at_each_depth(tmp_path, call):
    sweep(tmp_path / "runs")
    code, out, err, figure, table = call(really=True)
    assert (code, err) == (0, "")
    rows = table.set_index(["arm", "depth"])
    assert rows.loc["pause"]["gain"].tolist() == pytest.approx([0.1, 0.1, 0.8])
    # t(0.975; 1) = 12.7062047; the gains are 0 and 0.2, and 1.0 and 0.6
    assert rows.loc["pause"]["gain_half_width"].tolist()[1:] == pytest.approx([1.27062047, 2.54124094])
    assert rows.loc["thinking"]["gain"].isna().all() and rows.loc["zero_length"]["gain"].isna().all()
    assert rows.loc["thinking"]["nll"].tolist() == pytest.approx([0.1, 0.3, 0.5])
    assert rows.loc["thinking"]["accuracy"].tolist() == pytest.approx([0.99, 0.97, 0.95])
    assert rows["trained"].tolist() == [True, True, False] * 3
    assert rows.loc["pause"]["seeds"].tolist() == [3, 3, 3]
    top, bottom = figure.axes
    for axes in (top, bottom):
        (grey,) = [patch for patch in axes.patches if patch.get_width() == 2.0]
        assert (grey.get_x(), grey.get_x() + grey.get_width()) == (0.5, 2.5)
    (line,) = [x for x in bottom.containers if x.get_label() == "pause"]
    assert list(line.lines[0].get_ydata()) == pytest.approx([0.1, 0.1, 0.8])
    assert [x.get_label() for x in bottom.containers] == ["pause"], "no seed in common with the other"
    assert {x.get_label() for x in top.containers} == set(LOSSES)
    assert "3*" in out and "1*" not in out and "+0.800 ± 2.541" in out


def test_many_depths_are_thinned_in_the_figure_alone(tmp_path, call):
    many = {arm: {1: [1.0 / d for d in range(1, 101)], 2: [0.5] * 100} for arm in ("thinking", "pause")}
    sweep(tmp_path / "runs", many, trained=50)
    code, _, _, figure, table = call()
    assert code == 0 and len(table) == 200
    (line,) = [x for x in figure.axes[1].containers if x.get_label() == "pause"]
    places = list(line.lines[0].get_xdata())
    assert len(places) == gain_by_depth.MOST_DEPTHS and round(places[0]) == 1 and round(places[-1]) == 100


def test_a_column_for_each_cell_and_no_more_than_fit(tmp_path, call):
    for width in (2, 4):
        sweep(tmp_path / "runs", base_lm_hidden_dim=width)
    code, out, _, figure, table = call()
    assert code == 0 and len(figure.axes) == 4 and table["base_lm_hidden_dim"].unique().tolist() == [2, 4]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["base_lm_hidden_dim=2", "base_lm_hidden_dim=4"]
    assert "base_lm_hidden_dim=2" in out
    for width in (8, 16, 32):
        sweep(tmp_path / "runs", base_lm_hidden_dim=width)
    code, _, err, _, _ = call()
    assert code == 2 and "5 columns, 4 at most; choose with base_lm_hidden_dim=VALUE" in err


def test_plain_models_and_runs_without_depths(tmp_path, call):
    plain = {"no_reasoner": {1: [0.5, 0.6], 2: [0.7, 0.8]}}
    sweep(tmp_path / "runs", plain, trained=1, use_reasoner=False)
    code, _, _, figure, _ = call()
    assert code == 0 and len(figure.axes) == 1
    write(tmp_path / "others", settings(), {"thinking": {1: 0.1}, "pause": {1: 0.2}})
    (tmp_path / "runs").rename(tmp_path / "before")
    (tmp_path / "others").rename(tmp_path / "runs")
    code, _, err, _, _ = call()
    assert code == 1 and "no results by depth" in err and "docs/depth.md" in err
