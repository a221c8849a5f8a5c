"""The table and its numbers."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from toyqs.evidence.arms import NONE
from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.findings import Finding, arm_table, find, write_arm_table
from toyqs.evidence.tables import thought_measures
from toyqs.evidence.tables.comparison import comparison_table
from toyqs.evidence.text import human
from toyqs.training.evaluation.information import CONTEXTS

SETTINGS = {
    "task": "rev_prog",
    "task.p": 6,
    "task.label_noise": 0.0,
    "task.path": None,
    "base_lm_hidden_dim": 4,
}


def arm(nll, parameters=402, steps=1800, **more):
    row = {
        "bayes_floor": 0.0,
        "accuracy": 0.25,
        "parameters": parameters,
        "recurrent_steps_per_token": 7.4,
        "flops_per_token": 123456,
        "train_steps": steps,
        "cpu_seconds": 21.5,
        "started": None,
    }
    return pd.DataFrame([row | {"seed": seed, "nll": value} | more for seed, value in enumerate(nll, 1)])


def arms(**changes):
    thoughts = {
        "nll_shuffled": 4.51,
        "nll_no_thought": 1.92,
        "nll_marginal": 0.301,
        "information": 2.11,
        "information_shuffled": 0.03,
    }
    thinking = arm([0.065, 0.211, 0.342, 0.674], 10843, **thoughts)
    thinking["started"] = [True, True, True, False]
    controls = {
        "no_reasoner": arm([1.72, 1.78, 1.75, 1.77]),
        "zero_length": arm([1.70, 1.76, 1.74, 1.77], 10843),
        "state_handed_on": arm([1.69, 1.75, 1.74, 1.76], 10843),
        "pause": arm([0.40, 0.10, 0.30, 0.90], 10843),
        "policy_off": arm([1.71, 1.75, 1.74, 1.77], 10843, started=False),
        "compute_matched": arm([1.31, 1.35, 1.28, 1.40], steps=72000),
        "param_matched": arm([0.010, 0.012, 0.009, 0.013], 10799),
    }
    return {"thinking": thinking, **controls, **changes}


def finding(frames, same=NONE, **changes) -> Finding:
    """Return what is found in a cell of these arms."""
    thinks = {"use_reasoner": next(iter(frames)) != "no_reasoner"}
    (found,) = find([Cell(SETTINGS | thinks | changes, frames, {}, same)])
    return found


def row_of(table, name):
    return next(line for line in table.splitlines() if line.startswith(f"{name} "))


def test_what_says_labels_is_told_under_the_table():
    labelled = arms(
        pause=arm([0.40, 0.10, 0.30, 0.90], 10843, label_parameters=150, label_flops=2592),
        param_matched=arm([0.010, 0.012, 0.009, 0.013], 10799, label_parameters=12345, label_flops=67890),
    )
    said = " ".join(comparison_table(finding(labelled)).split())
    assert (
        "not counted above, parameters, FLOPs of a position: pause 150, 2.59k; param_matched 12.3k, 67.9k."
        in said
    )
    assert "Labels" not in comparison_table(finding(arms()))


def test_the_table_says_what_was_found_and_fits():
    table = comparison_table(finding(arms()))
    assert max(map(len, table.splitlines())) <= 110
    assert table.splitlines()[0] == "rev_prog p=6 label_noise=0, base width 4, seeds 1, 2, 3, 4"
    assert "(Bayes), per counted position: 0.000 nats" in table
    cells = re.split(r"\s{2,}", row_of(table, "zero_length"))
    gain = "+1.419 ± 0.377"
    assert cells == [
        "zero_length",
        "1.743 ± 0.049",
        "25.0 ± 0.0",
        gain,
        "10.8k",
        "1,800",
    ]
    same = "the same in every line: recurrent steps/tok 7.40; FLOPs /token 123k; CPU s /seed 21.5"
    assert same in table.splitlines()
    assert "-0.312 ± 0.412" in row_of(table, "param_matched")
    assert "72,000" in row_of(table, "compute_matched")
    assert "Verdict: beats the same base, not pause, param_matched." in table
    assert "But steps without content or more parameters may gain as\nmuch, or more." in table
    lines = [line for line in table.splitlines() if re.match(r"\S+ +(better|worse|undecided) ", line)]
    against = [line.split()[:5] for line in lines]
    assert [line[:2] for line in against] == [
        ["(no_reasoner)", "better"], ["zero_length", "better"], ["state_handed_on", "better"],
        ["pause", "undecided"], ["policy_off", "better"], ["compute_matched", "better"],
        ["param_matched", "undecided"],
    ]  # fmt: skip
    assert against[1][2:] == ["+1.043", "to", "+1.796"] and "interval of its gain, uncorrected" in table


def test_what_zero_length_thoughts_are_depends_on_the_settings():
    """Where nothing but symbols could tell of the context, no base is said to be the same."""
    same = "gain over the same base without them"
    changes = ({}, {"interpreter_start": "onward"}, {"use_base_lm": False, "interpreter_start": "afresh"})
    tables = [comparison_table(finding(arms(), **each)) for each in changes]
    assert max(len(line) for table in tables for line in table.splitlines()) <= 110
    usual, onward, blind = (" ".join(table.split()) for table in tables)
    assert "zero-length thoughts (read afresh: without base_reasoner and reasoner)" in usual and same in usual
    assert "(the interpreter goes on from the reasoner's state)" in onward and "afresh" not in onward
    assert "it sees nothing of the context)" in blind
    assert same not in blind and "gain over the same model without them" in blind


def test_gains_are_paired_by_seed_not_by_place():
    frames = arms()
    backwards = frames | {"zero_length": frames["zero_length"].iloc[::-1]}
    pd.testing.assert_frame_equal(arm_table([finding(backwards)]), arm_table([finding(frames)]))


def test_seeds_that_never_started_are_counted_and_named():
    table = comparison_table(finding(arms()))
    assert "Started to think: thinking 3 of 4 seeds (never: seed 4); policy_off 0 of 4 seeds." in table


def test_of_thoughts_that_can_tell_nothing_no_start_is_told():
    """Zero-length thoughts have none; a pause, one symbol or chance do not depend on what was read."""
    idle = {name: arm([0.5] * 4, started=False) for name in ("pause", "random", "constant")}
    table = comparison_table(finding(arms() | idle))
    assert next(line for line in table.splitlines() if line.startswith("Started")).count("seeds") == 2


def test_whether_the_thoughts_are_used_is_said_where_it_is_known():
    table = " ".join(comparison_table(finding(arms())).split())
    assert "4.510 with another sequence's thought, 1.920 without a thought, 0.301 averaging the" in table
    assert "sequences' thoughts alone" not in table
    # at most the logarithm of the 64 contexts that are compared, or of as many as there are
    assert "mutual information of thought and context 2.11 of at most 4.16" in table
    fewer = comparison_table(finding(arms(), eval_sequences=32))
    assert "2.11 of at most 3.47" in fewer
    assert "ntropy" not in table, "not measured here"
    assert "Thoughts of the thinking model" not in comparison_table(finding({"no_reasoner": arm([1.0])}))


def test_as_many_contexts_are_named_as_are_compared():
    assert thought_measures.CONTEXTS == CONTEXTS


def test_what_the_thoughts_are_as_a_code():
    code = {"homogeneity": 0.8, "completeness": 0.314, "distinct_thoughts": 42.0, "pass_at_k": 0.98}
    table = " ".join(comparison_table(finding(arms(thinking=arm([0.1, 0.2], **code)))).split())
    assert "as a code homogeneity 0.80, completeness 0.31 (0: chance, 1: perfect); 42 distinct" in table
    assert "likeliest at 98.0 % of positions (pass@K)" in table
    code["completeness"] = None
    one_thought = comparison_table(finding({"thinking": arm([0.1, 0.2], **code)}))
    assert "completeness – (0: chance" in one_thought
    assert "as a code" not in comparison_table(finding(arms()))


def test_a_model_without_a_prediction_without_a_thought_is_judged_by_others_alone():
    frames = arms()
    del frames["thinking"]["nll_no_thought"]
    table = " ".join(comparison_table(finding(frames)).split())
    assert "policy_off 0 of 4 seeds. This is judged by other sequences' thoughts alone: the model" in table
    assert "without a thought," not in table


def test_a_diverged_seed_is_named_and_no_mean_hides_it():
    frames = arms(zero_length=arm([1.7, math.nan, 1.74, 1.77]))
    table = comparison_table(finding(frames))
    assert (
        "diverged" in row_of(table, "zero_length")
        and "±" not in row_of(table, "zero_length").split("25.0")[0]
    )
    assert "Diverged: zero_length, seed 2;" in table
    assert "Verdict: not judged: seed 2 diverged." in table
    assert math.isnan(arm_table([finding(frames)]).set_index("arm").loc["zero_length", "gain"])


def test_unfinished_arms_and_seeds_are_said():
    frames = arms(param_matched=pd.DataFrame(), zero_length=arm([1.7, 1.76, 1.74]))
    table = comparison_table(finding(frames))
    assert "Not finished: param_matched, seed 1, 2, 3, 4." in table
    assert "Not finished: zero_length, seed 4." in table
    assert "Verdict: not judged: param_matched missing.\nA verdict needs 4 seeds of every judged" in table
    short = arms(zero_length=arm([1.7, 1.76, 1.74]))
    assert "Verdict: too few seeds (3 of 4) to judge." in comparison_table(finding(short))
    with pytest.raises(ValueError, match="no complete run"):
        comparison_table(finding(arms(thinking=pd.DataFrame())))


def test_a_control_that_is_one_run_with_another_is_said():
    frames = arms()
    del frames["state_handed_on"]
    table = comparison_table(finding(frames, {"state_handed_on": "zero_length"}))
    assert "\nstate_handed_on: one run with zero_length, and shown as that\n" in table


def test_one_arm_of_one_seed_has_neither_interval_nor_verdict():
    table = comparison_table(finding({"thinking": arm([0.5], bayes_floor=None)}))
    assert "Verdict" not in table and "±" not in table and "0.500" in row_of(table, "thinking")
    assert "not known" in table


def test_a_path_in_the_task_shows_its_name_only():
    found = finding({"thinking": arm([0.5])}, **{"task.path": "/some/where/text.txt"})
    assert "path=text.txt" in comparison_table(found)


def test_csv_holds_the_same_numbers(tmp_path):
    write_arm_table([finding(arms())], (), tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv").set_index("arm")
    numbers = arm_table([finding(arms())]).set_index("arm")
    pd.testing.assert_frame_equal(read, numbers, check_dtype=False)
    assert read.loc["compute_matched", "gain"] == pytest.approx(1.012)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (3.6, "3.60"), (402, "402"), (999, "999"), (999.7, "1.00k"), (12345, "12.3k"),
        (999_999, "1.00M"), (4_100_000, "4.10M"), (2.5e9, "2.50G"), (3e15, "3e+03T"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_human_numbers(number, text):
    assert human(number) == text
