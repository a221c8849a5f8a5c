"""Heads for continuous and relaxed symbols, where `TokenHead` samples ids.

A head that keeps the path leaves a symbol differentiable in the parameters of its distribution, so that the
prediction's loss reaches the reasoner through it (pathwise). One that does not detaches every symbol: the
density is then that of a fixed symbol, as the score function needs it. Were the symbol not detached, its
density would not depend on the mean at all: log N(μ + σ ε; μ, σ) = −ε² / 2 − log σ + const.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from toyqs.model.layers import Linear, LMHead, Output, SeedStacked, Zeros, normal
from toyqs.model.thoughts import Symbols, ThoughtHead, TokenHead
from toyqs.numerics import log_softmax, row_sums

SIGMA_RANGE = 10.0  # a learned standard deviation stays within this factor of where it starts
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def normals(uniform: Tensor) -> Tensor:
    """Turn uniform numbers into standard normal ones, by the inverse of the distribution function.

        ε = √2 · erf⁻¹(2 u − 1)

    Args:
        uniform: (...) in [0, 1]; both ends give finite numbers, as rounding to a shorter format can make a 1.

    Returns:
        (...).
    """
    edge = 1.0 - torch.finfo(uniform.dtype).eps
    return math.sqrt(2.0) * torch.erfinv((2.0 * uniform - 1.0).clamp(-edge, edge))


def log_sigma(start: float, raw: Tensor) -> Tensor:
    """Return the logarithm of a standard deviation that is bounded by construction.

        σ = start · 10^tanh(raw),    start / 10 < σ < 10 · start

    Without a bound or a prior an entropy bonus, or an objective with a temperature, would drive σ to
    infinity wherever the interpreter saturates.
    """
    return math.log(start) + math.log(SIGMA_RANGE) * torch.tanh(raw)


def gaussian_symbols(mean: Tensor, log_std: Tensor, given: Tensor, *, forced: bool, path: bool) -> Symbols:
    """Sample or score one Gaussian symbol of every thought.

        s = μ + σ ε
        log N(sg s; μ, σ) = Σ_z [−(sg s_z − μ_z)² / (2 σ_z²) − log σ_z − ½ log 2π]
        H = Σ_z [log σ_z + ½ + ½ log 2π]
        KL(N(μ, σ) ‖ N(0, I)) = Σ_z [(μ_z² + σ_z² − 1) / 2 − log σ_z]

    Args:
        mean: (S, B, T, 1 or K, Z).
        log_std: log σ, broadcast against the mean.
        given: uniform numbers (S, B, T, K, Z); with `forced` the symbols themselves.
        forced: score the given symbols instead of sampling.
        path: a sampled symbol stays differentiable in μ and σ.

    Returns:
        Symbols (S, B, T, K, Z); density, entropy and divergence summed over Z.
    """
    std = log_std.exp()
    values = given if forced else mean + std * normals(given)
    fixed = values.detach()
    size, shape = values.shape[-1], values.shape[:-1]
    log_prob = -row_sums(0.5 * ((fixed - mean) / std).square() + log_std) - size * HALF_LOG_2PI
    entropy = row_sums(log_std) + size * (0.5 + HALF_LOG_2PI)
    divergence = row_sums(0.5 * (mean.square() + std.square() - 1.0) - log_std)
    return Symbols(values if path else fixed, log_prob, entropy.expand(shape), divergence.expand(shape))


class GaussianHead(ThoughtHead):
    """A head for symbols s ~ N(μ, σ) of Z numbers, μ and log σ read from the reasoner's state (O12, O13).

    σ is bounded (`log_sigma`), which the entropy bonus and the objectives with a temperature need.

    Source: Williams 1992, "Simple statistical gradient-following algorithms"; with the path kept, Kingma
    and Welling 2014, "Auto-encoding variational Bayes".
    """

    name = kind = "gaussian"

    def __init__(
        self,
        num_seeds: int,
        width: int,
        size: int,
        sigma: float,
        *,
        path: bool,
        layer: type[Linear | Zeros] = Output,
    ) -> None:
        """Build the maps from the state.

        Args:
            num_seeds: S.
            width: D of the reasoner.
            size: Z.
            sigma: about what σ starts at.
            path: symbols stay differentiable.
            layer: Zeros makes it N(0, σ) whatever the state.
        """
        super().__init__()
        self.mean = layer(num_seeds, width, size)
        self.spread = layer(num_seeds, width, size, gain=0.1)
        self.sigma, self.path = sigma, path

    def law(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Map states (S, B, T, 1 or K, D) to μ and log σ, (S, B, T, 1 or K, Z) each."""
        log_std = log_sigma(self.sigma, self.spread(hidden))
        return self.mean(hidden), log_std

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return symbols (S, B, T, K, Z)."""
        return gaussian_symbols(*self.law(hidden), given, forced=forced, path=self.path)


class StateHead(SeedStacked, ThoughtHead):
    """A head for states s ~ N(h, σ) around the reasoner's new state h, one learned σ per dimension.

    σ is bounded (`log_sigma`). With a GRU this is a stochastic recurrent network.

    Source: Fraccaro et al. 2016, "Sequential neural models with stochastic layers".
    """

    name = kind = "state"

    def __init__(self, num_seeds: int, width: int, sigma: float, *, path: bool) -> None:
        """Declare σ.

        Args:
            num_seeds: S.
            width: D of the reasoner.
            sigma: about what σ starts at.
            path: symbols stay differentiable.
        """
        super().__init__()
        self.spread = self.declare("spread", (num_seeds, 1, 1, 1, width), normal(0.1))
        self.sigma, self.path = sigma, path

    def law(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Map states (S, B, T, 1 or K, D) to μ, the states themselves, and log σ (S, 1, 1, 1, D)."""
        return hidden, log_sigma(self.sigma, self.spread)

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return symbols (S, B, T, K, D)."""
        return gaussian_symbols(*self.law(hidden), given, forced=forced, path=self.path)


class EchoHead(ThoughtHead):
    """A head whose symbols are the reasoner's own states: nothing is sampled, and K = 1.

    Source: Hao et al. 2024, "Training large language models to reason in a continuous latent space"
    (Coconut).
    """

    name = kind = "deterministic"

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return symbols (S, B, T, 1, D), without density or entropy."""
        return Symbols(given if forced else hidden, None, None)


class GumbelHead(TokenHead):
    """A head for one-hot rows whose gradient is that of a softmax (O14, straight-through).

        forward    s = one-hot argmax(logits + g),    g = −log(−log u): a draw from softmax(logits)
        backward   ∂ s = ∂ softmax((logits + g) / τ)

    The forward pass samples exactly at every τ. The gradient treats the interpreter as linear between
    symbols: for a smooth one it points the right way and shrinks as τ rises, for a strongly curved one it may
    point the wrong way; low τ costs variance. There is an entropy, but no density for a score function.

    Source: Jang et al. 2017, "Categorical reparameterization with Gumbel-softmax".
    """

    name = kind = "gumbel"

    def __init__(
        self,
        num_seeds: int,
        width: int,
        num_symbols: int,
        shared: LMHead | None = None,
        *,
        temperature: float,
        layer: type[Linear | Zeros] = Output,
    ) -> None:
        """Build the map to logits; see TokenHead.

        Args:
            num_seeds: S.
            width: D of the reasoner.
            num_symbols: V.
            shared: the LM head, where thought symbols come from it.
            temperature: τ.
            layer: Zeros makes all symbols equally likely.
        """
        super().__init__(num_seeds, width, num_symbols, shared, layer=layer)
        self.padding = 0  # a row of zeros
        self.temperature = temperature

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return symbols (S, B, T, K, V), each row one-hot."""
        logits = self(hidden)
        log_p = log_softmax(logits)
        # A forbidden symbol has log-probability -inf; its term of the entropy is 0, not NaN.
        entropy = -row_sums(log_p.exp() * log_p.clamp(min=-1e30)).expand(given.shape[:-1])
        if forced:
            return Symbols(given, None, entropy)
        limits = torch.finfo(given.dtype)
        gumbels = -torch.log(-torch.log(given.clamp(limits.tiny, 1.0 - limits.eps)))
        scores = logits + gumbels
        hard = torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
        soft = log_softmax(scores / self.temperature).exp()
        return Symbols(hard + (soft - soft.detach()), None, entropy)


# The word of thoughts=... -> class. One of a plug-in inherits from one of these, and is built as that is.
HEADS: dict[str, Any] = {
    kind.name: kind for kind in (TokenHead, GaussianHead, GumbelHead, EchoHead, StateHead)
}
