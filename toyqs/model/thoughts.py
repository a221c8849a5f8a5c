"""Thinking: sampling K thoughts of L symbols at every position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toyqs.model.core import FIRST_SYMBOL, START, Core, marker
from toyqs.model.layers import Head, Linear, pick_rows
from toyqs.numerics import log_softmax, row_sums
from toyqs.types import BranchState, Thoughts


def sample_symbols(probs: Tensor, noise: Tensor) -> Tensor:
    """Invert the cumulative distribution at the given uniform numbers.

    A symbol of probability zero is never returned, whatever the noise.

    Args:
        probs: (..., V), each row sums to about 1.
        noise: (..., J) in [0, 1).

    Returns:
        (..., J) long.
    """
    cumulative = probs.cumsum(-1)
    total = cumulative[..., -1:]
    # Scaled by the sum as rounded, and kept below it: the entry found then rises above the last one.
    points = torch.minimum(noise * total, torch.nextafter(total, torch.zeros_like(total)))
    # NaN lies beyond all symbols; a seed that holds it must not stop the others.
    return torch.searchsorted(cumulative, points, right=True).clamp_(max=probs.shape[-1] - 1)


class _Draw(torch.autograd.Function):
    """J symbols from each row of logits, their log-probabilities, and the row's entropy, in one pass.

    ∂ log p(s) / ∂ logits = 1_s − p        ∂ H / ∂ logits = −p ⊙ (log p + H)
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, noise: Tensor, forced: bool) -> tuple[Tensor, Tensor, Tensor]:
        log_probs = log_softmax(logits)
        probs = log_probs.exp()
        symbols = noise if forced else sample_symbols(probs, noise)
        log_prob = log_probs.gather(-1, symbols)
        # A forbidden symbol has log-probability -inf; its share of the entropy is 0, not NaN.
        finite = log_probs.clamp_(min=-1e30)
        entropy = -row_sums(probs * finite)
        ctx.save_for_backward(probs, finite, entropy, symbols)
        ctx.mark_non_differentiable(symbols)
        return symbols, log_prob, entropy

    @staticmethod
    def backward(ctx: Any, _: Any, at_log_prob: Tensor, at_entropy: Tensor) -> tuple[Tensor, None, None]:
        probs, finite, entropy, symbols = ctx.saved_tensors
        # What is one number per row is added up before it meets V of them.
        per_row = at_log_prob.sum(-1) + at_entropy * entropy
        slope = torch.addcmul(-per_row.unsqueeze(-1), -at_entropy.unsqueeze(-1), finite)
        return slope.mul_(probs).scatter_add_(-1, symbols, at_log_prob), None, None


class TokenHead(nn.Module):
    """The reasoner's distribution over thought symbols.

    With a shared LM head the state passes through it instead (through a projection where the widths
    differ), and thought symbols are tokens.
    """

    def __init__(self, num_seeds: int, width: int, num_symbols: int, shared: Head | None = None) -> None:
        super().__init__()
        self.shared = shared
        self.projection: Linear | None = None
        if shared is None:
            self.projection = Linear(num_seeds, width, num_symbols)
        elif sum(shared.widths) != width:
            self.projection = Linear(num_seeds, width, sum(shared.widths))

    def forward(self, hidden: Tensor) -> Tensor:
        """(S, ..., D) -> logits (S, ..., thought symbols)."""
        out = hidden if self.projection is None else self.projection(hidden)
        return out if self.shared is None else self.shared(out.split(self.shared.widths, dim=-1))


def think(
    core: Core,
    head: TokenHead | None,
    branches: BranchState,
    noise: Tensor,
    *,
    forced: Tensor | None = None,
) -> Thoughts:
    """Sample K thoughts at every position, symbol by symbol.

        s_l ~ π(· | x_≤t, start, s_1 … s_{l−1}),    l = 1 … L

    The steps up to the first symbol are the same for all K thoughts of a position and run once.
    Nothing is detached: log-probabilities and entropies are differentiable through the states.

    Args:
        core: the reasoner's.
        head: state -> logits over thought symbols; None where L = 0.
        branches: one branch point per position (K = 1).
        noise: (S, B, T, K, L) uniform in [0, 1); with L = 0 the reasoner consumes the start only.
        forced: (S, B, T, K, L) long; these symbols are scored instead of sampled ones.

    Returns:
        The thoughts; `branches` has consumed the start marker and all symbols but the last.
    """
    rows = core.thought_rows()
    draws = noise if forced is None else forced
    hidden, state = core.backbone.step(marker(rows, START), branches)
    symbols: list[Tensor] = []
    log_probs: list[Tensor] = []
    entropies: list[Tensor] = []
    for index in range(draws.shape[-1]):
        assert head is not None
        if index:
            hidden, state = core.backbone.step(pick_rows(rows, symbols[-1] + FIRST_SYMBOL), state)
        # One row of logits serves all K draws while the branches are still one.
        once = hidden.shape[3] == 1
        wanted = draws[..., index] if once else draws[..., index : index + 1]
        logits = head(hidden).squeeze(3) if once else head(hidden)
        symbol, log_prob, entropy = _Draw.apply(logits, wanted.contiguous(), forced is not None)
        symbols.append(symbol if once else symbol.squeeze(-1))
        log_probs.append(log_prob if once else log_prob.squeeze(-1))
        entropies.append(entropy.unsqueeze(-1).expand_as(log_prob) if once else entropy)
    if not symbols:
        return Thoughts(draws.long(), noise, noise, state)
    return Thoughts(torch.stack(symbols, -1), torch.stack(log_probs, -1), torch.stack(entropies, -1), state)
