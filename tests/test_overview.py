"""The table of a sweep."""

from __future__ import annotations

import pandas as pd

from toyqs.overview import sweep_csv, sweep_table


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
    return {
        "width=2": good,
        "width=4": bad,
        "width=8": {"thinking": pd.DataFrame(), "zero_length": pd.DataFrame()},
    }


def test_a_line_per_cell():
    lines = sweep_table(cells()).splitlines()
    assert lines[0] == "3 cells: rev_prog k=3, best possible NLL (Bayes) 0.250"
    first, second, third = (next(line for line in lines if line.startswith(f"width={w}")) for w in (2, 4, 8))
    assert first.split("  ")[-1].strip() == "helps" and "3 of 4" in first
    assert "1.100 ± 0.130" in first and first.count("+1.000 ± 0.000") == 2
    assert "-0.500 ± 0.000" in second and second.endswith("no verdict")
    assert "not finished" in third
    assert "compute_matched" not in lines[3]
    assert max(map(len, lines)) <= 110


def test_what_is_missing_is_said():
    text = " ".join(sweep_table(cells()).split())
    assert "Not finished: thinking (width=4) seed 3; param_matched (width=4) seed 0, 1, 2, 3." in text


def test_plain_cells_have_no_gains():
    text = sweep_table(
        {"a=1": {"no_reasoner": arm([1.0, 1.5])}, "a=2": {"no_reasoner": arm([float("nan"), 1.0])}}
    )
    assert "gain" not in text and "verdict" not in text and "started" not in text
    assert "1.250 ± 3.177" in text and "diverged" in text


def test_csv_holds_every_arm_of_every_cell(tmp_path):
    path = tmp_path / "sweep.csv"
    for_csv = {
        label: {
            name: frame.assign(
                parameters=5, recurrent_steps_per_token=1, flops_per_token=2.0, train_steps=3, cpu_seconds=4.0
            )
            if len(frame)
            else frame
            for name, frame in arms.items()
        }
        for label, arms in cells().items()
    }
    sweep_csv(for_csv, path)
    table = pd.read_csv(path).set_index(["cell", "arm"])
    assert len(table) == 6
    assert table.loc[("width=2", "zero_length"), "gain"] == 1.0
    assert table.loc[("width=4", "thinking"), "seeds"] == 3
