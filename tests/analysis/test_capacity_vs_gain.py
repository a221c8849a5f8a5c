"""The headline figure: its numbers, what it says of unfinished sweeps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import capacity_vs_gain
from tests.analysis import synthetic
from tests.analysis.synthetic import Figures, Script, settings, write
from tests.locked import departures

ROOT = Path(__file__).resolve().parents[2]
OURS = r"(toyqs|analysis|__main__)(\.|$)"  # whose warnings are errors, as in pyproject.toml
PNG = b"\x89PNG"
THINKING = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
ZERO = {1: 1.1, 2: 1.3, 3: 1.2, 4: 1.4}  # gains 1.0, 1.1, 0.9, 1.0
MATCHED = {1: 0.05, 2: 0.05, 3: 0.05, 4: 0.05}


def sweep(folder, widths=(4, 8), **changes):
    for width in widths:
        found = {"thinking": THINKING, "zero_length": ZERO, "param_matched": MATCHED}
        write(folder, settings(base_lm_hidden_dim=width, **changes), found)


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(capacity_vs_gain.main, "capacity.png", Figures(monkeypatch), capsys)


def line_of(axes, arm):
    (container,) = [c for c in axes.containers if c.get_label() == arm]
    return container.lines[0]


def test_settings_that_change_together_are_one_axis(tmp_path, call):
    for width, rate in ((4, 0.1), (8, 0.3), (16, 0.2)):
        sweep(tmp_path / "runs", [width], base_lr=rate)
    assert call()[0] == 2
    code, out, err, figure, table = call("--over", "base_lm_hidden_dim,base_lr")
    axes = figure.axes[0]
    assert (code, err, axes.get_xlabel()) == (0, "", "base width, base_lr (log scale)")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["4, 0.1", "8, 0.3", "16, 0.2"]
    assert list(axes.get_xticks()) == [4, 8, 16] and line_of(axes, "thinking").get_linestyle() == "-"
    assert list(table.columns[:3]) == ["base_lm_hidden_dim", "base_lr", "arm"] and re.search("16 +0.2 ", out)
    sweep(tmp_path / "runs", [8], base_lr=0.4)  # the widths no longer tell the cells apart
    _, _, _, figure, _ = call("--over", "base_lm_hidden_dim,base_lr")
    axes = figure.axes[0]
    assert list(axes.get_xticks()) == [0, 1, 2, 3] and line_of(axes, "thinking").get_linestyle() == "None"
    code, _, err, _, _ = call("--over", "base_lr,parameters")
    assert code == 2 and "parameters is no setting, and an axis of its own; give --over parameters" in err


def test_the_numbers(tmp_path, call):
    sweep(tmp_path / "runs")
    code, out, err, _, table = call()
    assert (code, err) == (0, "")
    assert list(table["base_lm_hidden_dim"]) == [4, 4, 4, 8, 8, 8]
    assert list(table["arm"][:3]) == ["thinking", "zero_length", "param_matched"]
    thinking, zero, matched = (row for _, row in table[:3].iterrows())
    # t(0.975; 3) = 3.18244631; the standard deviations are 0.1291 and 0.0816
    assert (thinking["seeds"], thinking["started"], thinking["gain_seeds"]) == (4, 4, 0)
    assert thinking["nll"] == pytest.approx(0.25) and np.isnan(thinking["gain"])
    assert thinking["nll_half_width"] == pytest.approx(3.18244631 * np.sqrt(0.05 / 3) / 2)
    assert zero["gain"] == pytest.approx(1.0)
    assert zero["gain_half_width"] == pytest.approx(3.18244631 * np.sqrt(0.02 / 3) / 2)
    assert (zero["gain_seeds"], zero["parameters"], zero["flops_per_token"]) == (4, 1200, 2000)
    assert (zero["train_steps"], zero["cpu_seconds"]) == (450, 2.0) and np.isnan(zero["started"])
    assert matched["gain"] == pytest.approx(-0.2) and matched["nll_half_width"] == 0
    word = "beats the same base, not param_matched; not run: state_handed_on, pause, compute_matched"
    assert thinking["verdict"] == word and pd.isna(zero["verdict"])
    assert "    4  +1.000±0.130  -0.200±0.205" in out.splitlines()
    assert f"    4  0.250 ± 0.205  {word}" in out.splitlines()
    assert "the same in every line: seeds 4; started 4 of 4 *" in out.splitlines()
    # p = 2 (1 - F(1.000 / (0.0816 / 2))) of Student's distribution with 3 degrees of freedom
    assert zero["gain_p"] == pytest.approx(0.000150, rel=0.02) == thinking["verdict_p"]
    assert "    4  0.250±0.205  1.250±0.205  0.050±0.000" in out.splitlines()
    assert "Missing: nothing" in out and "figure capacity.png\ntable  capacity.csv" in out


def test_the_figure_shows_every_seed_at_its_width(tmp_path, call):
    sweep(tmp_path / "runs")
    _, _, _, figure, _ = call(really=True)
    assert (tmp_path / "capacity.png").read_bytes().startswith(PNG)
    left, right = figure.axes
    setting = "rev_prog p=6 m=3 k=3 label_noise=0, reasoner width 24, seeds 1–4"
    assert figure.get_suptitle() == "How does the gain of thinking change with base width?"
    assert figure.texts[1].get_text() == "rev_prog, seeds 1–4"
    assert figure.texts[-1].get_text().splitlines()[0] == setting
    assert left.get_xscale() == "log" and [t.get_text() for t in left.get_xticklabels()] == ["4", "8"]
    assert [c.get_label() for c in left.containers] == ["thinking", "zero_length", "param_matched"]
    assert [c.get_label() for c in right.containers] == ["zero_length", "param_matched"]
    assert line_of(right, "zero_length").get_ydata() == pytest.approx([1.0, 1.0])
    points = right.collections[[c.get_label() for c in right.containers].index("zero_length") * 2 + 1]
    assert sorted(points.get_offsets()[:, 1]) == pytest.approx(sorted([1.0, 1.1, 0.9, 1.0] * 2))
    places = [line_of(left, arm).get_xdata()[0] for arm in ("thinking", "zero_length", "param_matched")]
    assert places == sorted(set(places)) and np.log2(places) == pytest.approx([1.95, 2, 2.05], abs=0.01)
    floors = [line for line in left.lines if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in floors] == [[0, 0]]
    assert [list(line.get_ydata()) for line in right.lines if line.get_color() == "black"] == [[0, 0]]
    low, high = right.get_ylim()
    assert low < -0.35 and high > 1.1 and right.get_yscale() == "linear"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][1:3] == [
        "zero-length thoughts",
        "parameter-matched",
    ]


def test_one_control_far_off_leaves_the_others_legible(tmp_path, call):
    near, far = {seed: nll + 0.01 for seed, nll in THINKING.items()}, {seed: 30.0 for seed in THINKING}
    found = {"thinking": THINKING, "no_reasoner": near, "zero_length": near, "param_matched": far}
    write(tmp_path / "runs", settings(), found)
    _, _, _, figure, _ = call()
    _, right = figure.axes
    assert right.get_yscale() == "symlog" and "logarithmic beyond" in right.get_ylabel()
    low, high = right.get_ylim()
    assert low < 0 and high > 29.9
    bottom, at, top = right.transAxes.inverted().transform(
        right.transData.transform([(12, y) for y in (0, 0.01, 29.9)])
    )[:, 1]
    assert at - bottom > 0.2 and bottom >= 0 and top <= 1


def test_an_unfinished_sweep_is_drawn_and_says_what_is_missing(tmp_path, call):
    every = range(1, 5)
    asked = {arm: every for arm in ("thinking", "zero_length", "param_matched")}
    write(
        tmp_path / "runs",
        settings(base_lm_hidden_dim=4),
        {"thinking": THINKING, "zero_length": {2: 1.3}},
        asked,
    )
    write(tmp_path / "runs", settings(base_lm_hidden_dim=8), {"param_matched": MATCHED}, asked, started=None)
    write(tmp_path / "runs", settings(base_lm_hidden_dim=16), {}, asked)
    code, out, err, figure, table = call()
    assert (code, err) == (0, "")
    missing = out.partition("not finished:\n")[2].splitlines()[:3]
    assert missing == [
        "  base_lm_hidden_dim=4: zero_length (seed 1, 3, 4), param_matched (seed 1–4)",
        "  base_lm_hidden_dim=8: thinking (seed 1–4), zero_length (seed 1–4)",
        "  base_lm_hidden_dim=16: everything (seed 1–4)",
    ]
    gains = out.partition("(uncorrected):\n")[2].splitlines()[3:6]
    assert [line.split() for line in gains] == [["4", "+1.100", "–"], ["8", "–", "–"], ["16", "–", "–"]]
    said = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if "not judged" in line]
    assert said == [
        ["4", "4", "0.250 ± 0.205", "4 of 4 *", "not judged: param_matched missing"],
        ["8", "0", "not finished", "not judged: nothing finished to compare"],
        ["16", "0", "not finished", "not judged: nothing finished to compare"],
    ]
    assert len(table) == 9 and list(table["seeds"]) == [4, 1, 0, 0, 0, 4, 0, 0, 0]
    assert table.loc[1, "gain"] == pytest.approx(1.1) and np.isnan(table.loc[1, "gain_half_width"])
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["4", "8", "16"]


def test_seeds_that_diverged_or_never_began_to_think_are_named(tmp_path, call):
    write(tmp_path / "runs", settings(), {"thinking": THINKING, "zero_length": ZERO | {3: None}})
    write(
        tmp_path / "runs",
        settings(base_lm_hidden_dim=24),
        {"thinking": THINKING, "zero_length": ZERO},
        started=False,
    )
    code, out, _, _, table = call()
    assert code == 0
    assert "base_lm_hidden_dim=12: Diverged: zero_length, seed 3;" in out.replace("\n", " ")
    assert "Never started to think: base_lm_hidden_dim=24: 4 of 4 (seed 1–4)." in out
    assert np.isnan(table.loc[1, "nll"]) and np.isnan(table.loc[1, "gain"])
    assert list(table["started"].dropna()) == [4, 0]


def test_nothing_to_show(tmp_path, call):
    code, _, err, figure, _ = call()
    assert (code, figure) == (2, None)
    assert "runs: there is no such folder" in err
    (tmp_path / "runs").mkdir()
    code, _, err, _, _ = call()
    assert code == 1 and "no run was begun here" in err
    write(tmp_path / "runs", settings(), {}, {"thinking": [1], "zero_length": [1]})
    code, _, err, _, _ = call()
    assert code == 1 and "nothing has finished yet; cells begun: 1" in err
    plain = settings(use_reasoner=False, base_lm_hidden_dim=8)
    write(tmp_path / "runs", plain, {"no_reasoner": ZERO})
    (tmp_path / "runs" / "cells" / "torn.json").write_text("{")
    code, _, err, _, _ = call()
    assert code == 2 and "torn.json: not a JSON object" in err


def test_a_width_without_effect_has_no_place(tmp_path, call):
    write(tmp_path / "runs", settings(base_lm_hidden_dim=8), {"thinking": ZERO})
    write(tmp_path / "runs", settings(mixing="thought"), {"thinking": ZERO}, inactive=["base_lm_hidden_dim"])
    code, _, err, _, _ = call()
    assert code == 2 and "cells in which base_lm_hidden_dim has no effect" in err


def test_plain_models_are_no_cells_of_their_own(tmp_path, call):
    plain = settings(use_reasoner=False, base_lm_hidden_dim=16, reasoner_hidden_dim=99)
    write(tmp_path / "runs", plain, {"no_reasoner": ZERO})
    code, _, err, _, _ = call()
    assert code == 1 and "plain models only" in err
    sweep(tmp_path / "runs")
    code, _, _, _, table = call()
    assert code == 0 and set(table["base_lm_hidden_dim"]) == {4, 8}


def test_rows_of_several_commits_are_one_line_and_only_where_they_are_shown(tmp_path, call):
    sweep(tmp_path / "runs", [4])
    write(
        tmp_path / "runs",
        settings(base_lm_hidden_dim=8),
        {"thinking": THINKING},
        commit="fff",
        results_version=2,
    )
    code, _, err, _, _ = call()
    assert code == 0 and err.count("\n") == 1
    assert "2 commits (abc1234, fff) and 2 results versions (1, 2)" in err
    assert call("base_lm_hidden_dim=4")[2] == ""


def test_five_hundred_runs_are_drawn_in_seconds_and_fit_the_screen(tmp_path, call):
    more = {f"column {i}": 0.5 for i in range(60)}
    synthetic.capacity_sweep(tmp_path / "runs", seeds=range(14), **more)
    clock = time.process_time()
    code, out, _, _, table = call(really=True)
    assert time.process_time() - clock < 8
    assert code == 0 and len(table) == 36 and table["seeds"].eq(14).all()
    assert max(map(len, out.splitlines())) <= 110


def test_the_script_runs_as_typed_from_anywhere_and_never_loads_torch(tmp_path):
    sweep(tmp_path / "runs")
    (tmp_path / "torch.py").write_text("raise SystemExit(99)")
    strict = f"warnings.filterwarnings({'ignore' if departures() else 'error'!r}, module={OURS!r})"
    (tmp_path / "sitecustomize.py").write_text(
        f"import warnings\nwarnings.simplefilter('ignore')\n{strict}\n"
    )
    command = [sys.executable, os.path.relpath(ROOT / "analysis/capacity_vs_gain.py", tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([*command, "runs", "-o", "c.svg"], check=False, **run)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "c.svg").read_text().startswith("<?xml") and (tmp_path / "c.csv").is_file()
