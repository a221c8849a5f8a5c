"""Pairing, intervals, and when a gain begins."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from toyqs.evidence.judging.gain import interval, onset, paired_gains, reasoning_gain


def arm(values, seeds=None):
    seeds = range(1, len(values) + 1) if seeds is None else seeds
    return pd.DataFrame({"seed": list(seeds), "nll": values})


def test_interval_is_students():
    values = np.random.default_rng(0).normal(size=6)
    found = interval(values, confidence=0.9)
    low, high = stats.t.interval(0.9, 5, loc=values.mean(), scale=stats.sem(values))
    assert (found.lower, found.upper, found.count) == (pytest.approx(low), pytest.approx(high), 6)


def test_interval_at_the_edges():
    assert interval([0.1, 0.1, 0.1]).half_width == 0
    one = interval([0.3])
    assert one.mean == 0.3 and math.isnan(one.half_width)
    for lost in (math.nan, math.inf):
        found = interval([0.3, lost, 0.4])
        assert math.isnan(found.mean) and math.isnan(found.half_width) and found.count == 3
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_gain_pairs_by_seed_and_keeps_a_diverged_one():
    control = arm([1.0, 2.0, 3.0, 9.0], seeds=[3, 1, 2, 7])
    found = reasoning_gain(arm([0.5, math.nan, 0.25], seeds=[1, 2, 3]), control)
    assert list(found.index) == [1, 2, 3]
    assert found[1] == 1.5 and math.isnan(found[2]) and found[3] == 0.75


def test_gain_refuses_what_cannot_be_paired():
    with pytest.raises(ValueError, match="no seed in common"):
        reasoning_gain(arm([1.0]), arm([1.0], seeds=[9]))
    with pytest.raises(ValueError, match="no seed in common"):
        reasoning_gain(arm([1.0]), pd.DataFrame())
    with pytest.raises(ValueError, match="two rows for one seed"):
        reasoning_gain(arm([1.0]), arm([1.0, 1.0], seeds=[1, 1]))


def test_a_control_without_a_common_seed_is_left_out():
    thinking, paired, apart = arm([1.0, 2.0]), arm([2.5, 4.0], seeds=[2, 3]), arm([1.0], seeds=[9])
    arms = {"thinking": thinking, "no_reasoner": apart, "zero_length": paired, "policy_off": pd.DataFrame()}
    found = paired_gains(arms)
    assert {name: gain.to_dict() for name, gain in found.items()} == {"zero_length": {2: 0.5}}
    assert paired_gains(arms | {"thinking": pd.DataFrame()}) == {}


def test_onset_is_the_first_step_above_chance() -> None:
    steps = [10, 20, 30, 40]
    control = pd.DataFrame(dict.fromkeys((1, 2, 3), 1.0), index=steps)
    thinking = pd.DataFrame(
        {1: [1.0, 0.5, 0.7, 0.1], 2: [1.0, 1.0, 0.71, 0.2], 3: [1.0, 0.9, 0.69, 0.1]}, index=steps
    )
    assert onset(thinking, control) == 30
    early = thinking.copy()
    early.loc[10] = 0.99, 0.98, 0.985
    assert onset(early, control) == 30, "what is gone at the next evaluation was no onset"
    assert onset(control, control) is None, "a gain of nothing is not above 0"
    assert onset(control, thinking) is None
    assert onset(thinking[[1]], control) is None, "one seed has no interval"
    assert onset(thinking.drop(index=30), control) == 40, "only what both were measured at"
    assert onset(thinking.assign(**{"2": float("nan")}).iloc[::-1], control) == 30
    lost = thinking.copy()
    lost.loc[30, 2] = float("nan")
    assert onset(lost, control) == 40, "a seed that diverged there is not left out"
    assert onset(pd.DataFrame(), control) is None
