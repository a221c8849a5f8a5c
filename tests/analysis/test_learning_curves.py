"""Learning curves: a panel for each cell, means over the seeds' common steps, damaged files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from analysis import learning_curves
from tests.analysis import synthetic
from tests.analysis.synthetic import STEPS, Figures, Script, key_of, settings, write

FOUND = {"thinking": {1: 0.2, 2: 0.4}, "zero_length": {1: 1.0, 2: 1.2}}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(learning_curves.main, "learning_curves.png", Figures(monkeypatch), capsys)


def curve(folder, arm, seed, lines, **changes):
    """Replace the curve of a run of `settings(**changes)`."""
    path = folder / "runs" / key_of(settings(**changes), arm, seed) / "metrics.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def held_out(step, nll):
    return {"step": step, "kind": "held_out", "nll": nll}


def drawn(axes, arm):
    """Return steps and losses of an arm's mean."""
    (line,) = [line for line in axes.lines if line.get_label() == arm]
    return list(line.get_xdata()), list(line.get_ydata())


def test_means_over_the_steps_that_all_seeds_have(tmp_path, call):
    write(tmp_path / "runs", settings(), FOUND)
    curve(
        tmp_path,
        "thinking",
        1,
        [
            held_out(0, 9.0),
            {"step": 1, "kind": "train", "nll": 7.0},
            *(held_out(s, 3.0 / s) for s in (1, 2, 3)),
        ],
    )
    curve(
        tmp_path,
        "thinking",
        2,
        [held_out(1, 2.0), held_out(2, 5.0), held_out(2, 1.0), '{"step": 3, "kind": "held_'],
    )
    code, out, err, figure, table = call(really=True)
    assert (code, err) == (0, "") and (tmp_path / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    rows = table[table["arm"] == "thinking"]
    assert list(table.columns) == ["arm", "step", "seeds", "nll", "nll_half_width"], (
        "a single cell needs no name"
    )
    assert rows[["step", "seeds", "nll"]].values.tolist() == [[1, 2, 2.5], [2, 2, 1.25]]
    # t(0.975; 1) = 12.7062047; the standard deviations are 1/√2 and 0.5/√2
    assert list(rows["nll_half_width"]) == pytest.approx([12.7062047 / 2, 12.7062047 / 4])
    (axes,) = figure.axes
    assert drawn(axes, "thinking") == ([1, 2], [2.5, 1.25])
    assert drawn(axes, "zero_length")[0] == list(STEPS)
    assert axes.get_xscale() == "log" and "Missing: nothing" in out
    seeds = next(line for line in axes.lines if line.get_linewidth() < 1 and 3 in line.get_xdata())
    assert np.array_equal(seeds.get_xdata(), [1, 2, 3, math.nan, 1, 2, math.nan], equal_nan=True)
    assert [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "--"] == [[0, 0]]


def test_panels_are_named_by_the_few_settings_that_tell_them_apart(tmp_path, call):
    for width in (4, 16):
        for beta in (0.1, 1.0):
            widths = {
                "base_lm_hidden_dim": width,
                "reasoner_hidden_dim": width,
                "interpreter_hidden_dim": width,
            }
            write(tmp_path / "runs", settings(policy_loss_beta=beta, **widths), FOUND)
    code, _, _, figure, table = call()
    assert code == 0
    titles = [f"base_lm_hidden_dim={w}, policy_loss_beta={b}" for w in (4, 16) for b in ("0.1", "1")]
    assert [axes.get_title() for axes in figure.axes] == titles
    assert len(table) == 4 * 2 * 20 and list(table.columns[:3]) == [
        "base_lm_hidden_dim",
        "policy_loss_beta",
        "arm",
    ]
    assert len(call("policy_loss_beta=1").figure.axes) == 2
    write(tmp_path / "runs", settings(task="other"), FOUND)
    write(tmp_path / "runs", settings(task_k=2), FOUND)
    titles = [axes.get_title() for axes in call("base_lm_hidden_dim=12").figure.axes]
    assert titles == ["task=other", "task=rev_prog"]


@pytest.mark.parametrize(("over", "label"), [("flops", "FLOPs so far"), ("cpu_seconds", "spread evenly")])
def test_curves_over_what_training_has_cost(tmp_path, call, over, label):
    """An arm's seeds each at their own cost, their mean at the mean of it."""
    write(tmp_path / "runs", settings(), {"thinking": {1: 0.2}}, flops_per_step=100, cpu_seconds=3.0)
    write(tmp_path / "runs", settings(), {"thinking": {2: 0.4}}, flops_per_step=100, cpu_seconds=6.0)
    for seed in (1, 2):
        curve(tmp_path, "thinking", seed, [held_out(step, 1.0 / seed) for step in (10, 20, 30)])
    code, out, err, figure, table = call("--over", over)
    (axes,) = figure.axes
    steps = [1000, 2000, 3000] if over == "flops" else [1.5, 3.0, 4.5]
    assert (code, err) == (0, "") and label in axes.get_xlabel() and "Missing: nothing" in out
    assert drawn(axes, "thinking") == (pytest.approx(steps), [0.75] * 3)
    assert list(table["step"]) == [10, 20, 30] and list(table[over]) == pytest.approx(steps)
    seeds = next(line for line in axes.lines if line.get_linewidth() < 1)
    both = [steps, steps] if over == "flops" else [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]
    assert list(seeds.get_xdata()[:3]) == pytest.approx(both[0])
    assert list(seeds.get_xdata()[4:7]) == pytest.approx(both[1])


def test_arms_that_train_for_different_lengths_are_drawn_over_flops(tmp_path, call):
    """And over steps where all train equally long, or where a row does not say what a step costs."""
    write(tmp_path / "runs", settings(), FOUND)
    assert call().figure.axes[0].get_xlabel() == "training steps (log scale)"
    write(tmp_path / "runs", settings(), FOUND | {"compute_matched": {1: 0.5, 2: 0.6}})
    figure = call().figure
    assert figure.axes[0].get_xlabel() == "FLOPs so far (log scale)"
    ends = {arm: drawn(figure.axes[0], arm)[0][-1] for arm in ("thinking", "compute_matched")}
    assert ends == {"thinking": 450 * 50_000, "compute_matched": 23 * 450 * 50_000}
    assert call("--over", "steps").figure.axes[0].get_xlabel() == "training steps (log scale)"
    write(tmp_path / "runs", settings(), {"zero_length": {1: 1.0}}, flops_per_step=None)
    assert call().figure.axes[0].get_xlabel() == "training steps (log scale)"


def test_a_row_that_does_not_say_its_cost_is_named(tmp_path, call):
    write(tmp_path / "runs", settings(), {"thinking": {1: 0.2, 2: 0.4}})
    write(tmp_path / "runs", settings(), {"zero_length": {1: 1.0}}, flops_per_step=None)
    code, out, _, figure, table = call("--over", "flops")
    assert code == 0 and "row without flops_per_step: zero_length seed 1, runs/" in out
    assert set(table["arm"]) == {"thinking"} and len(figure.axes) == 1
    assert set(call("--over", "steps").table["arm"]) == {"thinking", "zero_length"}
    assert "invalid choice: 'time'" in call("--over", "time").err


def test_a_missing_or_damaged_curve_is_named_and_the_others_drawn(tmp_path, call):
    write(tmp_path / "runs", settings(), FOUND, {arm: [1, 2, 3] for arm in FOUND})
    gone = curve(tmp_path, "thinking", 1, [])
    gone.unlink()
    curve(tmp_path, "zero_length", 1, ["{torn\n", held_out(1, 1.0)])
    curve(tmp_path, "zero_length", 2, ["{torn"])
    code, out, _, figure, table = call()
    assert code == 0 and set(table["arm"]) == {"thinking"} and set(table["seeds"]) == {1}
    assert f"no readable curve: thinking seed 1, runs/{gone.parent.name}/metrics.jsonl" in out
    assert out.count("no readable curve: zero_length seed") == 2
    assert "  thinking (seed 3), zero_length (seed 3)" in out.splitlines()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["thinking", "best possible (Bayes)"]


def test_no_curve_at_all(tmp_path, call):
    write(tmp_path / "runs", settings(), {"thinking": {1: 0.5}})
    curve(tmp_path, "thinking", 1, [])
    code, _, err, figure, _ = call()
    assert (code, figure) == (1, None) and "no readable curve" in err


def test_a_seed_that_diverged_breaks_the_mean_and_leaves_the_range_alone(tmp_path, call):
    write(tmp_path / "runs", settings(), FOUND)
    curve(tmp_path, "thinking", 1, [held_out(1, 2.0), held_out(2, 1e6), held_out(3, None)])
    curve(tmp_path, "thinking", 2, [held_out(s, 2.0) for s in (1, 2, 3)])
    _, _, _, figure, table = call()
    (axes,) = figure.axes
    assert axes.get_ylim()[1] < 20
    rows = table[table["arm"] == "thinking"]
    assert list(rows["nll"][:2]) == [2.0, 500001.0] and np.isnan(rows["nll"].iloc[2])


def test_the_table_and_the_figure_come_where_every_seed_diverged(tmp_path, call):
    write(tmp_path / "runs", settings(), {"thinking": {1: None}})
    curve(tmp_path, "thinking", 1, [held_out(1, None)])
    code, out, _, figure, table = call()
    assert code == 0 and "Diverged: thinking, seed 1;" in out
    assert figure is not None and table["nll"].isna().all()


def test_more_panels_than_can_be_read_are_refused(tmp_path, call):
    synthetic.pattern_sweep(tmp_path / "runs", num_seeds=1)
    result = call()
    assert result.code == 2 and "30 panels, more than 16" in result.err
    assert "policy_loss_beta=0.1,1" in result.err and "weight_groups=AAAA," in result.err
    assert len(call("weight_groups=AAAA,ABCD").figure.axes) == 4
    assert len(call("policy_loss_beta=1").figure.axes) == 15


def test_plain_models_are_drawn_where_no_run_thinks(tmp_path, call):
    for width in (4, 8):
        plain = settings(use_reasoner=False, base_lm_hidden_dim=width)
        write(tmp_path / "runs", plain, {"no_reasoner": {1: 1.0}})
    code, out, _, figure, _ = call()
    assert code == 0 and len(figure.axes) == 2 and "reasoner width" not in out
    write(tmp_path / "runs", settings(), FOUND)
    assert len(call().figure.axes) == 1
    assert len(call("use_reasoner=false").figure.axes) == 2


def test_nothing_finished(tmp_path, call):
    write(tmp_path / "runs", settings(), {}, {"thinking": [1]})
    result = call()
    assert result.code == 1 and "nothing has finished yet" in result.err
