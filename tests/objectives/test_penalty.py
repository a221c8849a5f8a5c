"""What is taken from a thought's reward: the policy pays it, the predictor knows nothing of it."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from toyqs.objectives.policy.reinforce import Reinforce

BACKBONES = pytest.mark.usefixtures("backbone")


def costs(every: tiny.Enumeration, cost: torch.Tensor) -> torch.Tensor:
    """Each thought's cost (9,), where the tuples have that thought, (S, B, T, K)."""
    index = torch.cartesian_prod(*[torch.arange(len(tiny.THOUGHTS))] * 2).view(-1, 1, 1, 2)
    return cost[index].expand(every.trace.log_prob.shape[:-1])


@pytest.mark.parametrize("groups", tiny.PATTERNS)
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
@BACKBONES
def test_the_policy_climbs_reward_less_penalty(groups: str, baseline: str) -> None:
    settings = tiny.config(weight_groups=groups)
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    cost = torch.linspace(-1.0, 2.0, len(tiny.THOUGHTS)).double()
    parts = Reinforce(baseline=baseline)(every.trace._replace(penalty=costs(every, cost)), every.batch).parts
    got = every.expected(parts["policy"] + parts["nll"])
    tiny.close(got, truth.gradient(-(truth.probability * (truth.log_q - cost)).sum()))


def test_an_equal_penalty_vanishes_under_a_group_baseline() -> None:
    every = tiny.enumerate_tuples(tiny.config(), 2)
    plain = Reinforce()(every.trace, every.batch)
    equal = torch.full(every.trace.log_prob.shape[:-1], 0.7, dtype=torch.float64)
    charged = Reinforce()(every.trace._replace(penalty=equal), every.batch)
    for name, part in plain.parts.items():
        torch.testing.assert_close(charged.parts[name], part, rtol=0, atol=1e-12)
    torch.testing.assert_close(charged.reward, plain.reward - 0.7, rtol=0, atol=1e-12)
