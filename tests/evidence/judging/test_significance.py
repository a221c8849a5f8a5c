"""P-values against scipy's t-test; Holm's correction by hand and against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from toyqs.evidence.judging.gain import interval
from toyqs.evidence.judging.significance import holm_bar, p_value


def test_p_is_that_of_a_paired_t_test():
    drawn = np.random.default_rng(0)
    for seeds in (2, 4, 9):
        control, thinking = drawn.normal(1, 1, seeds), drawn.normal(size=seeds)
        assert p_value(control - thinking) == pytest.approx(stats.ttest_rel(control, thinking).pvalue)
        gain = interval(control - thinking)
        assert (p_value(control - thinking) < 0.05) == (not gain.lower <= 0 <= gain.upper)


def test_p_at_the_edges():
    assert p_value([0.1] * 4) == p_value([-0.1] * 4) == 0.0
    assert p_value([0.0] * 4) == 1.0
    assert math.isnan(p_value([])) and math.isnan(p_value([1.0]))
    assert math.isnan(p_value([1.0, math.nan, 2.0])) and math.isnan(p_value([1.0, math.inf]))


@pytest.mark.parametrize(
    ("p_values", "bar"),
    [
        ([0.03], 0.05),
        ([0.06], 0.05),
        # 0.01 is at most .05 / 4, 0.013 at most .05 / 3, 0.03 is more than .05 / 2: two pass
        ([0.013, 0.04, 0.01, 0.03], 0.05 / 2),
        ([0.02, 0.02, 0.02], 0.05 / 3),
        ([0.001, 0.02, 0.04], 0.05),
        ([1.0, 1.0], 0.05 / 2),
        ([0.0, 0.0], 0.05),
    ],
)
def test_the_bar_by_hand(p_values, bar):
    assert holm_bar(p_values) == bar


def adjusted(p_values):
    """Return Holm's adjusted p-values, by their definition: max over j ≤ i of min(1, (m − j + 1) p(j))."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found, most = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = most
    return found


def closed(p_values, level):
    """Return which hypotheses the closed Bonferroni test rejects, which is Holm's by its proof."""
    number = len(p_values)
    subsets = [[i for i in range(number) if mask >> i & 1] for mask in range(1, 2**number)]
    return [
        all(min(p_values[j] for j in s) <= level / len(s) for s in subsets if i in s) for i in range(number)
    ]


def test_the_bar_rejects_what_holm_does():
    drawn = np.random.default_rng(3)
    rejected = 0
    for _ in range(400):
        p_values = list(drawn.random(drawn.integers(1, 7)) ** drawn.choice([1, 4, 8]))
        level = drawn.choice([0.05, 0.2])
        passed = [bool(p <= holm_bar(p_values, level)) for p in p_values]
        assert passed == [bool(p <= level) for p in adjusted(p_values)] == closed(p_values, level)
        rejected += sum(passed)
    assert 300 < rejected < 1200
