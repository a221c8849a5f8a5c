"""Multi-sample bounds: the gradient of E log (1/K) Σ q, by enumeration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives.tables import BACKBONES, PATTERNS, STARTS, expected
from toyqs.objectives.losses import log_mean_exp
from toyqs.objectives.policy.reinforce import MultiSample, Reinforce


def bound(truth: tiny.Exact, count: int) -> Tensor:
    """Σ_tuples P(tuple) log mean q, differentiable in everything."""
    index = torch.cartesian_prod(*[torch.arange(len(tiny.THOUGHTS))] * count).view(-1, count)
    probability = truth.log_prob.sum(-1)[index].sum(-1).exp()
    return (probability * log_mean_exp(truth.log_q[index])).sum()


@STARTS
@PATTERNS
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
@BACKBONES
def test_multi_sample_climbs_the_bound(baseline: str, groups: str, start: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start)
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    got = expected(every, MultiSample(baseline=baseline), "policy", "nll")
    tiny.close(got, truth.gradient(-bound(truth, 2)))


def test_the_bound_rises_with_k_to_the_log_marginal() -> None:
    truth = tiny.exact(tiny.config(interpreter_start="onward"))
    bounds = [float(bound(truth, count).detach()) for count in (1, 2, 3, 4)]
    marginal = float((truth.probability * truth.log_q.exp()).sum().log().detach())
    assert bounds == sorted(bounds) and bounds[0] < bounds[-1] - 1e-4 < marginal
    assert abs(bounds[0] - float((truth.probability * truth.log_q).sum().detach())) < 1e-12


def test_the_bounds_gradient_by_finite_differences() -> None:
    settings = tiny.config(weight_groups="ABCD")
    got = expected(tiny.enumerate_tuples(settings, 2), MultiSample(), "policy", "nll")
    for name in ("thought_head.projection.weight", "head.weight_0", "cores.D.markers.weight"):
        flat = got[name].flatten()
        place = int(flat.abs().argmax())
        values = []
        for step in (1e-5, -1e-5):
            model = tiny.model(settings)
            model.get_parameter(name).data.view(-1)[place] += step
            values.append(float(bound(tiny.exact_of(model, settings), 2).detach()))
        slope = -(values[0] - values[1]) / 2e-5
        assert abs(slope - float(flat[place])) < 1e-8, name


@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
@BACKBONES
def test_multi_sample_of_one_is_reinforce_without_a_baseline(groups: str) -> None:
    every = tiny.enumerate_tuples(tiny.config(weight_groups=groups), 1)
    got = expected(every, MultiSample(baseline="none"), "policy", "nll")
    tiny.close(got, expected(every, Reinforce(baseline="none"), "policy", "nll"), tolerance=1e-13)


def averaged(every: tiny.Enumeration) -> tiny.Gradients:
    """A multi-sample loss whose score part averages over the thoughts, as Reinforce rightly does."""
    parts = MultiSample(baseline="none")(every.trace, every.batch).parts
    return every.expected(parts["policy"] / 2 + parts["nll"])


def test_a_bound_whose_score_part_averages_is_caught() -> None:
    settings = tiny.config(weight_groups="ABCD")
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    with pytest.raises(AssertionError, match="off by"):
        tiny.close(averaged(every), truth.gradient(-bound(truth, 2)))
