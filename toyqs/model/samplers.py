"""Samplers: heads that sample thoughts from another distribution than the policy's.

A sampler has no parameters. It samples symbols from the reasoner's states as the policy's head does, with the
same noise, and its log-probabilities are those of its own distribution. Evaluation does not use it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toyqs.model.latent_heads import GaussianHead, StateHead, gaussian_symbols
from toyqs.model.thoughts import Symbols, ThoughtHead, TokenHead


class TemperedTokens(TokenHead):
    """Token symbols from π(s | ·)^{1/τ}, normalised symbol by symbol: τ > 1 is flatter."""

    def __init__(self, policy: TokenHead, temperature: float) -> None:
        """Take the policy's head, whose layers are used.

        Args:
            policy: gives the logits.
            temperature: τ.
        """
        super(TokenHead, self).__init__()
        self.policy, self.temperature = policy, temperature
        self.end, self.padding = policy.end, policy.padding

    def forward(self, hidden: Tensor) -> Tensor:
        """Map states (S, ..., D) to logits (S, ..., thought symbols), the end's last where there is one."""
        return self.policy(hidden) / self.temperature


class UniformTokens(TemperedTokens):
    """Token symbols all equally likely: the limit of τ → ∞."""

    def __init__(self, policy: TokenHead) -> None:
        super().__init__(policy, math.inf)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map states (S, ..., D) to zeros (S, ..., thought symbols)."""
        return torch.zeros_like(self.policy(hidden))


class TemperedGaussian(ThoughtHead):
    """Gaussian symbols and states from N(μ, τ σ²), which is π^{1/τ} normalised."""

    def __init__(self, policy: GaussianHead | StateHead, temperature: float) -> None:
        """Take the policy's head.

        Args:
            policy: gives μ and σ.
            temperature: τ.
        """
        super().__init__()
        self.policy, self.wider = policy, 0.5 * math.log(temperature)

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return symbols (S, B, T, K, Z)."""
        mean, log_std = self.policy.law(hidden)
        return gaussian_symbols(mean, log_std + self.wider, given, forced=forced, path=False)


class GreedyHead(ThoughtHead):
    """The likeliest token, or the mean of a Gaussian symbol or state: deterministic, without a density."""

    def __init__(self, policy: TokenHead | GaussianHead | StateHead) -> None:
        """Take the policy's head."""
        super().__init__()
        self.policy = policy
        self.end, self.padding = policy.end, policy.padding

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return symbols (S, B, T, K) long or (S, B, T, K, Z)."""
        if isinstance(self.policy, TokenHead):
            return Symbols(self.policy(hidden).argmax(-1), None, None)
        return Symbols(self.policy.law(hidden)[0], None, None)


class Prior(ThoughtHead):
    """Gaussian symbols from N(0, I), whatever the context."""

    def __init__(self, size: int) -> None:
        """Set Z, the numbers of a symbol."""
        super().__init__()
        self.size = size

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return symbols (S, B, T, K, Z)."""
        zeros = hidden.new_zeros(*hidden.shape[:-1], self.size)
        return gaussian_symbols(zeros, zeros, given, forced=forced, path=False)
