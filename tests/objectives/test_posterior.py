"""Wake-sleep, a learner of the posterior: its expected gradients under the law that draws its thoughts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives.tables import log_q_of
from toyqs.objectives.policy.wake_sleep import WakeSleep
from toyqs.objectives.rewards import tokens
from toyqs.positions import focus, thinking_positions

GROUPS = pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
STARTS = pytest.mark.parametrize("start", tiny.STARTS)
BACKBONES = pytest.mark.usefixtures("backbone")
CLOSE = 1e-12


def tuples(count: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(9)] * count).view(-1, count)


def both(every: tiny.Enumeration, objective: Any) -> tiny.Gradients:
    """E[∇ (policy + nll)] of the model's own parameters."""
    parts = objective(every.trace, every.batch).parts
    return every.expected(parts["policy"] + parts["nll"])


def inferring(
    groups: str, count: int = 2, start: str = "afresh"
) -> tuple[tiny.Enumeration, tiny.Exact, Tensor]:
    """The enumeration under an inference network's law, the plain reference, and that law (9,).

    The density is the model's own; that thoughts are drawn by it is test_sampling_loop.py's.
    """
    settings = tiny.config(
        weight_groups=groups, interpreter_start=start, objective="wake_sleep", sampler="inference"
    )
    every, truth = tiny.enumerate_tuples(settings, count), tiny.exact(settings)
    one = tiny.one_position()
    positions = thinking_positions(one)
    alone = tiny.model(settings)
    with torch.no_grad():
        context = alone.read(one.inputs, positions)
        forced = tiny.forced_everywhere(tiny.THOUGHTS[None])
        known = tokens(focus(one, positions))
        scored = alone.think(context, torch.empty(0), forced, off_policy=True, targets=known)
    law = scored.log_prob[0, tiny.AT[0], tiny.AT[1]].sum(-1)
    trace = every.trace._replace(sampler_log_prob=every.trace.inference_log_prob.detach())
    probability = law.exp()[tuples(count)].prod(-1)
    return every._replace(trace=trace, probability=probability), truth, law


def bound(truth: tiny.Exact, law: Tensor, count: int = 2) -> Tensor:
    """−E_ρ log (1/K) Σ π q / ρ, with ρ held fast."""
    joint = (truth.log_prob.sum(-1) + truth.log_q - law)[tuples(count)]
    mean = joint.logsumexp(-1) - torch.tensor(float(count)).log()
    return -(law.exp()[tuples(count)].prod(-1) * mean).sum()


@STARTS
@GROUPS
@BACKBONES
def test_wake_sleep_climbs_its_bound(groups: str, start: str) -> None:
    every, truth, law = inferring(groups, start=start)
    assert abs(float(law.exp().sum()) - 1) < CLOSE
    own = truth.log_prob.detach().sum(-1)
    assert float((law - own).abs().max()) > 0.1, "the policy is another law"
    tiny.close(both(every, WakeSleep()), truth.gradient(bound(truth, law)), CLOSE)


def of_network(grads: tiny.Gradients) -> tiny.Gradients:
    return {name: g for name, g in grads.items() if name.startswith("sampler.")}


@GROUPS
def test_the_inference_network_climbs_the_weighted_likelihood_of_its_thoughts(groups: str) -> None:
    """By the weights of a plain reference; the control variate, 1 / K, is 0 in expectation."""
    every, truth, law = inferring(groups)
    parts = WakeSleep()(every.trace, every.batch).parts
    found = every.expected(parts["inference"])
    index = tuples(2)
    weights = (truth.log_prob.sum(-1) + truth.log_q - law)[index].softmax(-1).detach()
    at = every.trace.inference_log_prob[:, tiny.AT[0], tiny.AT[1]].sum(-1)
    wanted = every.expected(-(weights * at).sum(-1))
    assert float(tiny.flat({n: g[None] for n, g in of_network(wanted).items()}).norm()) > 1e-4
    tiny.close(found, wanted, CLOSE)
    others = {name: g for name, g in found.items() if not name.startswith("sampler.")}
    assert all(not g.any() for g in others.values()), "it trains itself alone"


def at_rest(every: tiny.Enumeration) -> tiny.Enumeration:
    """π q is ρ times a constant: then ρ is the posterior."""
    rest = every.trace.sampler_log_prob.sum(-1) - every.trace.log_prob.detach().sum(-1)
    return every._replace(trace=every.trace._replace(penalty=log_q_of(every).detach() - rest))


def test_the_inference_network_rests_at_the_posterior() -> None:
    every, *_ = inferring("ABCD")
    found = at_rest(every)
    parts = WakeSleep()(found.trace, found.batch).parts
    for gradient in of_network(found.expected(parts["inference"])).values():
        assert float(gradient.abs().max()) < CLOSE


def without_density(every: tiny.Enumeration) -> tiny.Enumeration:
    own = every.trace.log_prob.detach()
    return every._replace(trace=every.trace._replace(sampler_log_prob=own))


def of_the_other_side(every: tiny.Enumeration) -> tiny.Enumeration:
    """Thoughts of the policy, weighed as if the inference network had drawn them."""
    own = every.trace.log_prob.detach()[:, tiny.AT[0], tiny.AT[1]].sum((-1, -2)).exp()
    return every._replace(probability=own)


@pytest.mark.parametrize("mutant", [without_density, of_the_other_side], ids=lambda f: f.__name__)
@GROUPS
def test_a_broken_wake_sleep_is_caught(groups: str, mutant: Callable[..., tiny.Enumeration]) -> None:
    every, truth, law = inferring(groups)
    with pytest.raises(AssertionError, match="off by"):
        tiny.close(both(mutant(every), WakeSleep()), truth.gradient(bound(truth, law)), 1e-6)
