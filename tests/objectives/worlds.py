"""A world of six thoughts whose policy is a table of logits: every group of K thoughts can be summed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

THOUGHTS = 6
BETA = 0.7

PolicyLoss = Callable[[Tensor, Tensor], Tensor]  # rewards, log_prob (S, B, T, K) -> (S, B, T)


def numbers(seed: int, size: int = THOUGHTS) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REWARDS = numbers(1)
LOGITS = numbers(2)
BEST = REWARDS / BETA  # logits of π* ∝ exp(r / β)


def groups(count: int) -> Tensor:
    """All groups of `count` thoughts, (6^K, K)."""
    return torch.cartesian_prod(*[torch.arange(THOUGHTS)] * count).view(-1, count)


def expected_gradient(
    loss: PolicyLoss, count: int, logits: Tensor = LOGITS, law: Tensor | None = None
) -> Tensor:
    """E[∇ loss] at a table's logits over all groups, drawn from a law (6,); None: from the policy itself."""
    logits = logits.clone().requires_grad_()
    index = groups(count)
    log_prob = logits.log_softmax(0)
    probability = log_prob.detach().exp() if law is None else law
    each = loss(REWARDS[index][:, None, None], log_prob[index][:, None, None])[:, 0, 0]
    (gradient,) = torch.autograd.grad((probability[index].prod(-1) * each).sum(), logits)
    return gradient


def soft_value(logits: Tensor, beta: float) -> Tensor:
    """E_π r + β H(π)."""
    log_prob = logits.log_softmax(0)
    return (log_prob.exp() * (REWARDS - beta * log_prob)).sum()


def gradient_of(value: Callable[[Tensor], Tensor], logits: Tensor = LOGITS) -> Tensor:
    logits = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(logits), logits)
    return gradient


def near(got: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    """Raises AssertionError saying how far off."""
    error = float((got - wanted).abs().max())
    assert error < tolerance, f"off by {error:.3g}"
