"""The axes of the headline figure: what cells are drawn over, and where their points are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis import capacity_vs_gain
from tests import figure_texts
from tests.analysis.synthetic import Figures, Script, settings, write
from toyqs.evidence.arms import CONTROLS, JUDGED

WIDTHS = ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")
THINKING = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
ZERO = {1: 1.1, 2: 1.3, 3: 1.2, 4: 1.4}  # gains 1.0, 1.1, 0.9, 1.0
FOUND = {"thinking": THINKING, "zero_length": ZERO, "policy_off": ZERO}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(capacity_vs_gain.main, "capacity.png", Figures(monkeypatch), capsys)


def sweep(folder, keys, values, found=FOUND, **changes):
    """Write a cell for each value of some settings, its losses greater by its place."""
    for place, value in enumerate(values):
        losses = {arm: {seed: x + place for seed, x in each.items()} for arm, each in found.items()}
        changed = dict.fromkeys([keys] if isinstance(keys, str) else keys, value)
        write(folder / "runs", settings() | changed | changes, losses)


def footer(figure):
    """Return the small letters below a figure, without their line ends."""
    return " ".join(figure.texts[-1].get_text().split())


def line_of(axes, arm):
    (container,) = [c for c in axes.containers if c.get_label() == arm]
    return container.lines[0]


def places(axes, arms=tuple(FOUND)):
    """Return for each cell the mean of its arms' places along the axis's own scale."""
    scale = np.log if axes.get_xscale() == "log" else np.asarray
    back = np.exp if axes.get_xscale() == "log" else np.asarray
    return list(back(np.mean([scale(line_of(axes, arm).get_xdata()) for arm in arms], axis=0)))


def ticks(axes):
    return [text.get_text() for text in axes.get_xticklabels()]


@pytest.mark.parametrize(
    ("keys", "values", "scale", "where", "label"),
    [
        ("base_lm_hidden_dim", [4, 8], "log", [4, 8], "base width (log scale)"),
        ("reasoner_hidden_dim", [4, 8, 16], "log", [4, 8, 16], "reasoner width (log scale)"),
        (WIDTHS[1:], [4, 16], "log", [4, 16], "reasoner and interpreter width (log scale)"),
        ("interpreter_hidden_dim", [8, 12], "log", [8, 12], "interpreter width (log scale)"),
        (WIDTHS, [2, 512], "log", [2, 512], "width of all roles (log scale)"),
        ("max_reasoning_len", [1, 2, 8], "linear", [1, 2, 8], "L, symbols per thought"),
        ("trice_samples", [2, 4, 8], "log", [2, 4, 8], "K, thoughts per position (log scale)"),
        ("trice_samples", [2, 3], "linear", [2, 3], "K, thoughts per position"),
        (("trice_samples", "train_nll_num"), [1, 8], "log", [1, 8], "K, thoughts per position (log scale)"),
        ("policy_loss_beta", [10.0, 1000.0], "log", [10, 1000], "policy_loss_beta, the weight"),
        ("policy_loss_beta", [0.0, 0.1, 10.0], "linear", [0, 1, 2], "loss (evenly spaced)"),
        ("max_reasoning_len", [1, 2, 64], "linear", [0, 1, 2], "L, symbols per thought (evenly spaced)"),
        ("mixing", ["concat", "gate", "sum"], "linear", [0, 1, 2], "mixing"),
        ("linear_lm_head", [False, True], "linear", [0, 1], "linear_lm_head"),
        ("task.k", [2, 3], "linear", [2, 3], "task.k"),
    ],
)
def test_the_setting_that_differs_is_the_axis(tmp_path, call, keys, values, scale, where, label):
    """Every cell's arms stand around its tick, their means where the table has them."""
    sweep(tmp_path, keys, values)
    code, out, err, figure, table = call()
    key = keys if isinstance(keys, str) else keys[0]
    assert (code, err) == (0, "") and list(table[key].unique()) == values
    for axes, arms in zip(figure.axes, (tuple(FOUND), tuple(FOUND)[1:]), strict=True):
        assert axes.get_xscale() == scale and label in axes.get_xlabel()
        assert places(axes, arms) == pytest.approx(where)
        assert [tick.lower() for tick in ticks(axes)] == [
            f"{value}".lower().replace(".0", "") for value in values
        ]
        low, high = axes.get_xlim()
        assert all(low < x < high for arm in arms for x in line_of(axes, arm).get_xdata())
    left, right = figure.axes
    assert line_of(left, "zero_length").get_ydata() == pytest.approx([1.25 + i for i in range(len(values))])
    assert line_of(right, "zero_length").get_ydata() == pytest.approx([1.0] * len(values))
    words = all(isinstance(value, str | bool) for value in values)
    assert line_of(left, "thinking").get_linestyle() == ("None" if words else "-")
    assert f"{values[0]}".lower().replace(".0", "") in out
    assert {text for text in (axes.get_ylabel() for axes in figure.axes)} == {
        "held-out NLL, nats per counted position",
        "gain, nats",
    }


def test_a_cell_without_thoughts_has_no_thinking_and_no_gain(tmp_path, call):
    sweep(tmp_path, "max_reasoning_len", [0, 1, 8])
    code, _, err, figure, table = call()
    left, right = figure.axes
    assert (code, err) == (0, "") and len(line_of(left, "thinking").get_xdata()) == 2
    assert [len(line_of(axes, "zero_length").get_xdata()) for axes in (left, right)] == [3, 2]
    without = table[table["max_reasoning_len"] == 0]
    assert list(without["arm"]) == ["zero_length", "policy_off"]
    assert without["gain"].isna().all() and table["gain"].notna().any()


def test_a_band_holds_the_arms_of_one_cell_and_says_so(tmp_path, call):
    sweep(tmp_path, "trice_samples", [2, 8, 32])
    _, _, _, figure, _ = call()
    for axes, arms in zip(figure.axes, (tuple(FOUND), tuple(FOUND)[1:]), strict=True):
        bands = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches)
        assert len(bands) == 3 and all(end < start for (_, end), (start, _) in itertools.pairwise(bands))
        for arm in arms:
            inside = zip(bands, line_of(axes, arm).get_xdata(), strict=True)
            assert all(start < x < end for (start, end), x in inside)
    assert "a grey band is one cell, its arms side by side" in footer(figure)


def test_a_folder_in_which_several_settings_differ_asks_for_one(tmp_path, call):
    for length in (1, 3):
        sweep(tmp_path, "trice_samples", [2, 4], max_reasoning_len=length)
    code, _, err, figure, _ = call()
    assert (code, figure) == (2, None)
    assert "over max_reasoning_len (--over AXIS takes another, --over KEY,KEY two that change" in err
    assert "trice_samples=2,4; add, say, trice_samples=2" in err
    code, _, _, figure, table = call("--over", "trice_samples", "max_reasoning_len=3")
    assert code == 0 and places(figure.axes[0]) == pytest.approx([2, 4])
    assert list(table.columns[:2]) == ["trice_samples", "arm"]


def test_a_width_that_does_not_follow_is_a_difference(tmp_path, call):
    sweep(tmp_path, WIDTHS, [4, 8])
    for words in (["--over", "model_hidden_dim"], ["--over", "reasoner_hidden_dim"]):
        code, _, _, figure, _ = call(*words)
        assert code == 0 and figure.axes[0].get_xlabel().startswith("width of all roles")
    sweep(tmp_path, WIDTHS[:2], [16], interpreter_hidden_dim=8)
    code, _, err, _, _ = call()
    assert code == 2 and "interpreter_hidden_dim=4,8; add, say" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--over", "K"],
            "--over K: neither a setting of these cells nor one of parameters, flops_per_token",
        ),
        (["--over", "flops"], "did you mean train_flops?"),
        (["--over", "policy_beta"], "did you mean policy_loss_beta?"),
        (
            ["--over", "trice_samples"],
            "trice_samples has no effect; choose the others with max_reasoning_len=2",
        ),
        (["--over", "parameters", "--over"], "expected one argument"),
    ],
)
def test_refusals(tmp_path, call, words, says):
    """Among them K under thoughts without symbols, where it cannot matter."""
    write(tmp_path / "runs", settings(max_reasoning_len=0), FOUND)
    write(tmp_path / "runs", settings(max_reasoning_len=2, trice_samples=4), FOUND)
    code, _, err, figure, _ = call(*words)
    assert (code, figure) == (2, None) and says in err


def test_a_single_cell_stands_at_its_base_width_or_where_it_is_asked_to(tmp_path, call):
    write(tmp_path / "runs", settings(trice_samples=4), FOUND)
    _, _, _, figure, _ = call()
    assert ticks(figure.axes[0]) == ["12"] and places(figure.axes[0]) == pytest.approx([12])
    _, _, _, figure, _ = call("--over", "trice_samples")
    assert ticks(figure.axes[1]) == ["4"] and places(figure.axes[0]) == pytest.approx([4])
    _, _, _, figure, _ = call("--over", "weight_groups")
    assert ticks(figure.axes[0]) == ["ABCD"]


def test_without_a_base_the_next_width_is_the_axis(tmp_path, call):
    write(tmp_path / "runs", settings(use_base_lm=False), FOUND, inactive=["base_lm_hidden_dim"])
    code, _, _, figure, _ = call()
    assert code == 0 and figure.axes[0].get_xlabel().startswith("reasoner width")


def test_without_a_control_the_loss_has_the_figure_to_itself(tmp_path, call):
    sweep(tmp_path, "trice_samples", [2, 8], {"thinking": THINKING})
    code, out, _, figure, table = call()
    (axes,) = figure.axes
    assert code == 0 and "NLL" in axes.get_ylabel() and "gain" not in out
    line = line_of(axes, "thinking")
    assert list(line.get_xdata()) == pytest.approx([2, 8]) and list(line.get_ydata()) == pytest.approx(
        [0.25, 1.25]
    )
    (bars,) = axes.containers[0].lines[2]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    # t(0.975; 3) = 3.18244631, the standard deviation 0.1291
    assert ends[0] == pytest.approx([0.25 - 0.2054, 0.25 + 0.2054], abs=1e-4)
    assert not axes.patches and "side by side" not in axes.get_xlabel()
    assert list(table["nll"]) == pytest.approx([0.25, 1.25])


@pytest.mark.parametrize("cost", ["parameters", "flops_per_token", "train_flops", "cpu_seconds"])
def test_each_arm_stands_at_its_own_cost_and_a_gain_at_thinking_s(tmp_path, call, cost):
    costs = {"thinking": 3e4, "zero_length": 2e3, "policy_off": 3e4}
    column = "flops_per_step" if cost == "train_flops" else cost
    times = 450 if cost == "train_flops" else 1
    for width in (4, 8, 16):
        own = {arm: width * x for arm, x in costs.items()}
        write(tmp_path / "runs", settings(base_lm_hidden_dim=width), FOUND, **{column: own})
    code, _, err, figure, table = call("--over", cost)
    assert (code, err) == (0, "") and "beside the points of thinking: base_lm_hidden_dim" in footer(figure)
    left, right = figure.axes
    for arm, x in costs.items():
        assert line_of(left, arm).get_xdata() == pytest.approx([width * x * times for width in (4, 8, 16)])
    assert places(right, tuple(FOUND)[1:]) == pytest.approx([width * 3e4 * times for width in (4, 8, 16)])
    assert left.get_xscale() == "log" and "of the thinking run (log scale)" in right.get_xlabel()
    assert line_of(left, "thinking").get_linestyle() == "-"
    assert [text.get_text() for text in left.texts] == ["4", "8", "16"]
    spread = [line_of(right, arm).get_xdata()[0] for arm in tuple(FOUND)[1:]]
    assert max(spread) < 1.2 * min(spread), "side by side, and near the cost"
    assert table[cost].iloc[0] == 4 * 3e4 * times and list(table["base_lm_hidden_dim"][::3]) == [4, 8, 16]
    assert all(text[-1] in "kMG" or text.isdecimal() for text in ticks(left))


def test_costs_within_one_digit_have_ticks_all_the_same(tmp_path, call):
    """Thinking's cells from 12k to 13k parameters, on the logarithmic scale that the controls ask for."""
    for width, parameters in ((4, 12_050), (8, 12_900)):
        own = {"thinking": parameters, "zero_length": 2e3, "policy_off": parameters}
        write(tmp_path / "runs", settings(base_lm_hidden_dim=width), FOUND, parameters=own)
    _, _, _, figure, _ = call("--over", "parameters")
    _, right = figure.axes
    low, high = right.get_xlim()
    shown = [text for x, text in zip(right.get_xticks(), ticks(right), strict=True) if low <= x <= high]
    assert right.get_xscale() == "log" and len(set(shown)) == len(shown) > 1


@pytest.mark.parametrize("words", [(), ("--over", "parameters")])
def test_all_that_is_written_is_within_the_figure(tmp_path, call, words):
    """Whatever the footer has to say: here of thirteen arms."""
    for width in (4, 8):
        arms = dict.fromkeys(["thinking", *CONTROLS], ZERO)
        write(tmp_path / "runs", settings(base_lm_hidden_dim=width), arms)
    _, _, _, figure, _ = call(*words)
    assert figure_texts.outside(figure) == []
    assert "verdicts: in the table; intervals are not corrected for their number" in footer(figure)


def test_cells_of_several_settings_stand_at_their_cost_unjoined(tmp_path, call):
    for width in (4, 8):
        for length in (1, 3):
            chosen = settings(base_lm_hidden_dim=width, max_reasoning_len=length)
            write(tmp_path / "runs", chosen, FOUND, parameters=100 * width + length)
    code, _, _, figure, _ = call("--over", "parameters")
    line = line_of(figure.axes[0], "thinking")
    assert code == 0 and line.get_linestyle() == "None"
    assert list(line.get_xdata()) == pytest.approx([401, 403, 801, 803])
    assert not figure.axes[0].texts, "two settings beside each point would lie over one another"
    write(tmp_path / "runs", settings(task_k=2), FOUND)
    code, _, err, _, _ = call("--over", "parameters")
    assert code == 2 and "task.k=2,3; add, say, task.k=2" in err


def test_a_cost_that_no_row_says_is_refused(tmp_path, call):
    write(tmp_path / "runs", settings(), FOUND, flops_per_step=None)
    code, _, err, _, _ = call("--over", "train_flops")
    assert code == 1 and "no row says its train_flops; give --over a setting" in err


def test_more_arms_than_colours_can_tell_leave_those_that_are_judged(tmp_path, call):
    arms = ["thinking", *CONTROLS]
    write(tmp_path / "runs", settings(), dict.fromkeys(arms[:8], ZERO))
    _, _, _, figure, _ = call()
    assert [c.get_label() for c in figure.axes[0].containers] == arms[:8]
    write(tmp_path / "runs", settings(), dict.fromkeys(arms, ZERO))
    _, _, _, figure, table = call()
    left, right = figure.axes
    drawn = [c.get_label() for c in left.containers]
    assert drawn == ["thinking", *(c.get_label() for c in right.containers)]
    assert set(drawn) == {"thinking", *JUDGED} and len(drawn) == 7
    assert "in the table only: no reasoner, " in footer(figure)
    assert list(table["arm"]) == arms and len({line_of(left, arm).get_marker() for arm in drawn}) == len(
        drawn
    )


def test_one_loss_far_off_leaves_the_others_legible(tmp_path, call):
    far = dict.fromkeys(THINKING, 3e6)
    write(tmp_path / "runs", settings(), {**FOUND, "no_reasoner": far})
    _, _, _, figure, _ = call()
    left, _ = figure.axes
    assert left.get_yscale() == "symlog" and "; linear to 1.5, logarithmic beyond" in left.get_ylabel()
    near, top = left.transAxes.inverted().transform(left.transData.transform([(12, 1.4), (12, 3e6)]))[:, 1]
    assert near > 0.15 and 0.5 < top <= 1
