"""Seeds that diverged are named with the step and the part of the loss, in every table."""

from __future__ import annotations

import math

import pandas as pd

from tests.evidence.tables.test_comparison import arm, arms, finding
from toyqs.evidence.figures.comparison import comparison_figure
from toyqs.evidence.judging.findings import without_thought
from toyqs.evidence.tables.comparison import comparison_table
from toyqs.evidence.tables.divergence import divergence_notes
from toyqs.evidence.tables.sweep import sweep_table


def lost() -> pd.DataFrame:
    """Return an arm of two seeds that diverged."""
    parts = ["nll, policy", "nll"]
    frame = arm([math.nan, math.nan])
    return frame.assign(diverged_at=[2.0, 30.0], diverged_parts=parts, largest_logit=[math.nan, 3e30])


def test_the_step_the_parts_and_the_largest_logit_are_said():
    text = divergence_notes({"thinking": lost()})[0]
    assert (
        "seed 1 at step 2 (nll, policy; a logit is not finite), 2 at step 30 (nll; largest logit 3e+30)"
        in text
    )
    assert divergence_notes({"thinking": arm([1.0, math.nan])})[0].startswith("Diverged: thinking, seed 2;")
    assert divergence_notes({"thinking": arm([1.0, 2.0]), "zero_length": pd.DataFrame()}) == []


def test_a_model_that_diverged_is_not_said_to_need_its_thoughts():
    assert without_thought(arm([math.nan], nll_no_thought=None))
    assert not without_thought(arm([math.nan, 1.0], nll_no_thought=None)), "the other seed's row knows"
    assert without_thought(arm([math.nan, 1.0], nll_no_thought=2.0))


def test_a_finite_loss_beyond_all_reason_is_said():
    frame = arm([996304608256.0, 1.5, 17.9, 18.1], uniform_nll=1.8)
    first, remedy = divergence_notes({"thinking": frame})
    assert first == "Far above the loss of a uniform guess: thinking, seed 1 (9.96e+11 nats), 4 (18.1 nats)."
    assert "base_lr" in remedy


def test_every_table_comes_where_all_seeds_diverged(tmp_path):
    table = " ".join(comparison_table(finding({"thinking": lost()})).split())
    assert "thinking diverged" in table and "at step 30 (nll; largest logit 3e+30)" in table
    both = [finding({"thinking": lost()}, lr=1), finding(arms(), lr=2)]
    sweep = " ".join(sweep_table(both, ["lr"]).split())
    assert "lr=1: Diverged: thinking, seed 1 at step 2" in sweep
    curve = pd.DataFrame({"step": [1, 2], "nll": [None, None]})
    comparison_figure(finding({"thinking": lost()}), {"thinking": {1: curve}}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
