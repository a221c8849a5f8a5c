"""Thoughts drawn by another law than the policy's: the enumeration has that law's probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives.tables import log_q_of
from toyqs.config.run_config import RunConfig
from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.policy.logz import LogZ, log_z_of_others, logz
from toyqs.objectives.policy.maxent import VarGrad, vargrad
from toyqs.objectives.policy.ranking import Listwise, WeightedMLE, listwise, plackett_luce, weighted_mle
from toyqs.objectives.policy.reinforce import ClippedReinforce
from toyqs.objectives.registry import registry
from toyqs.positions import focus, thinking_positions

BACKBONES = pytest.mark.usefixtures("backbone")
BETA, TEMPERATURE = 0.4, 1.7
PATTERNS = pytest.mark.parametrize("groups", tiny.PATTERNS)
FEW = pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
SAMPLERS = pytest.mark.parametrize("sampler", ["uniform", "tempered"])


def config(sampler: str, groups: str = "ABCD", **changes: Any) -> RunConfig:
    plain = {"objective": "vargrad", "sampler_temperature": TEMPERATURE}
    return tiny.config(weight_groups=groups, sampler=sampler, **(plain | changes))


def law(sampler: str, truth: tiny.Exact) -> Tensor:
    """Log-probability (9,) of each thought under the sampler, from the plain reference's policy."""
    if sampler == "uniform":
        return torch.full((9,), -tiny.LENGTH * math.log(tiny.SYMBOLS), dtype=torch.float64)
    flat = truth.log_prob.detach().view(tiny.SYMBOLS, tiny.SYMBOLS, tiny.LENGTH) / TEMPERATURE
    first, second = flat[:, :1, 0].log_softmax(0), flat[:, :, 1].log_softmax(1)
    return (first + second).flatten()


def drawn_by(settings: RunConfig, count: int) -> tuple[tiny.Enumeration, tiny.Exact, Tensor]:
    """The enumeration under the sampler's law with its density in the trace, and the law (9,).

    The density is the model's own, the law the plain reference's.
    """
    every, truth = tiny.enumerate_tuples(settings, count), tiny.exact(settings)
    known = law(settings.sampler, truth)
    copies = tiny.repeated(tiny.one_position(), len(every.probability))
    context = every.built.read(copies.inputs, thinking_positions(copies))
    with torch.no_grad():
        scored = every.built.think(context, torch.empty(0), every.trace.symbols, off_policy=True)
    density = scored.log_prob
    probability = known.exp()[tuples(count)].prod(-1)
    return (
        every._replace(trace=every.trace._replace(sampler_log_prob=density), probability=probability),
        truth,
        known,
    )


def tuples(count: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(9)] * count).view(-1, count)


def expected(every: tiny.Enumeration, objective: ThoughtObjective) -> tiny.Gradients:
    """E[∇ policy] over the tuples as drawn."""
    return every.expected(objective(every.trace, every.batch).parts["policy"])


@SAMPLERS
@PATTERNS
@BACKBONES
def test_the_density_is_that_of_the_law(sampler: str, groups: str) -> None:
    every, _, known = drawn_by(config(sampler, groups), 2)
    got = every.trace.sampler_log_prob[:, tiny.AT[0], tiny.AT[1]].sum(-1)
    torch.testing.assert_close(got, known[tuples(2)], rtol=0, atol=1e-12)
    assert abs(float(every.probability.sum()) - 1) < 1e-12
    own = every.trace.log_prob.detach().sum(-1)[:, tiny.AT[0], tiny.AT[1]]
    assert float((own - got).abs().max()) > 0.1, "the policy's is another"


CLIP_NEVER = 1e9


def policy_gradient(truth: tiny.Exact) -> tiny.Gradients:
    """−∇ Σ_h π(h) sg r(h)."""
    return truth.gradient(-(truth.probability * truth.log_q.detach()).sum())


@SAMPLERS
@PATTERNS
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
@BACKBONES
def test_a_ratio_to_the_density_leaves_the_gradient_exact(baseline: str, sampler: str, groups: str) -> None:
    every, truth, _ = drawn_by(config(sampler, groups), 2)
    objective = ClippedReinforce(baseline=baseline, clip_ratio=CLIP_NEVER)
    tiny.close(expected(every, objective), policy_gradient(truth))


def own_density(every: tiny.Enumeration) -> tiny.Enumeration:
    """The mutant: log π stands in place of the density."""
    own = every.trace.log_prob.detach()
    return every._replace(trace=every.trace._replace(sampler_log_prob=own))


@SAMPLERS
@BACKBONES
def test_log_pi_in_place_of_the_density_is_caught(sampler: str) -> None:
    objective = ClippedReinforce(baseline="none", clip_ratio=CLIP_NEVER)
    for groups in ("AAAA", "ABCD"):
        every, truth, _ = drawn_by(config(sampler, groups), 2)
        with pytest.raises(AssertionError, match="off by"):
            tiny.close(expected(own_density(every), objective), policy_gradient(truth))


PLAIN: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "listwise": lambda r, log_pi, density: listwise(r, log_pi, BETA),
    "vargrad": lambda r, log_pi, density: vargrad(r, log_pi, BETA),
    "plackett_luce": lambda r, log_pi, density: plackett_luce(r, log_pi),
    "weighted_mle": lambda r, log_pi, density: weighted_mle(r, log_pi, BETA, density),
    "logz_learned": lambda r, log_pi, density: logz(
        r, log_pi, BETA, torch.tensor(0.3, dtype=torch.float64)
    ).mean(-1),
}


@SAMPLERS
@FEW
@pytest.mark.parametrize("method", PLAIN)
@BACKBONES
def test_every_method_meets_rewards_policy_and_density(method: str, sampler: str, groups: str) -> None:
    every, truth, known = drawn_by(config(sampler, groups), 2)
    log_z = torch.full((*every.trace.log_prob.shape[:3], 1), 0.3 * BETA, dtype=torch.float64)
    every = every._replace(trace=every.trace._replace(correction=log_z))
    index = tuples(2)
    log_pi, density = (x[index][:, None, None] for x in (truth.log_prob.sum(-1), known))
    each = PLAIN[method](truth.log_q.detach()[index][:, None, None], log_pi, density).flatten()
    wanted = truth.gradient((known.exp()[index].prod(-1) * each).sum())
    more = {} if method == "plackett_luce" else {"temperature": BETA}
    tiny.close(expected(every, registry()[method](**more)), wanted)


@FEW
@pytest.mark.parametrize("method", ["vargrad", "logz_learned"])
def test_trajectory_balance_of_the_tempered_law_itself_is_caught(method: str, groups: str) -> None:
    """Thoughts come from the tempered law, and the policy's own log π has to meet their rewards."""
    every, truth, known = drawn_by(config("tempered", groups), 2)
    log_z = torch.full((*every.trace.log_prob.shape[:3], 1), 0.3 * BETA, dtype=torch.float64)
    copies = tiny.repeated(tiny.one_position(), len(every.probability))
    context = every.built.read(copies.inputs, thinking_positions(copies))
    tempered = every.built.think(context, torch.empty(0), every.trace.symbols, off_policy=True).log_prob
    index = tuples(2)
    log_pi, density = (x[index][:, None, None] for x in (truth.log_prob.sum(-1), known))
    each = PLAIN[method](truth.log_q.detach()[index][:, None, None], log_pi, density).flatten()
    wanted = truth.gradient((known.exp()[index].prod(-1) * each).sum())
    right = every._replace(trace=every.trace._replace(correction=log_z))
    mutant = every._replace(trace=right.trace._replace(log_prob=tempered))
    tiny.close(expected(right, registry()[method](temperature=BETA)), wanted, 1e-12)
    with pytest.raises(AssertionError, match="off by"):
        tiny.close(expected(mutant, registry()[method](temperature=BETA)), wanted, 1e-6)


@SAMPLERS
def test_the_estimate_of_log_z_weighs_by_the_density(sampler: str) -> None:
    every, _, known = drawn_by(config(sampler), 3)
    reward, log_pi = log_q_of(every).detach(), every.trace.log_prob.sum(-1)
    at = (slice(None), *(slice(i, i + 1) for i in tiny.AT))
    found = LogZ(temperature=BETA).policy_loss(reward, every.trace, every.batch)[at]
    faults = []
    for density in (known[tuples(3)][:, None, None], log_pi.detach()[at]):
        log_z, samples = log_z_of_others(reward[at], BETA, density)
        each = logz(reward[at], log_pi[at], BETA, log_z)
        faults.append(each.where(samples >= 2 * (1 - 1e-6), 0.0).mean(-1))
    torch.testing.assert_close(found, faults[0], rtol=0, atol=1e-10)
    assert not torch.allclose(found, faults[1])


def at_the_optimum(every: tiny.Enumeration) -> tiny.Enumeration:
    """Rewards r = β log π + a constant, by a penalty: then π is π* ∝ exp(r / β)."""
    reward, log_pi = log_q_of(every).detach(), every.trace.log_prob.detach().sum(-1)
    return every._replace(trace=every.trace._replace(penalty=reward - BETA * log_pi + 0.6))


def size(gradients: tiny.Gradients) -> float:
    return float(tiny.flat({name: g[None] for name, g in gradients.items()}).norm())


@PATTERNS
@pytest.mark.parametrize("kind", [VarGrad, Listwise])
@BACKBONES
def test_the_optimum_is_the_best_policy_whatever_law_draws(kind: type[ThoughtObjective], groups: str) -> None:
    every, *_ = drawn_by(config("uniform", groups), 2)
    objective = kind(temperature=BETA)
    best = at_the_optimum(every)
    tiny.close(
        expected(best, objective), {n: torch.zeros_like(p[0]) for n, p in best.built.named_parameters()}
    )
    assert size(expected(every, objective)) > 1e-4


def whole_space(sampler: str, groups: str) -> tiny.Enumeration:
    """One group that holds every thought once, with the density that the sampler gives it."""
    settings = config(sampler, groups, objective="weighted_mle", trice_samples=9)
    built, one = tiny.model(settings), tiny.one_position()
    positions = thinking_positions(one)
    forced = tiny.forced_everywhere(tiny.THOUGHTS[None])
    trace = built(one.inputs, positions, torch.empty(0), forced)
    with torch.no_grad():
        scored = built.think(built.read(one.inputs, positions), torch.empty(0), forced, off_policy=True)
    trace = trace._replace(sampler_log_prob=scored.log_prob)
    return tiny.Enumeration(built, trace, focus(one, positions), torch.ones(1).double())


@PATTERNS
@BACKBONES
def test_weighted_mle_of_the_whole_space_is_exact(groups: str) -> None:
    """Drawn uniformly, each thought once: the gradient is that of −Σ π* log π, zero where π is π*."""
    every = whole_space("uniform", groups)
    objective, best = WeightedMLE(temperature=BETA), at_the_optimum(every)
    nothing = {name: torch.zeros_like(p[0]) for name, p in every.built.named_parameters()}
    tiny.close(expected(best, objective), nothing)
    truth = tiny.exact(config("uniform", groups))
    star = (truth.log_q.detach() / BETA).softmax(0)
    tiny.close(expected(every, objective), truth.gradient(-(star * truth.log_prob.sum(-1)).sum()))
    with pytest.raises(AssertionError, match="off by"):
        tiny.close(expected(own_density(best), objective), nothing)
