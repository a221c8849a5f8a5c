"""Thinking: sampling K thoughts of L symbols at every position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from toyqs.model.core import START, Core, marker, step_live, where_live
from toyqs.model.layers import Linear, LMHead
from toyqs.numerics import log_softmax, row_sums
from toyqs.types import BranchState, Thoughts


class Symbols(NamedTuple):
    """One symbol of every thought, and what is known of its distribution; None where there is no such."""

    values: Tensor  # (S, B, T, K) long, or (S, B, T, K, Z) float
    log_prob: Tensor | None  # (S, B, T, K)
    entropy: Tensor | None  # (S, B, T, K)
    prior_divergence: Tensor | None = None  # (S, B, T, K)


class ThoughtHead(nn.Module, ABC):
    """A reasoner's state -> the next symbol of a thought."""

    end: int | None = None  # the id that ends a thought where it is drawn; None: no end is drawn
    padding: int = 0  # what symbols hold after a thought's end

    @abstractmethod
    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """One symbol of every thought.

        Args:
            hidden: (S, B, T, 1 or K, D), one state for all K thoughts of a position or one for each.
            given: uniform numbers (S, B, T, K) or (S, B, T, K, W); where `forced` the symbols themselves.
            forced: score the symbols given instead of sampling.
        """


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


class TokenHead(ThoughtHead):
    """The reasoner's distribution over thought symbols.

    With a shared LM head the state passes through it instead (through a projection where the widths
    differ), and thought symbols are tokens.

    A head that ends thoughts has one more output, the last, from a layer of its own: the symbols' layers
    are, and start as, those of a head that does not.
    """

    def __init__(
        self,
        num_seeds: int,
        width: int,
        num_symbols: int,
        shared: LMHead | None = None,
        *,
        ends: bool = False,
    ) -> None:
        super().__init__()
        self.shared = shared
        self.padding = num_symbols
        self.end = num_symbols if ends else None
        self.ending = Linear(num_seeds, width, 1) if ends else None
        self.projection: Linear | None = None
        if shared is None:
            self.projection = Linear(num_seeds, width, num_symbols)
        elif sum(shared.widths) != width:
            self.projection = Linear(num_seeds, width, sum(shared.widths))

    def forward(self, hidden: Tensor) -> Tensor:
        """(S, ..., D) -> logits (S, ..., thought symbols), and that of the end where there is one."""
        out = hidden if self.projection is None else self.projection(hidden)
        logits = out if self.shared is None else self.shared(out.split(self.shared.widths, dim=-1))
        return logits if self.ending is None else torch.cat([logits, self.ending(hidden)], -1)

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Symbols (S, B, T, K) long; one row of logits serves all K while the branches are still one."""
        once = hidden.shape[3] == 1
        logits = self(hidden).squeeze(3) if once else self(hidden)
        wanted = given if once else given.unsqueeze(-1)
        symbols, log_prob, entropy = _Draw.apply(logits, wanted.contiguous(), forced)
        if once:
            return Symbols(symbols, log_prob, entropy.unsqueeze(-1).expand_as(log_prob))
        return Symbols(symbols.squeeze(-1), log_prob.squeeze(-1), entropy)


def think(
    core: Core,
    head: ThoughtHead | None,
    branches: BranchState,
    noise: Tensor,
    *,
    forced: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Thoughts:
    """Sample K thoughts at every position, symbol by symbol.

        s_l ~ π(· | x_≤t, start, s_1 … s_{l−1}),    l = 1 … L

    A thought ends after L symbols; earlier where its lengths say so, or, with a head that ends thoughts,
    where the end is drawn in place of a symbol. Only that draw has a log-probability: an end that comes by
    force has none. After its end a thought's state is held, its symbols are `head.padding`, its
    log-probabilities and entropies 0.

    The steps up to the first symbol are the same for all K thoughts of a position and run once.
    Nothing is detached here: log-probabilities and entropies are differentiable through the states, and
    through the symbols where the head leaves them their path.

    Args:
        core: the reasoner's.
        head: state -> the next symbol; None where L = 0.
        branches: one branch point per position (K = 1).
        noise: (S, B, T, K, L) or (S, B, T, K, L, W) uniform in [0, 1); with L = 0 the reasoner consumes
            the start only.
        forced: (S, B, T, K, L) long or (S, B, T, K, L, Z); scored instead of sampled symbols, padded as
            `Thoughts.symbols` are.
        lengths: (S, B, T, 1 or K) long, where the task gives them; more than L counts as L. Not with a head
            that ends thoughts.

    Returns:
        The thoughts; `branches` has consumed the start marker and all symbols but the last of L.
    """
    rows = core.thought_rows()
    given = noise if forced is None else forced
    hidden, state = core.backbone.step(marker(rows, START), branches)
    drawn: list[Symbols] = []
    live: Tensor | None = None  # which thoughts had a symbol at the last place
    for place, part in enumerate(given.unbind(4)):
        assert head is not None
        if drawn:
            hidden, state = step_live(core, drawn[-1].values, rows, state, live)
        drawing = live if lengths is None else lengths > place
        drawn.append(_draw(head, hidden, part, drawing, forced=forced is not None))
        live = drawing if head.end is None else drawn[-1].values != head.end
    if not drawn:
        return Thoughts(given.long(), noise, noise, state)
    values, log_prob, entropy, prior = (
        None if each[0] is None else torch.stack(each, 4) for each in zip(*drawn, strict=True)
    )
    assert values is not None
    thoughts = Thoughts(values, log_prob, entropy, state, prior)
    if lengths is not None:
        return thoughts._replace(length=lengths.clamp(max=len(drawn)).expand(values.shape[:4]))
    if head is None or head.end is None:
        return thoughts
    length = (values != head.end).sum(-1)
    return thoughts._replace(length=length, unfinished=length == len(drawn))


def _draw(
    head: ThoughtHead, hidden: Tensor, given: Tensor, drawing: Tensor | None, *, forced: bool
) -> Symbols:
    """One symbol of every thought that is still drawing, padding of the others; None: all are."""
    if drawing is None:
        return head.draw(hidden, given, forced=forced)
    found = head.draw(hidden, where_live(drawing, given, 0) if forced else given, forced=forced)
    values = where_live(drawing, found.values, head.padding)
    return Symbols(values, *(None if x is None else where_live(drawing, x, 0.0) for x in found[1:]))
