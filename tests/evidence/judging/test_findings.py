"""What a cell is judged by: its plan, controls that are one run, seeds of which it is not known."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from toyqs.evidence.arms import JUDGED
from toyqs.evidence.cells import Cell, load_cells, write_cell
from toyqs.evidence.judging.decision import LEVEL
from toyqs.evidence.judging.findings import arm_table, find
from toyqs.files import write_json

THINKING, HIGH, LOW = [0.1, 0.2, 0.3, 0.4], [1.1, 1.3, 1.2, 1.4], [0.0, 0.01, 0.2, 0.1]
ALL = "beats every matched control"


def arm(values, **columns):
    return pd.DataFrame({"seed": range(len(values)), "nll": values, **columns})


def cell(arms=None, same=None, not_run=(), settings=None, started=None, thinking=None):
    first = arm(THINKING if thinking is None else thinking, started=started)
    controls = {name: arm(HIGH) for name in JUDGED} if arms is None else arms
    return Cell(settings or {}, {"thinking": first, **controls}, {}, same or {}, not_run)


def word(*args, **changes):
    return find([cell(*args, **changes)])[0].verdict.text


def others(*names):
    return {name: arm(HIGH) for name in JUDGED if name not in names}


def test_two_names_of_one_control_are_judged_once():
    """Whether the run stands under a judged name or under another."""
    assert word(others("state_handed_on"), {"state_handed_on": "zero_length"}) == ALL
    arms = others("state_handed_on") | {"zero_length": arm(LOW)}
    assert word(arms, {"state_handed_on": "zero_length"}) == "worse than not thinking"
    arms = others("param_matched") | {"compute_matched": arm(LOW)}
    assert word(arms, {"param_matched": "compute_matched"}) == "beats the same base, not compute_matched"
    same = {"compute_matched": "no_reasoner"}
    assert word({"no_reasoner": arm(HIGH), **others("compute_matched")}, same) == ALL
    arms = {"no_reasoner": arm(LOW), **others("compute_matched")}
    assert word(arms, same) == "beats the same base, not compute_matched"


def test_a_control_that_is_the_run_itself_is_not_beaten():
    same = {"policy_off": "thinking"}
    assert word(others("policy_off"), same) == "no better than never-rewarded thoughts"
    assert word(others("pause"), {"pause": "thinking"}) == "beats the same base, not pause"
    lost = word(others("pause"), {"pause": "thinking"}, thinking=[0.1, math.nan, 0.3, 0.4])
    assert lost == "not judged: seed 1 diverged"


def test_what_a_run_cannot_have_is_not_asked_of_it():
    assert word(others("policy_off")) == ALL, "the plan of a run with a policy loss knows policy_off"
    assert word(others("policy_off"), not_run=["policy_off"]) == "not judged: policy_off not run"
    lacking = "beats the same base; not run: param_matched"
    assert word(others("param_matched")) == lacking
    assert word(others("param_matched"), settings={"pretrained": None}) == lacking
    assert word(others("param_matched"), settings={"pretrained": "gpt2"}) == ALL
    assert word(others("param_matched"), settings={"start_from": "runs/KEY"}) == ALL
    assert word(others("param_matched"), settings={"infer_pretrained_base": "runs/KEY"}) == ALL
    assert word(others("param_matched"), settings={"infer_pretrained_reasoner": "runs/KEY"}) == lacking


def test_rows_of_before_there_were_these_controls_have_no_matched_word():
    older = others("state_handed_on", "pause")
    assert word(older) == "beats the same base; not run: state_handed_on, pause"
    assert word(older | {"zero_length": arm(LOW)}) == "worse than not thinking"
    found = find([cell(older)])[0].verdict
    assert "Not run, and so not ruled out: state_handed_on, pause." in found.sentence


@pytest.mark.parametrize("settings", [{"use_reasoner": False}, {"max_reasoning_len": 0}])
def test_runs_without_thoughts_have_no_verdict_and_are_not_counted(settings):
    found = find([cell(settings=settings), cell()])
    assert found[0].verdict is None and found[1].verdict.cells == 1
    table = arm_table(found)
    assert list(table["verdict"].notna()) == [False] * 7 + [True] + [False] * 6


def test_started_counts_where_it_is_known():
    assert word(started=[None] * 4) == ALL, "thoughts of which it is not known"
    assert word(started=[False, None, None, None]) == "thoughts not used (0 of 1 seeds started)"
    assert word(started=[True, None, False, None]) == ALL
    assert word(started=[False, False, True, False]) == "thoughts not used (1 of 4 seeds started)"
    assert word(others(), started=[False] * 4) == "thoughts not used (0 of 4 seeds started)"


def test_a_control_asked_for_that_has_not_finished_is_missing():
    assert word(others() | {"pause": pd.DataFrame()}) == "not judged: pause missing"
    apart = arm(HIGH).assign(seed=[7, 8, 9, 10])
    assert word(others() | {"pause": apart}) == "not judged: pause missing"
    assert word(thinking=[]) == "not judged: nothing finished to compare"
    assert word(thinking=THINKING[:3]) == "too few seeds (3 of 4) to judge"


def test_the_table_s_p_values_suffice_to_apply_the_rule_by_hand():
    near = [x + y for x, y in zip(THINKING, (0.05, 0.19, 0.07, 0.13), strict=True)]
    cells = [cell(others() | {"pause": arm(near)}) for _ in range(6)]
    table = arm_table(find(cells), ())
    p = table.set_index("arm")["gain_p"]
    assert LEVEL / 6 < p["pause"].iloc[0] < LEVEL and (p["zero_length"] < LEVEL / 6).all()
    first = table.iloc[0]
    assert first["verdict"] == "beats the same base, not pause" and first["verdict_uncorrected"] == ALL
    assert first["verdict_p"] == p[["zero_length", "policy_off"]].max()
    assert find(cells)[0].verdict.text == f"{first['verdict']} (before correction for 6 cells: {ALL})"


def test_one_run_under_two_names_is_found_in_the_notes_of_a_sweep(tmp_path):
    """By its keys; asked for under the second name, it is missing under the first."""
    keys = {arm: {seed: f"{arm}-{seed}" for seed in (1, 2)} for arm in ("thinking", "zero_length", "pause")}
    keys |= {"state_handed_on": keys["zero_length"], "policy_off": {s: f"off-{s}" for s in (1, 2)}}
    write_cell(tmp_path, {"task": "x"}, keys, ["thinking", "state_handed_on", "pause"])
    for key in ("thinking-1", "thinking-2", "zero_length-1"):
        (tmp_path / key).mkdir()
        write_json(tmp_path / key / "summary.json", {"key": key, "seed": int(key[-1]), "nll": 1.0})
    (found,) = load_cells(tmp_path)
    assert found.same == {"state_handed_on": "zero_length"} and list(found.not_run) == ["policy_off"]
    assert list(found.arms) == ["thinking", "zero_length", "pause"]
    assert found.missing == {"zero_length": [2], "pause": [1, 2]}
    # a later plan without the second name for other seeds leaves them one run
    more = {arm: {3: f"{arm}-3"} for arm in ("thinking", "zero_length")}
    write_cell(tmp_path, {"task": "x"}, more, more)
    (found,) = load_cells(tmp_path)
    assert found.same == {"state_handed_on": "zero_length"} and found.missing["zero_length"] == [2, 3]
