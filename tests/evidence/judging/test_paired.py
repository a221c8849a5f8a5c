"""Differences tested together: Holm's correction over all of them, and what cannot be tested."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats

from toyqs.evidence.judging.paired import compare, p_text


def test_holm_over_all_that_can_be_tested() -> None:
    """p of .02 is beyond chance alone, and not beside two others that are not."""
    drawn = {"one": [1.0, 2.0, 2.5, 1.2], "two": [1.0, -1.0, 0.5, -0.6], "three": [0.2, 1.1, -0.9, 0.1]}
    given = {name: pd.Series(values, range(4)) for name, values in drawn.items()}
    found = compare(given)
    for name, values in drawn.items():
        expected = stats.ttest_1samp(values, 0.0)
        assert found[name].p == pytest.approx(expected.pvalue)
        low, high = expected.confidence_interval(0.95)
        assert (found[name].interval.lower, found[name].interval.upper) == pytest.approx((low, high))
    assert 0.05 / 3 < found["one"].p < 0.05
    assert [x.beyond_chance for x in found.values()] == [False, False, False]
    assert compare({"one": given["one"]})["one"].beyond_chance
    beside = compare({"one": given["one"], "alone": pd.Series([1.0]), "lost": pd.Series([1.0, math.nan])})
    assert beside["one"].beyond_chance, "what cannot be tested is not counted"
    assert not beside["alone"].beyond_chance and math.isnan(beside["alone"].p)
    assert not beside["lost"].beyond_chance and math.isnan(beside["lost"].interval.mean)


def test_p_values_in_words() -> None:
    assert [p_text(p) for p in (0.02134, 0.00004, 1.0, math.nan)] == [".0213", "<.0001", "1.0000", "–"]
