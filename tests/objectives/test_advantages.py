"""Baselines against naive loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from toyqs.objectives import advantages


def rewards(thoughts: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, thoughts, generator=generator, dtype=torch.float64)


def check_leave_one_out(rule: Callable[[Tensor], Tensor]) -> None:
    """Each thought is compared with the mean of the other thoughts at its own position."""
    for thoughts in (2, 3, 5):
        given = rewards(thoughts)
        got = rule(given)
        assert got.shape == given.shape
        for index in torch.cartesian_prod(*[torch.arange(n) for n in given.shape]).tolist():
            *position, k = index
            at = given[tuple(position)]
            wanted = sum(float(at[j]) for j in range(thoughts) if j != k) / (thoughts - 1)
            assert abs(float(got[tuple(index)]) - wanted) < 1e-12


def test_leave_one_out() -> None:
    check_leave_one_out(advantages.leave_one_out)


def test_leave_one_out_ignores_the_thought_itself() -> None:
    given, changed = rewards(), rewards()
    changed[..., 1] += 100.0
    before, after = advantages.leave_one_out(given), advantages.leave_one_out(changed)
    torch.testing.assert_close(after[..., 1], before[..., 1], rtol=0, atol=1e-10)
    assert bool((after[..., 0] > before[..., 0] + 1).all())


def test_group_mean() -> None:
    given = rewards()
    got = advantages.group_mean(given)
    assert got.shape == given.shape
    for k in range(3):
        torch.testing.assert_close(got[..., k], sum(given[..., j] for j in range(3)) / 3, rtol=0, atol=1e-12)


def test_ema_is_one_number_per_seed() -> None:
    got = advantages.ema(rewards(), torch.tensor([-1.5, 2.0]).double())
    assert got.shape == rewards().shape
    assert bool((got[0] == -1.5).all()) and bool((got[1] == 2.0).all())


def test_none_is_zero() -> None:
    assert torch.equal(advantages.none(rewards()), torch.zeros_like(rewards()))


@pytest.mark.parametrize("rule", [advantages.group_mean, advantages.leave_one_out])
def test_group_baselines_refuse_a_single_thought(rule: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="at least 2 thoughts"):
        rule(rewards(1))


def test_the_others_take_a_single_thought() -> None:
    assert advantages.none(rewards(1)).shape == (2, 3, 4, 1)
    assert advantages.ema(rewards(1), torch.zeros(2)).shape == (2, 3, 4, 1)


@pytest.mark.parametrize("scale", [advantages.batch_std, advantages.group_std])
def test_a_reward_that_is_no_number_is_not_taken_for_an_equal_one(
    scale: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    given = rewards()
    given[0, 0, 0, 1] = torch.nan
    assert scale(given - given.mean(-1, keepdim=True), given, torch.ones(2, 3, 4))[0, 0, 0].isnan().all()
