"""Policy losses with a temperature, summed over every group of thoughts of a small world."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.objectives.worlds import (
    BEST,
    BETA,
    LOGITS,
    REWARDS,
    THOUGHTS,
    expected_gradient,
    gradient_of,
    groups,
    near,
    numbers,
    soft_value,
)
from toyqs.objectives.advantages import leave_one_out
from toyqs.objectives.losses import score_function_loss
from toyqs.objectives.policy.logz import effective_others, log_z_of_others, logz
from toyqs.objectives.policy.maxent import maxent, vargrad
from toyqs.objectives.policy.ranking import listwise, plackett_luce, weighted_mle
from toyqs.objectives.policy.tempered import Temperature

ZERO = torch.zeros(THOUGHTS, dtype=torch.float64)
UNIFORM = torch.full((THOUGHTS,), 1 / THOUGHTS, dtype=torch.float64)
SKEWED = numbers(5).softmax(0)  # a law of its own, neither the policy's nor uniform
LAWS = pytest.mark.parametrize("law", [None, UNIFORM, SKEWED], ids=["policy", "uniform", "skewed"])


def soft_gradient(beta: float = BETA) -> Tensor:
    return gradient_of(lambda logits: -soft_value(logits, beta))


def test_the_best_policy_is_the_best() -> None:
    """What the oracles below hold for the optimum is one."""
    near(gradient_of(lambda logits: soft_value(logits, BETA), BEST), ZERO)
    assert float(soft_value(BEST, BETA)) > float(soft_value(LOGITS, BETA)) + 0.1


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("beta", [0.0, 0.3, BETA])
def test_maxent_climbs_reward_and_entropy(count: int, beta: float) -> None:
    near(expected_gradient(partial(maxent, beta=beta), count), soft_gradient(beta))


def test_maxent_of_temperature_zero_is_reinforce() -> None:
    def reinforce(rewards: Tensor, log_prob: Tensor) -> Tensor:
        return score_function_loss(rewards - leave_one_out(rewards), log_prob.unsqueeze(-1))

    near(expected_gradient(partial(maxent, beta=0.0), 2), expected_gradient(reinforce, 2))


@pytest.mark.parametrize("count", [2, 3])
def test_vargrad_is_maxent_on_policy_group_by_group(count: int) -> None:
    index = groups(count)
    grads = []
    for loss in (vargrad, maxent):
        log_prob = LOGITS.log_softmax(0)[index][:, None, None].requires_grad_()
        (gradient,) = torch.autograd.grad(loss(REWARDS[index][:, None, None], log_prob, BETA).sum(), log_prob)
        grads.append(gradient)
    near(*grads)


@LAWS
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("method", [vargrad, listwise])
def test_the_optimum_is_the_best_policy_whatever_law_draws(method, count: int, law: Tensor | None) -> None:
    near(expected_gradient(partial(method, beta=BETA), count, BEST, law), ZERO)
    assert float(expected_gradient(partial(method, beta=BETA), count, LOGITS, law).norm()) > 1e-2


@pytest.mark.parametrize("method", [vargrad, listwise])
def test_descending_arrives_there(method) -> None:
    logits = LOGITS.clone()
    for _ in range(500):
        logits -= 1.0 * expected_gradient(partial(method, beta=BETA), 2, logits, UNIFORM)
    near(logits.softmax(0), BEST.softmax(0), 1e-6)


def test_listwise_of_one_and_of_two() -> None:
    near(expected_gradient(partial(listwise, beta=BETA), 1), ZERO)
    log_prob, rewards = numbers(3, 2).view(1, 1, 1, 2), numbers(4, 2).view(1, 1, 1, 2)
    share = torch.sigmoid((rewards[..., 0] - rewards[..., 1]) / BETA)
    margin = log_prob[..., 0] - log_prob[..., 1]
    wanted = -share * torch.nn.functional.logsigmoid(margin)
    wanted = wanted - (1 - share) * torch.nn.functional.logsigmoid(-margin)
    near(listwise(rewards, log_prob, BETA), wanted)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_rankings_of_plackett_and_luce_are_all_there_is(count: int) -> None:
    """Over the K! rankings the probabilities add up to 1; the first is drawn by the policy itself."""
    log_prob = numbers(3, count).log_softmax(0)
    total, first = 0.0, torch.zeros(count, dtype=torch.float64)
    for order in itertools.permutations(range(count)):
        rewards = torch.empty(count, dtype=torch.float64)
        rewards[list(order)] = torch.arange(count, 0, -1).double()
        loss = plackett_luce(rewards.view(1, 1, 1, -1), log_prob.view(1, 1, 1, -1))
        total += math.exp(-float(loss))
        first[order[0]] += math.exp(-float(loss))
    assert abs(total - 1) < 1e-12
    near(first, log_prob.exp())


def test_plackett_luce_of_two_is_a_preference_without_a_reference() -> None:
    log_prob = numbers(3, 2).view(1, 1, 1, 2)
    margin = log_prob[..., 1] - log_prob[..., 0]
    got = plackett_luce(torch.tensor([-1.0, 3.0]).view(1, 1, 1, 2), log_prob)
    near(got, -torch.nn.functional.logsigmoid(margin))


def whole_space(loss: Temperature, logits: Tensor) -> Tensor:
    """The gradient where the group is every thought once, as drawn uniformly."""
    logits = logits.clone().requires_grad_()
    log_prob = logits.log_softmax(0).view(1, 1, 1, -1)
    (gradient,) = torch.autograd.grad(loss(REWARDS.view(1, 1, 1, -1), log_prob).sum(), logits)
    return gradient


def test_weighted_mle_of_the_whole_space_is_exact() -> None:
    flat = torch.zeros(1, 1, 1, THOUGHTS).double()
    loss = partial(weighted_mle, beta=BETA, sampler_log_prob=flat)
    near(whole_space(loss, BEST), ZERO)
    wanted = gradient_of(lambda logits: -(BEST.softmax(0) * logits.log_softmax(0)).sum())
    near(whole_space(loss, LOGITS), wanted)


def test_weighted_mle_is_biased_at_finite_k() -> None:
    """Drawn uniformly, at the optimum: the normalised weights of a few thoughts pull it away."""

    def uniform(rewards: Tensor, log_prob: Tensor) -> Tensor:
        return weighted_mle(rewards, log_prob, BETA, torch.zeros_like(log_prob))

    biases = [float(expected_gradient(uniform, count, BEST, UNIFORM).norm()) for count in (1, 2, 3, 4, 5)]
    assert biases == sorted(biases, reverse=True) and 0.01 < biases[-1] < 0.6 * biases[0]


def test_weighted_mle_without_the_density_collapses_on_policy() -> None:
    """At the optimum the density keeps it where it is; without, each step costs entropy, to the end."""

    def on_policy(rewards: Tensor, log_prob: Tensor, density: float) -> Tensor:
        return weighted_mle(rewards, log_prob, BETA, density * log_prob.detach())

    near(expected_gradient(partial(on_policy, density=1.0), 3, BEST), ZERO)
    logits, entropies = BEST.clone(), []
    for step in range(751):
        if step % 250 == 0:
            entropies.append(float(soft_value(logits, 1.0) - soft_value(logits, 0.0)))
        logits -= 4.0 * expected_gradient(partial(on_policy, density=0.0), 3, logits)
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[0] > 1.0 and entropies[-1] < 0.1


@pytest.mark.parametrize("log_z", [-2.0, 0.0, 1.5])
def test_logz_climbs_reward_and_entropy_for_any_constant(log_z: float) -> None:
    def loss(rewards: Tensor, log_prob: Tensor) -> Tensor:
        return logz(rewards, log_prob, BETA, torch.tensor(log_z).double()).mean(-1)

    near(expected_gradient(loss, 1), soft_gradient())


@pytest.mark.parametrize("law", [UNIFORM, SKEWED], ids=["uniform", "skewed"])
def test_off_policy_logz_needs_the_right_constant(law: Tensor) -> None:
    def loss(rewards: Tensor, log_prob: Tensor, fault: float) -> Tensor:
        return logz(rewards, log_prob, BETA, BEST.logsumexp(0) + fault).mean(-1)

    near(expected_gradient(partial(loss, fault=0.0), 1, BEST, law), ZERO)
    assert float(expected_gradient(partial(loss, fault=0.5), 1, BEST, law).norm()) > 1e-2


def estimated(rewards: Tensor, log_prob: Tensor) -> Tensor:
    log_z, _ = log_z_of_others(rewards, BETA, log_prob.detach())
    return logz(rewards, log_prob, BETA, log_z).mean(-1)


def test_logz_with_its_estimate_is_unbiased_on_policy() -> None:
    """Each thought's log Z comes from the others, so it is a constant to it."""
    near(expected_gradient(estimated, 3), soft_gradient())


def test_logz_that_counts_the_thought_itself_is_caught() -> None:
    def of_all(rewards: Tensor, log_prob: Tensor) -> Tensor:
        log_z = (rewards / BETA - log_prob.detach()).logsumexp(-1, keepdim=True) - math.log(3)
        return logz(rewards, log_prob, BETA, log_z).mean(-1)

    with pytest.raises(AssertionError, match="off by"):
        near(expected_gradient(of_all, 3), soft_gradient())


def test_log_z_of_others_against_a_loop_and_biased_low() -> None:
    index = groups(3)
    log_prob = LOGITS.log_softmax(0)
    rewards, drawn = REWARDS[index][:, None, None], log_prob[index][:, None, None]
    log_z, samples = log_z_of_others(rewards, BETA, drawn)
    weights = (rewards / BETA - drawn).exp()
    for i, (j, k) in enumerate([(1, 2), (0, 2), (0, 1)]):
        pair = weights[..., [j, k]]
        near(log_z[..., i], pair.mean(-1).log())
        near(samples[..., i], pair.sum(-1).square() / pair.square().sum(-1), 1e-9)
    probability = log_prob.exp()[index].prod(-1)
    mean = (probability * log_z[:, 0, 0, 0]).sum()
    assert float(mean) < float(BEST.logsumexp(0)) - 0.05
    near((probability * log_z[:, 0, 0, 0].exp()).sum(), BEST.exp().sum())
    assert float(samples.min()) >= 1 - 1e-12 and float(samples.max()) <= 2 + 1e-12


def test_effective_others_however_far_below_the_one_left_out() -> None:
    for gap, wanted in ((0.0, 2.0), (100.0, 2.0), (360.0, 2.0), (1000.0, 1.0)):
        found = effective_others(torch.tensor([gap, 0.0, 0.0]).view(1, 1, 1, 3)).squeeze()
        assert float(found[0]) == pytest.approx(wanted), gap
        assert float(found[1]) == pytest.approx(2.0 if gap == 0 else 1.0), gap


def test_a_learned_log_z_arrives_at_the_right_one() -> None:
    """Table and log Z together, off-policy: the loss falls to 0."""
    logits, log_z = LOGITS.clone().requires_grad_(), torch.zeros(1).double().requires_grad_()
    optimiser = torch.optim.LBFGS([logits, log_z], max_iter=500, tolerance_grad=1e-14, tolerance_change=0)

    def loss() -> Tensor:
        optimiser.zero_grad()
        log_prob = logits.log_softmax(0).view(1, 1, 1, -1)
        value = logz(REWARDS.view(1, 1, 1, -1), log_prob, BETA, log_z.view(1, 1, 1, 1)).sum()
        value.backward()
        return value.detach()

    optimiser.step(loss)
    assert float(loss()) < 1e-12
    near(log_z.detach(), BEST.logsumexp(0), 1e-5)
    near(logits.detach().softmax(0), BEST.softmax(0), 1e-5)


def without_baseline(rewards: Tensor, log_prob: Tensor, beta: float) -> Tensor:
    soft = (rewards - beta * log_prob).detach()
    return -(soft * log_prob).sum(-1)


def per_symbol_entropy(rewards: Tensor, log_prob: Tensor, beta: float) -> Tensor:
    advantages = (rewards - leave_one_out(rewards)).detach()
    return -(advantages * log_prob).mean(-1) + beta * (log_prob.exp() * log_prob).mean(-1)


@pytest.mark.parametrize("mutant", [without_baseline, per_symbol_entropy], ids=lambda f: f.__name__)
def test_a_broken_maxent_is_caught(mutant) -> None:
    with pytest.raises(AssertionError, match="off by"):
        near(expected_gradient(partial(mutant, beta=BETA), 2), soft_gradient())


def test_a_listwise_loss_that_normalises_over_the_space_is_caught() -> None:
    def broken(rewards: Tensor, log_prob: Tensor) -> Tensor:
        return -((rewards / BETA).softmax(-1) * log_prob).sum(-1)

    with pytest.raises(AssertionError, match="off by"):
        near(expected_gradient(broken, 3, BEST, SKEWED), ZERO)


@pytest.mark.parametrize("method", [vargrad, maxent])
def test_one_thought_is_refused(method) -> None:
    with pytest.raises(ValueError, match="at least 2 thoughts"):
        method(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), BETA)


def test_log_z_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 thoughts"):
        log_z_of_others(torch.zeros(1, 1, 1, 2), BETA, torch.zeros(1, 1, 1, 2))
