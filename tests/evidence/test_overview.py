"""The table of a sweep."""

from __future__ import annotations

import math

import pandas as pd

from toyqs.evidence.overview import sweep_csv, sweep_table


def arm(values, started=None, floor=0.25):
    frame = pd.DataFrame({"seed": range(len(values)), "nll": values, "task": "rev_prog", "task.k": 3})
    return frame.assign(bayes_floor=floor, **({} if started is None else {"started": started}))


def cells():
    thinking = arm([1.0, 1.2, 1.1, 1.1], [True, True, False, True])
    good = {
        "thinking": thinking,
        "zero_length": arm([2.0, 2.2, 2.1, 2.1]),
        "param_matched": arm([2.0, 2.2, 2.1, 2.1]),
    }
    bad = {
        "thinking": arm([1.5, 1.5, 1.5]),
        "zero_length": arm([1.0, 1.0, 1.0, 1.0]),
        "param_matched": pd.DataFrame(),
    }
    none = {"thinking": pd.DataFrame(), "zero_length": pd.DataFrame()}
    return [({"base_width": 2}, good), ({"base_width": 4}, bad), ({"base_width": 8}, none)]


def test_a_line_per_cell():
    lines = sweep_table(cells()).splitlines()
    assert lines[0] == "3 cells: rev_prog k=3"
    assert lines[1] == "Best possible NLL (Bayes), per counted position: 0.250 nats"
    assert lines[3].split()[0] == "base_" and lines[4].split()[0] == "width"
    first, second, third = lines[6:9]
    assert first.split("  ")[-1].strip() == "helps" and "3 of 4" in first
    assert "1.100 ± 0.130" in first and first.count("+1.000 ± 0.000") == 2
    assert "-0.500 ± 0.000" in second and second.endswith("no verdict")
    assert "not finished" in third
    assert "compute_matched" not in lines[4]
    assert max(map(len, lines)) <= 110


def test_cells_whose_models_need_a_thought_are_marked():
    (settings, arms), *others = cells()
    measured = arms | {"thinking": arms["thinking"].assign(nll_no_thought=3.0)}
    text = sweep_table([(settings, measured), *others])
    assert "3 of 4 " in text and "*" not in text
    text = sweep_table([(settings, measured), ({"base_width": 16}, arms), *others])
    assert text.count("3 of 4 *") == 1 and "\n*: judged by other sequences' thoughts alone: the model" in text


def test_a_setting_that_a_cell_does_not_have_is_a_dash(tmp_path):
    arms = cells()[0][1]
    some = [({"use_reasoner": False}, arms), ({"use_reasoner": True, "trice_samples": 4}, arms)]
    lines = sweep_table(some).splitlines()
    assert [line.split()[:2] for line in lines[6:8]] == [["False", "–"], ["True", "4"]]
    sweep_csv(some, tmp_path / "x.csv")
    table = pd.read_csv(tmp_path / "x.csv")
    assert list(table.columns[:2]) == ["use_reasoner", "trice_samples"]
    assert table["trice_samples"].isna().sum() == 3 and set(table["trice_samples"].dropna()) == {4}


def test_what_is_missing_is_said():
    text = " ".join(sweep_table(cells()).split())
    assert (
        "Not finished: thinking (base_width=4) seed 3; param_matched (base_width=4) seed 0, 1, 2, 3." in text
    )


def test_plain_cells_have_no_gains():
    plain = [({"a": 1}, {"no_reasoner": arm([1.0, 1.5])}), ({"a": 2}, {"no_reasoner": arm([math.nan, 1.0])})]
    text = sweep_table(plain)
    assert "gain" not in text and "verdict" not in text and "started" not in text
    assert "1.250 ± 3.177" in text and "diverged" in text


def test_csv_holds_every_arm_of_every_cell(tmp_path):
    costs = ("parameters", "recurrent_steps_per_token", "flops_per_token", "train_steps", "cpu_seconds")
    with_costs = [
        (settings, {name: frame.assign(**dict.fromkeys(costs, 5.0)) for name, frame in arms.items()})
        for settings, arms in cells()
    ]
    sweep_csv(with_costs, tmp_path / "sweep.csv")
    table = pd.read_csv(tmp_path / "sweep.csv").set_index(["base_width", "arm"])
    assert len(table) == 6
    assert table.loc[(2, "zero_length"), "gain"] == 1.0
    assert table.loc[(4, "thinking"), "seeds"] == 3
