"""Rewards that differ by rounding alone are equal, wherever a deviation divides or an order decides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from toyqs.objectives import advantages, reward_model
from toyqs.objectives.advantages import ADVANTAGE_SCALES, BASELINES
from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.policy import ranking
from toyqs.objectives.policy.tempered import Tempered
from toyqs.objectives.registry import registry
from toyqs.objectives.rewards import differ, log_ratio, settled
from toyqs.types import Batch, Trace

ROUNDED = {
    "near 0": [0.0, 0.0, 0.0, -1.2e-7],
    "near -2": [-2.3025851, -2.3025851, -2.3025851, -2.3025849],
    "large": [-1000.0, -1000.0001, -1000.0, -1000.0],
    "equal": [-0.7, -0.7, -0.7, -0.7],
}
ROUNDINGS = pytest.mark.parametrize("given", ROUNDED.values(), ids=ROUNDED)
LOG_PROB = torch.tensor([-1.0, -2.0, -3.0, -0.5]).view(1, 1, 1, 4)
ONES = torch.ones(1, 1, 1)
BATCH = Batch(ONES.long(), ONES.long(), ONES, ONES.bool())
TEMPERED = pytest.mark.parametrize(
    "method", [name for name, kind in registry().items() if issubclass(kind, Tempered)]
)


def rewards(given: list[float]) -> Tensor:
    return torch.tensor(given).view(1, 1, 1, 4)


def relative(method: str) -> Tempered:
    kind = registry()[method]
    assert issubclass(kind, Tempered)
    return kind(temperature=0.3, temperature_scale="spread")


def policy_gradient(objective: ThoughtObjective, reward: Tensor) -> Tensor:
    log_prob = LOG_PROB.unsqueeze(-1).clone().requires_grad_()
    trace = Trace(torch.empty(0), log_prob, correction=torch.zeros(1, 1, 1, 1))
    loss = objective.policy_loss(reward, trace, BATCH).sum()
    return torch.autograd.grad(loss, log_prob)[0].flatten()


@pytest.mark.parametrize("baseline", ["none", "group_mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["batch_std", "group_std"])
@ROUNDINGS
def test_no_deviation_of_rounding_divides(given: list[float], scale: str, baseline: str) -> None:
    reward = rewards(given)
    above = reward - BASELINES[baseline].compute(reward)
    assert not ADVANTAGE_SCALES[scale](above, reward, ONES).any()


@pytest.mark.parametrize("size", [-8.0, -12.0, -20.0])
def test_a_log_ratio_differs_no_more_than_the_log_probabilities_that_it_is_of(size: float) -> None:
    """Their last digit is 1e-6 and more, and their difference from a reference's is 0."""
    log_q = rewards([size] * 4)
    log_q[..., 3] -= 2 * torch.finfo(log_q.dtype).eps * abs(size)
    batch = BATCH._replace(targets=torch.zeros(1, 1, 1).long())
    trace = Trace(
        torch.empty(0), LOG_PROB.unsqueeze(-1), reference_log_probs=torch.full((1, 1, 1, 1, 1), size)
    )
    assert log_q.unique().numel() == 2
    assert not differ(log_ratio(log_q, trace, batch)).any()
    log_q[..., 3] -= 0.01
    assert differ(log_ratio(log_q, trace, batch)).all()


def test_a_small_deviation_divides_as_ever() -> None:
    """Sixteen times what rounding may make of them, in the size of their own numbers."""
    for given in ([-2.3, -2.3, -2.3, -2.30004], [0.0, 0.0, 0.0, -1.6e-5]):
        reward = rewards(given).double()
        above = reward - advantages.group_mean(reward)
        wanted = torch.tensor([0.5, 0.5, 0.5, -1.5]).double().view_as(above)
        torch.testing.assert_close(advantages.group_std(above, reward, ONES), wanted, rtol=0, atol=1e-9)
        deviation = above.std(unbiased=False)
        torch.testing.assert_close(advantages.batch_std(above, reward, ONES), above / (deviation + 1e-3))


def of_the_advantages(above: Tensor, reward: Tensor, weights: Tensor) -> Tensor:
    """Equality asked after the baseline, of what is all rounding."""
    spread = above.std(-1, keepdim=True)
    equal = spread <= 1e-6 * above.abs().amax(-1, keepdim=True)
    return torch.where(equal, 0.0, above / spread.masked_fill(equal, 1.0))


def test_equality_asked_of_the_advantages_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADVANTAGE_SCALES, "group_std", of_the_advantages)
    for name in ("near 0", "near -2", "large"):
        with pytest.raises(AssertionError):
            test_no_deviation_of_rounding_divides(ROUNDED[name], "group_std", "group_mean")


def test_which_rewards_differ() -> None:
    for given in ROUNDED.values():
        assert not differ(rewards(given)).any() and len(settled(rewards(given)).unique()) == 1
    apart = rewards([-2.3, -2.3, -2.3, -2.3001])
    assert bool(differ(apart).all()) and torch.equal(settled(apart), apart)
    assert bool(differ(rewards([0.0, -1.0, 0.0, -float("inf")])).all())
    assert not differ(rewards([-float("inf")] * 4)).any()


@TEMPERED
@ROUNDINGS
def test_a_relative_temperature_makes_no_preference_of_rounding(given: list[float], method: str) -> None:
    """The gradient is that of equal rewards."""
    objective, reward = relative(method), rewards(given)
    equal = torch.full_like(reward, float(reward.mean()))
    got, wanted = policy_gradient(objective, reward), policy_gradient(objective, equal)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    assert bool(got.isfinite().all())
    trace = Trace(torch.empty(0), LOG_PROB.unsqueeze(-1))
    for name, value in objective.meters(reward, trace, BATCH).items():
        torch.testing.assert_close(value, objective.meters(equal, trace, BATCH)[name], rtol=1e-3, atol=1e-6)


def test_equal_rewards_leave_the_density_its_digits() -> None:
    """At a temperature next to 0 weighted_mle still weighs by the density alone."""
    weights = (-LOG_PROB).softmax(-1).flatten()
    got = policy_gradient(relative("weighted_mle"), rewards([-1000.0] * 4))
    torch.testing.assert_close(got, -weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["plackett_luce", "best_of"])
@ROUNDINGS
def test_no_order_of_rounding_decides(given: list[float], method: str) -> None:
    objective = registry()[method]()
    assert isinstance(objective, ThoughtObjective)
    got = policy_gradient(objective, rewards(given))
    torch.testing.assert_close(got, policy_gradient(objective, rewards([0.0] * 4)), rtol=0, atol=0)


def test_ranks_are_shared_where_rewards_are_a_rounding_apart() -> None:
    given = torch.tensor([[-1.0, -2.3025851, -0.5, -2.3025849], [-3.0, -1.0, -2.0, -float("inf")]])
    assert ranking.ranks(given.view(1, 1, 2, 4)).tolist() == [[[[1, 2, 0, 2], [2, 0, 1, 3]]]]


def by_value(reward: Tensor) -> Tensor:
    """Every difference counts."""
    return reward.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def untouched(self: Tempered, reward: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Rewards as they are, over a deviation of rounding."""
    return (0.3 * reward.std(-1) + 1e-12).view(-1, 1, 1, 1), reward


def test_orders_and_temperatures_of_rounding_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "ranks", by_value)
    monkeypatch.setattr(Tempered, "scaled", untouched)
    wrong: list[Callable[[], None]] = [
        lambda: test_no_order_of_rounding_decides(ROUNDED["near -2"], "plackett_luce"),
        lambda: test_a_relative_temperature_makes_no_preference_of_rounding(ROUNDED["near -2"], "listwise"),
        lambda: test_a_relative_temperature_makes_no_preference_of_rounding(
            ROUNDED["near 0"], "weighted_mle"
        ),
    ]
    for test in wrong:
        with pytest.raises(AssertionError):
            test()


@ROUNDINGS
def test_a_learned_reward_explains_no_rounding(given: list[float]) -> None:
    expected = rewards([0.1, 0.2, 0.3, -0.4])
    assert not reward_model.correlation(expected, rewards(given), ONES).any()
