"""Exact expectations over continuous thoughts by Gauss-Hermite quadrature, and a plain form of the model.

As in tiny.py the sum runs over the seed axis: S copies of one model, each at another node.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests import tiny
from tests.reference import Weights, mix
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.positions import focus, thinking_positions

NODES = 16
SIGMA, SCALE = 0.1, 1.5  # of the policy and the weights: the larger, the more nodes a sum needs
NARROW = 0.01  # sigma for a transformer, whose first norm is nearly a step where a symbol is near 0


def config(kind: str, objective: str = "reinforce", **changes: Any) -> RunConfig:
    """Return settings of a tiny run with thoughts of a kind; by default one symbol of one number."""
    sigma = SIGMA if tiny.BACKBONE == "gru" else NARROW
    plain: dict[str, Any] = {"max_reasoning_len": 1, "latent_dim": 1, "sigma": sigma, "trice_samples": 1}
    return tiny.config(thoughts=kind, objective=objective, **(plain | changes))


def nodes(axes: int, count: int = NODES) -> tuple[Tensor, Tensor]:
    """Return standard normal nodes (count^axes, axes) and their weights, which add up to 1."""
    x, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(count))
    points = torch.cartesian_prod(*[x] * axes).view(-1, axes)
    weights = torch.cartesian_prod(*[w / w.sum()] * axes).view(-1, axes).prod(-1)
    return points, weights


def uniform(points: Tensor) -> Tensor:
    """Return the uniform numbers from which a head makes the given normal ones."""
    return 0.5 * torch.erfc(-points / math.sqrt(2.0))


def enumerate_nodes(
    settings: RunConfig, count: int = NODES, built: LatentReasoner | None = None
) -> tiny.Enumeration:
    """Compute every tuple of nodes at the counted position, one for each copy of the model."""
    thoughts, length = settings.trice_samples, settings.max_reasoning_len
    width = settings.latent_dim if settings.thoughts == "gaussian" else settings.reasoner_hidden_dim
    points, weights = nodes(thoughts * length * width, count)
    built = tiny.model(settings, len(points), SCALE) if built is None else built
    noise = torch.full((len(points), 2, 2, thoughts, length, width), 0.3).double()
    noise[:, tiny.AT[0], tiny.AT[1]] = uniform(points).view(-1, thoughts, length, width)
    copies = tiny.repeated(tiny.one_position(), len(points))
    positions = thinking_positions(copies)
    trace = built(copies.inputs, positions, noise)
    return tiny.Enumeration(built, trace, focus(copies, positions), weights)


class Plain:
    """The thoughts of one model at the counted position, computed plainly from its parameters."""

    def __init__(self, built: LatentReasoner, settings: RunConfig, points: Tensor) -> None:
        """Compute the thoughts of normal numbers (M, L, W); deterministic thoughts have W = 0."""
        self.weights, self.settings, self.built = Weights(built, settings), settings, built
        one, (sequence, position) = tiny.one_position(), tiny.AT
        index = int(one.think[0, sequence].nonzero()[position, 0])
        self.tokens, self.target = one.inputs[0, sequence, : index + 1], int(one.targets[0, sequence, index])
        self.entropy: Tensor = torch.zeros(len(points)).double()
        self.divergence: Tensor = torch.zeros(len(points)).double()
        self.log_q = self._predict(points)[:, self.target]

    def _predict(self, points: Tensor) -> Tensor:
        w, settings = self.weights, self.settings
        state = w.mark("reasoner", 0, w.after("base_reasoner", self.tokens))
        symbols = []
        for place in range(settings.max_reasoning_len):
            symbols.append(self._symbol(w.output(state).expand(len(points), -1), points[:, place]))
            if settings.interpreter_start == "onward" or place + 1 < settings.max_reasoning_len:
                state = self._consume(symbols[-1], state)
        if settings.interpreter_start == "afresh":
            state = w.afresh()
            for symbol in symbols:
                state = w.take_in("interpreter", self._embed("interpreter", symbol), state)
        reading = w.output(w.mark("interpreter", 1, state))
        base = None if settings.mixer == "thought" else w.read("base_lm", self.tokens)
        return torch.log_softmax(w.head(mix(w, settings, base, reading)), -1)

    def _symbol(self, state: Tensor, points: Tensor) -> Tensor:
        if self.settings.thoughts == "deterministic":
            return state
        if self.settings.thoughts == "gaussian":
            mean = self.weights.linear("thought_head.mean", state)
            raw = self.weights.linear("thought_head.spread", state)
        else:
            mean, raw = state, self.weights.values["thought_head.spread"].view(1, -1).expand_as(state)
        std = self.settings.sigma * 10 ** torch.tanh(raw)
        policy, prior = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
        self.entropy = self.entropy + policy.entropy().sum(-1)
        self.divergence = self.divergence + torch.distributions.kl_divergence(policy, prior).sum(-1)
        return mean + std * points

    def _embed(self, role: str, symbol: Tensor) -> Tensor:
        if self.settings.thoughts == "deterministic":
            return symbol
        return symbol @ self.weights.of(role, "thoughts.weight")

    def _consume(self, symbol: Tensor, state: Any) -> Any:
        if self.settings.thoughts == "state":
            return self.weights.mark("reasoner", 0, symbol)
        return self.weights.take_in("reasoner", self._embed("reasoner", symbol), state)


class Integral:
    """Means over one thought's distribution by quadrature, differentiable in all parameters."""

    def __init__(self, settings: RunConfig, count: int = NODES) -> None:
        length = settings.max_reasoning_len
        width = settings.latent_dim if settings.thoughts == "gaussian" else settings.reasoner_hidden_dim
        points, self.probability = nodes(length * width, count)
        self.built = tiny.model(settings, 1, SCALE)
        self.plain = Plain(self.built, settings, points.view(-1, length, width))

    def mean(self, values: Tensor) -> Tensor:
        return (self.probability * values).sum()

    @property
    def log_q(self) -> Tensor:
        """Return E log q(y | h)."""
        return self.mean(self.plain.log_q)

    def gradient(self, value: Tensor) -> tiny.Gradients:
        return {name: g[0] for name, g in tiny.gradients(value, self.built).items()}
