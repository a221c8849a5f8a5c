"""The decision table, line by line, and its correction for the number of cells."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from toyqs.evidence.arms import JUDGED
from toyqs.evidence.judging.decision import BEST_FIRST, MEANINGS, Case, Verdict, verdict, verdicts

HIGH, LOW, UNSURE = (1.0, 1.1, 0.9, 1.05), (-1.0, -1.1, -0.9, -1.05), (-1.0, 1.0, -0.5, 0.6)
ALL_HIGH = dict.fromkeys(JUDGED, HIGH)
MATCHED = "state_handed_on, pause, compute_matched, param_matched"
UNTOLD = "cannot be told from not thinking"
NEVER = "no better than never-rewarded thoughts"


def series(columns: dict[str, Any]) -> dict[str, pd.Series]:
    return {name: pd.Series(list(x), index=range(len(x)), dtype=float) for name, x in columns.items()}


def judged(
    columns: dict[str, Any], started: list[bool] | None = None, absent: tuple[str, ...] = ()
) -> Verdict:
    return verdict(series(columns), None if started is None else pd.Series(started), absent)


def without(*names: str, **changes: Any) -> dict[str, Any]:
    return {name: x for name, x in (ALL_HIGH | changes).items() if name not in names}


# gains, seeds that started, controls that the run cannot have -> the word
TABLE: list[tuple[dict[str, Any], list[bool] | None, tuple[str, ...], str]] = [
    ({}, None, (), "not judged: zero_length, policy_off not run"),
    (without("zero_length"), None, (), "not judged: zero_length not run"),
    (without("policy_off"), None, (), "not judged: policy_off not run"),
    (without(pause=()), None, (), "not judged: pause missing"),
    (without(pause=(), param_matched=()), None, (), "not judged: pause, param_matched missing"),
    (dict.fromkeys(JUDGED, ()), None, (), "not judged: nothing finished to compare"),
    (without(pause=(*HIGH, math.nan)), None, (), "not judged: seed 4 diverged"),
    (without(zero_length=(*LOW, math.inf)), None, (), "not judged: seed 4 diverged"),
    (without(pause=HIGH[:3]), None, (), "too few seeds (3 of 4) to judge"),
    (without(zero_length=LOW[:2], pause=HIGH[:3]), [False] * 4, (), "too few seeds (2 of 4) to judge"),
    (without(zero_length=LOW), None, (), "worse than not thinking"),
    (without(zero_length=LOW), [False] * 4, (), "worse than not thinking"),
    (without(zero_length=(-0.5,) * 4), None, (), "worse than not thinking"),
    (ALL_HIGH, [False] * 4, (), "thoughts not used (0 of 4 seeds started)"),
    (ALL_HIGH, [True, False, False, False], (), "thoughts not used (1 of 4 seeds started)"),
    (dict.fromkeys(JUDGED, UNSURE), [False] * 4, (), "thoughts not used (0 of 4 seeds started)"),
    (ALL_HIGH, [True, True, False, False], (), "beats every matched control"),
    (ALL_HIGH, [], (), "beats every matched control"),
    (without("policy_off"), None, ("policy_off",), "beats every matched control"),
    (without("param_matched"), None, ("param_matched",), "beats every matched control"),
    (without("state_handed_on"), None, ("state_handed_on",), "beats every matched control"),
    (without(pause=(0.5,) * 4), None, (), "beats every matched control"),
    (without(pause=LOW), None, (), "beats the same base, not pause"),
    (without(pause=(0.0,) * 4), None, (), "beats the same base, not pause"),
    (without(pause=UNSURE, param_matched=LOW), None, (), "beats the same base, not pause, param_matched"),
    (dict.fromkeys(JUDGED, UNSURE) | {"zero_length": HIGH, "policy_off": HIGH}, None, (),
     f"beats the same base, not {MATCHED}"),
    (without("pause", "state_handed_on"), None, (), "beats the same base; not run: state_handed_on, pause"),
    (without("pause", "state_handed_on", param_matched=LOW), None, (),
     "beats the same base, not param_matched; not run: state_handed_on, pause"),
    (without("policy_off", pause=LOW), None, ("policy_off",), "beats the same base, not pause"),
    (without(policy_off=UNSURE), None, (), NEVER),
    (without(policy_off=LOW), None, (), NEVER),
    (without("pause", policy_off=(0.0,) * 4), None, (), NEVER),
    (dict.fromkeys(JUDGED, UNSURE), None, (), UNTOLD),
    (dict.fromkeys(JUDGED, (0.0,) * 4), None, (), UNTOLD),
    (without(zero_length=UNSURE), None, (), f"{UNTOLD}; beats {MATCHED}"),
    (without(zero_length=UNSURE, pause=UNSURE, param_matched=LOW), None, (),
     f"{UNTOLD}; beats state_handed_on, compute_matched"),
    (without("pause", zero_length=(-1.0, 0.5, -0.5, 0.6), state_handed_on=LOW, compute_matched=LOW), None,
     (), f"{UNTOLD}; beats param_matched"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "started", "absent", "word"), TABLE)
def test_the_first_line_that_holds_gives_the_word(columns, started, absent, word):
    found = judged(columns, started, absent)
    assert (found.word, found.before, found.text, found.cells) == (word, word, word, 1)
    assert found.sentence.endswith(".") and BEST_FIRST[found.standing] in word
    more = judged(columns | {"no_reasoner": LOW, "constant": (math.nan,)}, started, absent)
    assert more.word == word, "a control that is not judged must not move the verdict"


def test_thoughts_that_no_seed_uses_never_help():
    """Whatever the gains are; and with fewer than half of the seeds started."""
    helping = ("beats", NEVER)
    for values in itertools.product((HIGH, UNSURE, LOW), repeat=3):
        columns = dict.fromkeys(JUDGED, values[0]) | {"zero_length": values[1], "policy_off": values[2]}
        for number in range(2):
            word = judged(columns, [True] * number + [False] * (4 - number)).word
            assert word in (f"thoughts not used ({number} of 4 seeds started)", "worse than not thinking")
        assert judged(columns, [True] * 2 + [False] * 2).word.startswith(("worse", UNTOLD, *helping))


def test_only_the_seeds_that_are_compared_must_have_started():
    columns = series(without(zero_length=(*HIGH, 1.0, 1.0)))
    apart = pd.Series([False, False, False, True, True, True], index=range(6))
    assert verdict(columns, apart).word == "thoughts not used (1 of 4 seeds started)"
    known = pd.Series([False, True], index=[0, 3])
    assert verdict(columns, known).word == "beats every matched control", "half of those it is known of"
    shifted = {
        name: gain.set_axis(range(2, 6)) if name == "pause" else gain for name, gain in columns.items()
    }
    assert verdict(shifted, apart).word == "too few seeds (2 of 4) to judge"


def test_the_sentence_tells_controls_that_are_better_from_those_that_may_be():
    def sentence(**changes: Any) -> str:
        return judged(without(**changes)).sentence.removeprefix(MEANINGS["beats the same base"]).strip()

    assert sentence(pause=LOW) == "But better than the thoughts: steps without content."
    assert sentence(pause=UNSURE) == "But steps without content may gain as much, or more."
    assert sentence(pause=UNSURE, compute_matched=LOW, param_matched=LOW) == (
        "But better than the thoughts: more training, more parameters. "
        "Steps without content may gain as much, or more."
    )


def test_p_is_the_largest_over_the_controls_that_the_word_needs():
    near = (0.5, 1.9, 0.7, 1.3)
    p = {name: judged(without(zero_length=x)).p for name, x in {"near": near, "high": HIGH}.items()}
    assert 0 < p["high"] < p["near"] < 0.05
    assert judged(without(pause=near)).p == p["near"]
    assert judged(without(pause=LOW, policy_off=near)).p == p["near"]
    assert judged(without(pause=near, policy_off=UNSURE)).p == p["high"], "pause is not needed"
    assert judged(without(zero_length=[-x for x in near])).p == p["near"]
    assert 0.05 < judged(dict.fromkeys(JUDGED, UNSURE)).p < 1
    assert math.isnan(judged(ALL_HIGH, [False] * 4).p) and math.isnan(judged({}).p)


def gain_of(p: float, sign: float = 1.0) -> pd.Series:
    """Return four gains whose two-sided p-value is p, by Student's distribution with 3 degrees of freedom."""
    shape = np.array([-1.0, -0.5, 0.5, 1.0])
    return pd.Series(sign * (shape + stats.t.isf(p / 2, 3) * shape.std(ddof=1) / 2))


def case(p: float, sign: float = 1.0, **others: float) -> Case:
    gains = dict.fromkeys(JUDGED, gain_of(p, sign)) | {name: gain_of(x) for name, x in others.items()}
    return Case(gains, pd.Series(dtype=bool))


def texts(*cases: Case) -> list[str]:
    return [found.text for found in verdicts(cases)]


def test_a_table_worked_by_hand():
    """Four cells: .0125 for the smallest p, then .0167, .025, .05, and no further than the first above it."""
    every, base = "beats every matched control", "beats the same base, not"
    assert texts(case(0.012), case(0.016), case(0.024), case(0.049)) == [every] * 4
    before = f"(before correction for 4 cells: {every})"
    assert texts(case(0.012), case(0.017), case(0.018), case(0.019)) == [every] + 3 * [
        f"cannot be told from not thinking {before}"
    ], "0.018 would be below its own 0.025, had 0.017 not stopped above 0.0167"
    assert texts(case(0.012), case(0.049), case(0.9), case(0.9)) == [
        every, f"{UNTOLD} {before}", UNTOLD, UNTOLD
    ]  # fmt: skip
    # the first passes at .05 / 3, the second stops at .05 / 2: pause is not beaten, param_matched is
    found = texts(case(0.001, pause=0.016), case(0.001, pause=0.026, param_matched=0.024), case(0.9))
    assert found == [every, f"{base} pause (before correction for 3 cells: {every})", UNTOLD]
    found = texts(case(0.001, policy_off=0.04, pause=0.9), case(0.9))
    assert found == [f"{NEVER} (before correction for 2 cells: {base} pause)", UNTOLD]
    # where only the controls named differ, only they are said again
    found = texts(case(0.001, pause=0.02, param_matched=0.9), case(0.9), case(0.9))
    correction = "(before correction for 3 cells: not param_matched)"
    assert found[0] == f"{base} pause, param_matched {correction}"
    found = texts(case(0.9, pause=0.02), case(0.9), case(0.9))
    assert found[0] == f"{UNTOLD} (before correction for 3 cells: beats pause)"
    found = texts(case(0.02, sign=-1), case(0.9), case(0.9))
    assert found == [f"{UNTOLD} (before correction for 3 cells: worse than not thinking)", UNTOLD, UNTOLD]
    assert texts(case(0.016, sign=-1), case(0.9), case(0.9))[0] == "worse than not thinking"
    assert verdicts([]) == []


def test_cells_that_cannot_have_a_word_count_all_the_same():
    lost = Case(case(0.001).gains | {"pause": gain_of(0.001)[:3]}, pd.Series(dtype=bool))
    idle = Case(case(0.001).gains, pd.Series([False] * 4))
    older = Case(
        {name: gain for name, gain in case(0.001).gains.items() if name != "pause"}, idle.started[:0]
    )
    for other in (lost, idle, older):
        assert texts(case(0.026), other)[0] != "beats every matched control"
        assert texts(case(0.024), other)[0] == "beats every matched control"
    assert texts(idle)[0] == "thoughts not used (0 of 4 seeds started)"
    # without policy_off no cell is "no better than never-rewarded thoughts"
    none = Case({n: g for n, g in case(0.02, pause=0.9).gains.items() if n != "policy_off"},
                idle.started[:0], ("policy_off",))  # fmt: skip
    zero = case(0.001, policy_off=0.9)
    third = case(0.9)
    found = texts(none, zero, third)
    assert found[0] == f"{UNTOLD} (before correction for 3 cells: beats the same base, not pause)"
    assert found[1] == NEVER


def test_a_cell_without_policy_off_counts_with_its_own_p_for_never_rewarded_thoughts():
    """Of two cells, one pathwise: its p is the smaller, so the other is held against .05."""
    gains = {name: gain for name, gain in case(0.001).gains.items() if name != "policy_off"}
    pathwise = Case(gains, pd.Series(dtype=bool), ("policy_off",))
    assert texts(pathwise, case(0.04, policy_off=0.9, pause=0.9)) == ["beats every matched control", NEVER]
    gains = dict.fromkeys(gains, gain_of(0.03))
    words = [each.word for each in verdicts([pathwise._replace(gains=gains), case(0.001, policy_off=0.9)])]
    assert words == [UNTOLD, NEVER], "it never gets the word itself"


def test_correction_never_says_more_and_never_contradicts_itself():
    """On random cells: a word after correction is no better than before, and one cell is the plain rule."""
    drawn = np.random.default_rng(0)
    for _ in range(60):
        cases = []
        for _ in range(drawn.integers(1, 6)):
            names = [name for name in JUDGED if drawn.random() < 0.95]
            gains = {n: pd.Series(drawn.normal(drawn.choice([-1, 0, 1, 2, 3]), 1, 5)) for n in names}
            cases.append(Case(gains, pd.Series(drawn.random(5) < 0.7)))
        for each, found in zip(cases, verdicts(cases), strict=True):
            (alone,) = verdicts([each])
            assert found.before == alone.word == alone.before
            if alone.word.startswith("worse"):
                assert found.word.startswith(("worse", "thoughts not used", UNTOLD))
            else:
                before = Verdict(found.before, "", 1, 0.0, "").standing
                assert found.standing >= before


def test_under_the_null_any_claim_in_a_table_is_made_one_time_in_twenty():
    """With zero_length, policy_off and the matched controls as good as thinking, seed by seed."""
    drawn, tables, cells, seeds = np.random.default_rng(1), 300, 5, 5
    false = {"corrected": 0, "plain": 0}
    for _ in range(tables):
        cases = []
        for _ in range(cells):
            thinking = drawn.normal(size=seeds)
            gains = {name: pd.Series(drawn.normal(size=seeds) - thinking) for name in JUDGED}
            cases.append(Case(gains, pd.Series(dtype=bool)))
        found = verdicts(cases)
        false["corrected"] += any(not each.word.startswith(UNTOLD) for each in found)
        false["plain"] += any(not each.before.startswith(UNTOLD) for each in found)
    error = math.sqrt(0.05 * 0.95 / tables)
    assert false["corrected"] / tables <= 0.05 + 3 * error
    assert false["plain"] / tables > 0.05 + 3 * error, "or the test could not fail"


@pytest.mark.parametrize("truth", [("zero_length",), ("zero_length", "policy_off")])
def test_a_word_beyond_the_truth_is_as_rare(truth):
    """Where thinking truly beats some controls, no cell may seem to beat more."""
    drawn, tables, cells, seeds = np.random.default_rng(2), 300, 5, 5
    allowed = (NEVER, UNTOLD) if len(truth) == 1 else ("beats the same base", NEVER, UNTOLD)
    false, few = 0, ("zero_length", "policy_off", "pause")
    for _ in range(tables):
        cases = []
        for _ in range(cells):
            gains = {n: pd.Series(drawn.normal(9.0 if n in truth else 0.0, 1, seeds)) for n in few}
            cases.append(Case(gains, pd.Series(dtype=bool), set(JUDGED) - set(few)))
        false += any(not each.word.startswith(allowed) for each in verdicts(cases))
    assert false / tables <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
