"""The forest plot of the sharing patterns."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis import weight_groups
from tests.analysis import synthetic
from tests.analysis.synthetic import PATTERNS, Figures, Script, settings, write

THINKING = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
ZERO = {1: 1.1, 2: 1.3, 3: 1.2, 4: 1.4}
MATCHED = {1: 0.9, 2: 0.9, 3: 0.9, 4: 0.9}  # gains 0.8, 0.7, 0.6, 0.5
FOUND = {"thinking": THINKING, "zero_length": ZERO, "param_matched": MATCHED}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(weight_groups.main, "weight_groups.png", Figures(monkeypatch), capsys)


def pattern(folder, groups, width=16, beta=1.0, found=None, inactive=(), **changes):
    widths = dict.fromkeys(("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim"), width)
    chosen = settings(weight_groups=groups, policy_loss_beta=beta, **{**widths, **changes})
    write(folder / "runs", chosen, FOUND if found is None else found, inactive=inactive)


def rows_of(axes, arm):
    """Return row -> mean of one arm in a panel."""
    (container,) = [c for c in axes.containers if c.get_label() == arm]
    line = container.lines[0]
    return dict(zip(np.round(line.get_ydata()).astype(int).tolist(), line.get_xdata().tolist(), strict=True))


def test_all_patterns_at_two_weights(tmp_path, call):
    synthetic.pattern_sweep(tmp_path / "runs", num_seeds=2)
    code, out, err, figure, table = call(really=True)
    assert (code, err) == (0, "") and (tmp_path / "weight_groups.png").read_bytes().startswith(b"\x89PNG")
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == list(PATTERNS), "by the number of groups"
    assert left.get_ylim()[0] > left.get_ylim()[1], "from top to bottom"
    assert "0.1" in left.get_title() and right.get_title() == "base width 32, policy_loss_beta 1"
    assert left.get_xlim() == right.get_xlim() and len(left.texts) == len(PATTERNS)
    assert len(table) == 2 * 15 * 6 and list(table["weight_groups"].unique()) == list(PATTERNS)
    gains = table[(table["arm"] == "zero_length") & (table["policy_loss_beta"] == 1)]["gain"]
    assert list(rows_of(right, "zero_length").values()) == pytest.approx(list(gains))
    assert max(map(len, out.splitlines())) <= 110 and "not in the sweep" not in out
    assert "reasoner width 32, seeds 0, 1" in figure.texts[-1].get_text()


def test_a_weight_without_effect_is_no_panel_s_title(tmp_path, call):
    pattern(tmp_path, "ABCD", inactive=["policy_loss_beta"])
    code, out, _, figure, table = call()
    (axes,) = figure.axes
    assert code == 0 and axes.get_title() == "base width 16" and table["policy_loss_beta"].isna().all()
    assert "policy_loss_beta" not in out
    pattern(tmp_path, "AAAA")
    _, out, _, figure, _ = call()
    assert [axes.get_title() for axes in figure.axes] == [
        "base width 16, policy_loss_beta 1",
        "base width 16",
    ]


def test_a_single_row_has_no_label_beside_its_tick(tmp_path, call):
    pattern(tmp_path, "ABCD")
    assert call().figure.axes[0].get_ylabel() == ""
    pattern(tmp_path, "AAAA")
    assert call().figure.axes[0].get_ylabel() == "weight_groups"


def test_rows_numbers_and_verdicts(tmp_path, call):
    pattern(tmp_path, "ABCD")
    pattern(tmp_path, "AAAA")
    pattern(tmp_path, "ABBB", found={"thinking": ZERO, "zero_length": THINKING})
    code, out, _, figure, table = call()
    (axes,) = figure.axes
    assert code == 0 and [t.get_text() for t in axes.get_yticklabels()] == ["AAAA", "ABBB", "ABCD"]
    word, lacking = "beats the same base; not run:", "state_handed_on, pause, compute_matched"
    texts = [text.get_text().replace("\n", " ") for text in axes.texts]
    assert texts == [f"{word} {lacking}", "worse than not thinking", f"{word} {lacking}"]
    assert rows_of(axes, "zero_length") == pytest.approx({0: 1.0, 1: -1.0, 2: 1.0})
    assert rows_of(axes, "param_matched") == pytest.approx({0: 0.65, 2: 0.65})
    assert [0, 0] in [list(line.get_xdata()) for line in axes.lines if line.get_color() == "black"]
    points = axes.collections[1].get_offsets()
    assert sorted(points[:4, 0]) == pytest.approx([0.9, 1.0, 1.0, 1.1])
    assert "   ABBB  -1.000±0.130             –" in out.splitlines()
    said = [line.strip().split("  ") for line in out.splitlines() if line.endswith("worse than not thinking")]
    assert [line[0] for line in said] == ["ABBB"] and "corrected for 3 cells (Holm)" in out
    row = table[(table["weight_groups"] == "AAAA") & (table["arm"] == "param_matched")].iloc[0]
    # t(0.975; 3) = 3.18244631, the standard deviation of 0.5, 0.6, 0.7, 0.8 is √(0.05 / 3)
    assert row["gain_half_width"] == pytest.approx(3.18244631 * np.sqrt(0.05 / 3) / 2)
    assert list(table["verdict"].dropna()) == texts


def test_a_verdict_that_the_number_of_cells_took_away_has_a_cross(tmp_path, call):
    """Gains 0.5, 1.9, 0.7, 1.3 have p = 0.040: below .05, not below .05 / 3."""
    near = {seed: x + y for (seed, x), y in zip(THINKING.items(), (0.5, 1.9, 0.7, 1.3), strict=True)}
    for groups in ("AAAA", "AABB", "ABCD"):
        pattern(tmp_path, groups, found={"thinking": THINKING, "zero_length": near})
    _, out, _, figure, table = call()
    texts = [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]
    assert texts == ["cannot be told from not thinking †"] * 3
    assert "\ngains: 95 % t-intervals, uncorrected; †" in figure.texts[-1].get_text()
    assert (
        figure.texts[-1].get_text().endswith("†: another verdict before correction for the number of cells")
    )
    said = " ".join(out.split())
    assert said.count("(before correction for 3 cells: beats the same base; not run: state_handed_on,") == 3
    assert set(table["verdict"].dropna()) == {"cannot be told from not thinking"}
    _, out, _, figure, table = call("weight_groups=ABCD")
    assert "†" not in figure.texts[-1].get_text() + figure.axes[0].texts[0].get_text()
    assert "paired t-tests at 0.05\n" in out and table["verdict_p"][0] == pytest.approx(0.0401, abs=1e-4)


def test_several_widths_are_a_map_of_patterns_by_widths(tmp_path, call):
    """The gain as a colour, hatched where its interval holds 0, a dot as large as the share that started."""
    near = {seed: x + y for (seed, x), y in zip(THINKING.items(), (-0.5, 0.5, -0.4, 0.6), strict=True)}
    losing = {"thinking": THINKING, "zero_length": near}
    pattern(tmp_path, "AAAA", 16, 0.1)
    pattern(tmp_path, "ABCD", 16, 0.1, found={"thinking": THINKING})
    pattern(tmp_path, "AAAA", 32, 0.1, found=losing)
    pattern(tmp_path, "ABCD", 32, 1.0)
    code, out, _, figure, _ = call(really=True)
    *panels, _ = figure.axes
    assert code == 0 and [axes.get_title() for axes in panels[:2]] == [
        "zero-length\nthoughts",
        "parameter-\nmatched",
    ]
    assert [axes.get_ylabel() for axes in panels[::2]] == ["policy_loss_beta 0.1", "policy_loss_beta 1"]
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["16", "32"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["AAAA", "ABCD"]
    fields = [axes.collections[0].get_array().filled(np.nan) for axes in panels]
    nan = np.nan
    wanted = [
        [[1.0, 0.05], [nan, nan]],
        [[0.65, nan], [nan, nan]],
        [[nan, nan], [nan, 1.0]],
        [[nan, nan], [nan, 0.65]],
    ]
    for field, numbers in zip(fields, wanted, strict=True):
        assert field == pytest.approx(np.array(numbers), nan_ok=True)
    assert [[(x.get_x(), x.get_y()) for x in axes.patches] for axes in panels] == [[(0.5, -0.5)], [], [], []]
    assert all(patch.get_hatch() for axes in panels for patch in axes.patches)
    assert {axes.collections[0].get_clim() for axes in panels} == {(-1.0, 1.0)}
    dots = panels[0].collections[1]
    assert sorted(map(tuple, dots.get_offsets().tolist())) == [(0.0, 0.0), (1.0, 0.0)]
    assert "reasoner as wide as the base" in out and "verdicts: in the table" in figure.texts[-1].get_text()
    assert out.count("not in the sweep here: AAAA") == 1


def test_a_dot_is_as_large_as_the_share_of_seeds_that_started(tmp_path, call):
    for width, started in ((16, True), (32, False)):
        pattern(tmp_path, "AAAA", width)
        for path in (tmp_path / "runs").glob("*/summary.json"):
            row = json.loads(path.read_text())
            if row["base_lm_hidden_dim"] == width and row["started"] is not None:
                path.write_text(json.dumps(row | {"started": started or row["seed"] == 1}))
    sizes = call().figure.axes[0].collections[1].get_sizes()
    assert sizes[1] / sizes[0] == pytest.approx(1 / 4)


def test_without_a_control_the_losses_are_drawn(tmp_path, call):
    for place, groups in enumerate(("AAAA", "AABB", "ABCD")):
        pattern(tmp_path, groups, found={"thinking": {seed: x + place for seed, x in THINKING.items()}})
    code, out, _, figure, table = call()
    (axes,) = figure.axes
    assert code == 0 and rows_of(axes, "thinking") == pytest.approx({0: 0.25, 1: 1.25, 2: 2.25})
    points = axes.collections[1].get_offsets()
    assert sorted(points[:, 0]) == pytest.approx([x + i for i in range(3) for x in THINKING.values()])
    assert "NLL" in axes.get_xlabel() and "gain" not in out and "   AABB  1.250±0.205" in out.splitlines()
    assert [list(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "--"] == [[0, 0]]
    assert {text.get_text() for text in axes.texts} == {""} and list(table["nll"]) == [0.25, 1.25, 2.25]
    pattern(tmp_path, "ABBB")
    (axes,) = call().figure.axes
    assert "gain" in axes.get_xlabel() and list(rows_of(axes, "zero_length")) == [2]


def test_an_unfinished_sweep(tmp_path, call):
    asked = dict.fromkeys(FOUND, range(1, 5))
    write(
        tmp_path / "runs",
        settings(weight_groups="AAAA"),
        {"thinking": {1: 0.5}, "zero_length": {2: 1.0}},
        asked,
    )
    write(tmp_path / "runs", settings(weight_groups="ABCD"), {}, asked)
    code, out, _, figure, _ = call()
    assert code == 0 and not figure.axes[0].containers[0:0]
    place = "  base_lm_hidden_dim=12 policy_loss_beta=1 weight_groups"
    assert f"{place}=AAAA: thinking (seed 2–4), zero_length (seed 1, 3, 4), param_matched (seed 1–4)" in out
    assert f"{place}=ABCD: everything (seed 1–4)" in out


def test_settings_that_are_idle_without_a_policy_loss_are_no_difference(tmp_path, call):
    for beta in (0.0, 0.1):
        pattern(tmp_path, "AAAA", beta=beta, advantage_scale="none" if beta else "batch_std")
    assert call().code == 0
    pattern(tmp_path, "AAAA", beta=1.0, advantage_scale="batch_std")
    result = call()
    assert (
        result.code == 2
        and "advantage_scale=batch_std,none; add, say, advantage_scale=batch_std" in result.err
    )


def test_more_panels_than_can_be_read_are_refused(tmp_path, call):
    for beta in (0.1, 0.5, 1.0, 2.0):
        pattern(tmp_path, "AAAA", beta=beta)
    result = call()
    assert result.code == 2 and "4 values of policy_loss_beta are too many;" in result.err
    assert call(result.err.split()[-1]).code == 0
    assert call("policy_loss_beta=0.5,2").figure.axes[1].get_title().endswith("2")
