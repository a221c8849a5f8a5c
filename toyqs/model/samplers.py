"""Samplers: heads that draw thoughts by another law than the policy's own (O2q).

A sampler has no parameters. It draws symbols from the reasoner's states as the policy's head does, with the
same noise, and its log-probabilities are those of the law that it draws from. Evaluation never asks it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toyqs.model.latent_heads import GaussianHead, StateHead, gaussian_symbols
from toyqs.model.thoughts import Symbols, ThoughtHead, TokenHead


class TemperedTokens(TokenHead):
    """Token symbols drawn from π(s | ·)^{1/τ}, made to sum to 1 symbol by symbol: τ > 1 is flatter."""

    def __init__(self, policy: TokenHead, temperature: float) -> None:
        """Stand beside the policy's head; what only a head with tables has stays the policy's.

        Args:
            policy: gives the logits.
            temperature: τ.
        """
        super(TokenHead, self).__init__()
        self.policy, self.temperature = policy, temperature
        self.end, self.padding = policy.end, policy.padding

    def forward(self, hidden: Tensor) -> Tensor:
        """(S, ..., D) -> logits (S, ..., thought symbols), and that of the end where there is one."""
        return self.policy(hidden) / self.temperature


class UniformTokens(TemperedTokens):
    """Token symbols all equally likely: the limit of τ → ∞."""

    def __init__(self, policy: TokenHead) -> None:
        super().__init__(policy, math.inf)

    def forward(self, hidden: Tensor) -> Tensor:
        """(S, ..., D) -> zeros (S, ..., thought symbols)."""
        return torch.zeros_like(self.policy(hidden))


class TemperedGaussian(ThoughtHead):
    """Gaussian symbols and states drawn from N(μ, τ σ²), which is π^{1/τ} made to integrate to 1."""

    def __init__(self, policy: GaussianHead | StateHead, temperature: float) -> None:
        """Stand beside the policy's head.

        Args:
            policy: gives μ and σ.
            temperature: τ.
        """
        super().__init__()
        self.policy, self.wider = policy, 0.5 * math.log(temperature)

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Symbols (S, B, T, K, Z)."""
        mean, log_std = self.policy.law(hidden)
        return gaussian_symbols(mean, log_std + self.wider, given, forced=forced, path=False)


class Likeliest(ThoughtHead):
    """No chance: the likeliest token, the mean of a Gaussian symbol or state. It has no density."""

    def __init__(self, policy: TokenHead | GaussianHead | StateHead) -> None:
        """Stand beside the policy's head."""
        super().__init__()
        self.policy = policy
        self.end, self.padding = policy.end, policy.padding

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Symbols (S, B, T, K) long or (S, B, T, K, Z)."""
        if isinstance(self.policy, TokenHead):
            return Symbols(self.policy(hidden).argmax(-1), None, None)
        return Symbols(self.policy.law(hidden)[0], None, None)


class Prior(ThoughtHead):
    """Gaussian symbols drawn from N(0, I), whatever was read."""

    def __init__(self, size: int) -> None:
        """Z numbers a symbol."""
        super().__init__()
        self.size = size

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Symbols (S, B, T, K, Z)."""
        zeros = hidden.new_zeros(*hidden.shape[:-1], self.size)
        return gaussian_symbols(zeros, zeros, given, forced=forced, path=False)
