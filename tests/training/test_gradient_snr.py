"""The policy's signal-to-noise ratio, and the other meters of a step."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.training.test_loop import quick, trained
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.objectives.registry import registry
from toyqs.objectives.rewards import penalty
from toyqs.training import loop
from toyqs.training.batches import chunks, draw_batches
from toyqs.training.gradient_snr import measured_at, policy_snr
from toyqs.training.optimizers.optimizer import Optimiser
from toyqs.types import Trace


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))


def snr(one: Tensor, two: Tensor) -> Tensor:
    table = Table()
    return policy_snr(Optimiser(table), [one, two], table.rows.grad.add_)


def test_signal_and_noise_by_hand_each_seed_by_itself() -> None:
    one = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 0.0]]).double()
    two = torch.tensor([[3.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]).double()
    torch.testing.assert_close(snr(one, two), torch.tensor([3.0 / (9.0 / 4), -1.0]).double())
    torch.testing.assert_close(snr(one * 0, one * 0), torch.zeros(2).double())


def test_both_are_without_bias() -> None:
    """Check it for halves drawn from three vectors: the mean over all pairs is the exact value."""
    vectors = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double()
    law = torch.tensor([0.2, 0.3, 0.5]).double()
    mean = law @ vectors
    variance = law @ (vectors - mean).square().sum(1)
    signal = noise = torch.zeros(()).double()
    for one, two in itertools.product(range(3), repeat=2):
        weight = law[one] * law[two]
        signal = signal + weight * (vectors[one] @ vectors[two])
        noise = noise + weight * (vectors[one] - vectors[two]).square().sum() / 4
    torch.testing.assert_close(signal, mean @ mean)
    torch.testing.assert_close(noise, variance / 2)  # of the mean of two halves


def test_ten_times_in_a_training_and_seldom_in_a_short_one() -> None:
    assert sorted(measured_at(450)) == list(range(45, 451, 45))
    assert sorted(measured_at(100)) == [30, 60, 90] and not measured_at(29)
    assert max(len(measured_at(steps)) for steps in range(1, 2000)) == 10


def test_measuring_changes_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with_meter, values = trained(quick(grad_acc=3, max_steps=30), [3, 4])
    assert [step for step, seen in enumerate(values, 1) if "policy_snr" in seen] == [30]
    assert values[-1]["policy_snr"].shape == (2,)
    monkeypatch.setattr(loop, "measured_at", lambda steps: set())
    without, values = trained(quick(grad_acc=3, max_steps=30), [3, 4])
    assert not any("policy_snr" in seen for seen in values)
    for name, parameter in without.items():
        assert torch.equal(parameter, with_meter[name]), name


@pytest.mark.parametrize("extra", [{}, {"variable_len": True, "length_penalty": 0.3}])
def test_it_is_of_the_policys_gradient_alone(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> None:
    """Check it against the two halves of the last batch; the other losses count nothing, the costs do."""
    monkeypatch.setattr(loop, "measured_at", lambda steps: {steps})
    settings = tiny.config(entropy_encouragement_coef=0.1, max_steps=2, **extra)
    model, numbers = tiny.model(settings, 2), build_training_params(settings)
    objective = build_objective(settings)
    data = draw_batches(settings.task, [3, 4], numbers, next(model.parameters()))
    batches, seen = [next(data) for _ in range(2)], []
    loop.train(model, objective, iter(batches), numbers, lambda step, values: seen.append(values))
    gradients, weights = [], {name: weight.value for name, weight in numbers.weights.items()}
    for half in chunks(batches[-1], 2):
        trace = model(half.inputs, half.positions, half.noise)
        trace = trace._replace(penalty=penalty(trace, weights))
        policy = objective(trace, half.counted).parts["policy"]
        gradients.append(tiny.flat(tiny.gradients(policy.sum(), model)))
    one, two = gradients
    wanted = (one * two).sum(1) / ((one - two).square().sum(1) / 4)
    torch.testing.assert_close(seen[-1]["policy_snr"], wanted, rtol=1e-9, atol=0)


def test_where_no_policy_is_trained_nothing_is_measured() -> None:
    for changes in ({"policy_loss_beta": 0.0}, {"max_reasoning_len": 0}):
        assert not any("policy_snr" in seen for seen in trained(quick(**changes, max_steps=30), [3])[1])


def meters(name: str, reward: Tensor, log_prob: Tensor) -> dict[str, float]:
    reward, log_prob, shape = reward.double(), log_prob.double(), (1, 1, 1, -1)
    trace = Trace(torch.empty(0), log_prob.view(*shape, 1))
    found = registry()[name](temperature=1.0).meters(reward.view(shape), trace, None)
    return {meter: float(value.squeeze()) for meter, value in found.items()}


def test_effective_samples() -> None:
    equal, even = torch.zeros(4), torch.full((4,), 0.25).log()
    for name in ("listwise", "weighted_mle"):
        assert meters(name, equal, even) == pytest.approx({"effective_samples": 4.0})
        assert meters(name, torch.tensor([90.0, 0, 0, 0]), even) == pytest.approx({"effective_samples": 1.0})
    # what a rare thought earned counts for more of the space
    rare = torch.tensor([0.7, 0.1, 0.1, 0.1]).log()
    weights = (1 / rare.exp()) / (1 / rare.exp()).sum()
    assert meters("weighted_mle", equal, rare)["effective_samples"] == pytest.approx(
        float(1 / weights.square().sum())
    )
    # log Z of each thought rests on the other three
    assert meters("logz_mse", equal, even) == pytest.approx({"effective_samples": 3.0, "masked": 0.0})
    found = meters("logz_mse", torch.tensor([90.0, 0, 0, 0]), even)
    assert found == pytest.approx({"effective_samples": 1.5, "masked": 0.75})


def test_a_step_tells_them() -> None:
    changes = {"objective": "logz_mse", "trice_samples": 3}
    _, values = trained(quick(**changes), [3])
    assert 1.0 <= float(values[0]["effective_samples"]) <= 2.0 and 0.0 <= float(values[0]["masked"]) <= 1.0
