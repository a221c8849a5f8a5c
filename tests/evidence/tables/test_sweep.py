"""Tables of several cells, and their numbers to load."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from toyqs.evidence.arms import CONTROLS, JUDGED, THINKING
from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.findings import find, write_arm_table
from toyqs.evidence.tables.sweep import gain_lines, loss_lines, sweep_table, verdict_lines
from toyqs.evidence.text import WIDTH

HIGH = [2.0, 2.2, 2.1, 2.1]
KEY = "base_lm_hidden_dim"


def arm(values, started=None, floor=0.25):
    frame = pd.DataFrame({"seed": range(len(values)), "nll": values})
    return frame.assign(bayes_floor=floor, **({} if started is None else {"started": started}))


def cell(width, arms, missing=None, same=None, **settings):
    settings = {"task": "rev_prog", "task.k": 3, KEY: width} | settings
    return Cell(settings, arms, missing or {}, same or {})


def cells(*controls):
    names = controls or ("zero_length", "policy_off", "param_matched")
    thinking = arm([1.0, 1.2, 1.1, 1.1], [True, True, False, True])
    good = {THINKING: thinking, **{name: arm(HIGH) for name in names}}
    bad = {THINKING: arm([1.5, 1.5, 1.5]), **{name: arm([1.0] * 4) for name in names}}
    bad[names[-1]] = pd.DataFrame()
    none = {THINKING: pd.DataFrame(), **dict.fromkeys(names, pd.DataFrame())}
    every = [0, 1, 2, 3]
    return [
        cell(2, good),
        cell(4, bad, {THINKING: [3], names[-1]: every}),
        cell(8, none, dict.fromkeys((THINKING, *names), every)),
    ]


def table_of(*given, keys=(KEY,)):
    return sweep_table(find(given), keys)


def test_a_line_per_cell():
    text = table_of(*cells())
    lines = text.splitlines()
    assert lines[0] == "3 cells: rev_prog k=3"
    assert lines[1] == "Best possible NLL (Bayes), per counted position: 0.250 nats"
    assert lines[4].split() == ["width", "seeds", "nats", "started", "verdict"]
    first, second, third = lines[6:9]
    assert re.split(r"\s{2,}", first.strip())[:4] == ["2", "4", "1.100 ± 0.130", "3 of 4 *"]
    assert first.split("*  ")[1] == "beats the same base; not run: state_handed_on, pause, compute_matched"
    assert re.split(r"\s{2,}", second.strip())[-1] == "not judged: param_matched missing"
    assert re.split(r"\s{2,}", third.strip()) == [
        "8", "0", "not finished", "not judged: nothing finished to compare"
    ]  # fmt: skip
    assert "corrected for 3 cells (Holm)" in text and "(uncorrected):" in text
    gains = text.partition("(uncorrected):\n")[2].splitlines()
    assert gains[0].split() == ["base_", "zero_", "policy_", "param_"]
    assert gains[3].split() == ["2", *["+1.000±0.000"] * 3]
    assert gains[4].split() == ["4", "-0.500±0.000", "-0.500±0.000", "–"]
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize("number", [6, 7, 12])
def test_many_controls_are_legible(number):
    """The judged controls come first, in the order of display, and no line is too wide."""
    others = [name for name in CONTROLS if name not in JUDGED]
    shown = [name for name in CONTROLS if name in [*JUDGED, *others][:number]]
    arms = {THINKING: arm([1.0] * 4), **{name: arm([2.0 + place] * 4) for place, name in enumerate(shown)}}
    findings = find([cell(width, arms) for width in (2, 4)])
    for lines in (gain_lines(findings, [KEY]), loss_lines(findings, [KEY]), verdict_lines(findings, [KEY])):
        assert max(map(len, lines)) <= WIDTH
    rows = [line.split()[1:] for line in gain_lines(findings, [KEY]) if line.startswith("    2 ")]
    assert [len(row) for row in rows] == ([6, 6] if number == 12 else [number])
    gained = [f"+{1 + shown.index(name)}.000±0.000" for name in [*JUDGED, *others] if name in shown]
    assert [text for row in rows for text in row] == gained


def test_how_cells_were_judged_is_said_only_where_one_was():
    """Not where seeds are too few, or a control is missing."""
    few = [cell(w, {THINKING: arm([1.0]), **{name: arm([2.0]) for name in JUDGED}}) for w in (2, 4)]
    for given in (few, cells()[1:]):
        assert "t-tests" not in table_of(*given) and "verdict" in table_of(*given)
    assert "verdict: by paired t-tests at 0.05, corrected for 3 cells (Holm)" in table_of(cells()[0], *few)


def test_long_verdicts_are_wrapped_beside_many_settings():
    names = [f"a_rather_long_setting_{letter}" for letter in "abcdef"]
    given = [each._replace(settings=each.settings | dict.fromkeys(names, "x" * 12)) for each in cells()]
    lines = verdict_lines(find(given), [KEY, *names[:2]])
    assert max(map(len, lines)) <= WIDTH
    lines = verdict_lines(find(given), [KEY, *names])
    assert "beats the same base; not run:" in "\n".join(lines), "at least 30 columns, come what may"


def test_cells_whose_models_need_a_thought_are_marked():
    first, *others = cells()
    arms = first.arms | {THINKING: first.arms[THINKING].assign(nll_no_thought=3.0)}
    measured = first._replace(arms=arms)
    text = table_of(measured, *others)
    assert "3 of 4 " in text and "*" not in text
    text = table_of(measured, first._replace(settings=first.settings | {KEY: 16}), *others)
    assert text.count("3 of 4 *") == 1 and "\n*: judged by other sequences' thoughts alone: the model" in text


def test_a_setting_that_a_cell_does_not_have_is_a_dash(tmp_path):
    arms = cells()[0].arms
    plain = cell(2, {"no_reasoner": arm(HIGH)}, use_reasoner=False)
    findings = find([plain, cell(2, arms, use_reasoner=True, trice_samples=4)])
    keys = ["use_reasoner", "trice_samples"]
    lines = sweep_table(findings, keys).splitlines()
    assert lines[6].split() == ["false", "–", "2.100", "±", "0.130", "–"]
    assert lines[7].split()[:2] == ["true", "4"]
    assert "the same in every line: seeds 4" in lines
    assert "verdict: by paired t-tests at 0.05" in lines, "the plain model is no second test"
    write_arm_table(findings, keys, tmp_path / "x.csv")
    table = pd.read_csv(tmp_path / "x.csv")
    assert list(table.columns[:2]) == keys
    assert table["trice_samples"].isna().sum() == 1 and set(table["trice_samples"].dropna()) == {4}


def test_what_is_missing_diverged_or_one_run_is_said():
    text = table_of(*cells())
    assert (
        "Missing, asked for but not finished:\n"
        "  base_lm_hidden_dim=4: thinking (seed 3), param_matched (seed 0–3)\n"
        "  base_lm_hidden_dim=8: everything (seed 0–3)\n"
        "Never started to think: base_lm_hidden_dim=2: 1 of 4 (seed 2)."
    ) in text
    first, *others = (each._replace(same={"state_handed_on": "zero_length"}) for each in cells())
    line = "state_handed_on: one run with zero_length, and shown as that"
    assert table_of(first, *others).endswith(f"\n{line}")
    assert table_of(first, *cells()[1:]).endswith(f"\n{line} (base_lm_hidden_dim=2)")


def test_runs_without_thoughts_or_controls_are_not_said_to_be_their_controls():
    same = {"zero_length": "thinking", "pause": "state_handed_on"}
    silent = cell(1, {"thinking": arm([1.0, 1.5]), "no_reasoner": arm([2.0, 2.5])}, max_reasoning_len=0)
    alone = cell(2, {"thinking": arm([1.0, 1.5])})
    assert "one run with" not in table_of(*(each._replace(same=same) for each in (silent, alone)))
    beside = cell(2, {"thinking": arm([1.0, 1.5]), "no_reasoner": arm([2.0, 2.5])})._replace(same=same)
    assert "zero_length: one run with thinking" in table_of(beside)
    assert "pause" not in table_of(beside), "neither was run"


def test_plain_cells_have_no_gains_and_no_verdict():
    given = [cell(1, {"no_reasoner": arm([1.0, 1.5])}, use_reasoner=False)]
    given.append(cell(2, {"no_reasoner": arm([math.nan, 1.0])}, use_reasoner=False))
    text = table_of(*given)
    assert "gain" not in text and "verdict" not in text and "started" not in text
    assert "1.250 ± 3.177" in text and "diverged" in text


def test_csv_holds_every_arm_of_every_cell(tmp_path):
    write_arm_table(find(cells()), [KEY], tmp_path / "sweep.csv")
    table = pd.read_csv(tmp_path / "sweep.csv").set_index([KEY, "arm"])
    assert len(table) == 8, "a cell of which nothing has finished is left out"
    assert table.loc[(2, "zero_length"), "gain"] == 1.0 and table.loc[(2, "zero_length"), "gain_p"] < 1e-9
    assert table.loc[(4, "thinking"), "seeds"] == 3
    assert table.loc[(2, "thinking"), "verdict"].startswith("beats the same base; not run")
    assert table.loc[(4, "thinking"), "verdict"] == "not judged: param_matched missing"
    assert table["verdict"].notna().sum() == 2 and table.loc[(2, "thinking"), "verdict_p"] < 1e-9
    write_arm_table(find(cells()[2:]), [KEY], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == ""
