"""Thinking: sampling K thoughts of L symbols at every position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from toyqs.model.backbones.gru import GRU
from toyqs.model.backbones.kernels.draw import Draw
from toyqs.model.backbones.kernels.think import Think
from toyqs.model.core import FIRST_SYMBOL, START, Core, marker, step_live, where_live
from toyqs.model.layers import Linear, LMHead, Output
from toyqs.numerics import log_softmax, row_sums
from toyqs.types import BranchState, Thoughts, Trace


class Symbols(NamedTuple):
    """One symbol of every thought, with properties of its distribution; None where it has no such."""

    values: Tensor  # (S, B, T, K) long, or (S, B, T, K, Z) float
    log_prob: Tensor | None  # (S, B, T, K)
    entropy: Tensor | None  # (S, B, T, K)
    prior_divergence: Tensor | None = None  # (S, B, T, K)


class ThoughtHead(nn.Module, ABC):
    """The map from a reasoner's state to the next symbol of a thought."""

    name: ClassVar[str] = ""  # the word after thoughts=; "": a base class, which cannot be chosen
    kind: ClassVar[str] = (
        ""  # of its symbols, by which they are embedded and checked: the name of one of ours
    )
    num_symbols: int | None = None  # V of symbols that are tokens; None: they are vectors
    end: int | None = None  # the id that ends a thought when it is sampled; None: no end is sampled
    padding: int = 0  # the value of all symbols after a thought's end

    @abstractmethod
    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Sample or score one symbol of every thought.

        Args:
            hidden: (S, B, T, 1 or K, D), one state for all K thoughts of a position or one for each.
            given: uniform numbers (S, B, T, K) or (S, B, T, K, W); with `forced` the symbols themselves.
            forced: score the given symbols instead of sampling.
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
    # Scaled by the rounded sum, and below it: so that the entry found is larger than the one before it.
    points = torch.minimum(noise * total, torch.nextafter(total, torch.zeros_like(total)))
    # NaN is found after all symbols; a seed that has diverged must not stop the others.
    return torch.searchsorted(cumulative, points, right=True).clamp_(max=probs.shape[-1] - 1)


class _Draw(torch.autograd.Function):
    """The sampling of J symbols from each row of logits, with log-probabilities and the row's entropy.

    ∂ log p(s) / ∂ logits = 1_s − p        ∂ H / ∂ logits = −p ⊙ (log p + H)
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, noise: Tensor, forced: bool) -> tuple[Tensor, Tensor, Tensor]:
        log_probs = log_softmax(logits)
        probs = log_probs.exp()
        symbols = noise if forced else sample_symbols(probs, noise)
        log_prob = log_probs.gather(-1, symbols)
        # A forbidden symbol has log-probability -inf; its term of the entropy is 0, not NaN.
        finite = log_probs.clamp_(min=-1e30)
        entropy = -row_sums(probs * finite)
        ctx.save_for_backward(finite, entropy, symbols)  # probs are computed again: they are half of it
        ctx.mark_non_differentiable(symbols)
        return symbols, log_prob, entropy

    @staticmethod
    def backward(ctx: Any, _: Any, at_log_prob: Tensor, at_entropy: Tensor) -> tuple[Tensor, None, None]:
        finite, entropy, symbols = ctx.saved_tensors
        # Numbers of a row are added up before they are broadcast to its V entries.
        per_row = at_log_prob.sum(-1) + at_entropy * entropy
        slope = torch.addcmul(-per_row.unsqueeze(-1), -at_entropy.unsqueeze(-1), finite)
        return slope.mul_(finite.exp()).scatter_add_(-1, symbols, at_log_prob), None, None


class TokenHead(ThoughtHead):
    """The reasoner's distribution over thought symbols.

    With a shared LM head the logits are the LM head's (after a projection where the widths differ), and
    thought symbols are tokens.

    A head that ends thoughts has one more output, the last, from a layer of its own, so that the other layers
    start with the same values as without it.
    """

    name = kind = "token"
    native = False  # whether a native function, draw.h, draws from the only layer that makes the logits

    def __init__(
        self,
        num_seeds: int,
        width: int,
        num_symbols: int,
        shared: LMHead | None = None,
        *,
        ends: bool = False,
        layer: Callable[[int, int, int], nn.Module] = Output,
    ) -> None:
        """Build the maps to logits.

        Args:
            num_seeds: S.
            width: D of the reasoner.
            num_symbols: V.
            shared: the LM head, where thought symbols come from it.
            ends: whether the head ends thoughts.
            layer: Zeros makes all symbols, and the end, equally likely; `CosineLinear` bounds their logits.
        """
        super().__init__()
        self.shared = shared
        self.padding = self.num_symbols = num_symbols
        self.end = num_symbols if ends else None
        self.ending = layer(num_seeds, width, 1) if ends else None
        self.projection: nn.Module | None = None
        if shared is None:
            self.projection = layer(num_seeds, width, num_symbols)
        elif sum(shared.widths) != width:
            self.projection = Linear(num_seeds, width, sum(shared.widths))

    @property
    def native_layer(self) -> Linear | None:
        """Return the layer before the softmax where a native function takes it; else None."""
        return self.projection if self.native and isinstance(self.projection, Linear) else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Map states (S, ..., D) to logits (S, ..., thought symbols), the end's last where there is one."""
        out = hidden if self.projection is None else self.projection(hidden)
        logits = out if self.shared is None else self.shared(out.split(self.shared.widths, dim=-1))
        return logits if self.ending is None else torch.cat([logits, self.ending(hidden)], -1)

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return symbols (S, B, T, K) long; one row of logits serves all K while they share one state."""
        shared_state = hidden.shape[3] == 1
        wanted = given if shared_state else given.unsqueeze(-1)
        if (layer := self.native_layer) is not None:
            hidden = hidden.squeeze(3) if shared_state else hidden
            drawn = Draw.apply(hidden, layer.weight, layer.bias, wanted, forced)
        else:
            # Not the states are squeezed: gradients of their several uses would be added in another order.
            logits = self(hidden).squeeze(3) if shared_state else self(hidden)
            drawn = _Draw.apply(logits, wanted.contiguous(), forced)
        symbols, log_prob, entropy = drawn
        if shared_state:
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
    keep_passed: bool = False,
) -> Thoughts:
    """Sample K thoughts at every position, symbol by symbol.

        s_l ~ π(· | x_≤t, start, s_1 … s_{l−1}),    l = 1 … L

    A thought ends after L symbols; earlier where its length is given, or, with a head that ends thoughts,
    where the end is sampled in place of a symbol. Only a sampled end has a log-probability. After its end a
    thought's state stays as it is, its symbols are `head.padding`, its log-probabilities and entropies 0.

    The step up to the first symbol is the same for all K thoughts of a position and runs once (K = 1).
    Nothing is detached here: log-probabilities and entropies are differentiable through the states, and
    through the symbols where the head keeps their path.

    Args:
        core: the reasoner's.
        head: state -> the next symbol; None where L = 0.
        branches: one branch point per position (K = 1).
        noise: (S, B, T, K, L) or (S, B, T, K, L, W) uniform in [0, 1); with L = 0 the reasoner consumes
            the start only.
        forced: (S, B, T, K, L) long or (S, B, T, K, L, Z); symbols to score instead of sampling, padded as
            `Thoughts.symbols` are.
        lengths: (S, B, T, 1 or K) long, where the task sets them; more than L counts as L. Not with a head
            that ends thoughts.
        keep_passed: keep the states that were passed through, in `passed`.

    Returns:
        The thoughts; `branches` has consumed the start marker and all symbols but the last of L.
    """
    rows = core.thought_rows()
    given = noise if forced is None else forced
    if lengths is None and not keep_passed and given.shape[4] and isinstance(head, TokenHead):
        layer = head.native_layer
        if layer is not None and isinstance(core.backbone, GRU) and not core.forgets:
            return _think_natively(core.backbone, layer, rows, branches, given, forced is not None)
    hidden, state = core.backbone.step(marker(rows, START), branches)
    symbols: list[Symbols] = []
    passed: list[BranchState] = []
    live: Tensor | None = None  # which thoughts had a symbol in the last step
    for index, given_now in enumerate(given.unbind(4)):
        assert head is not None
        if symbols:
            hidden, state = step_live(core, symbols[-1].values, rows, state, live)
        passed += [state] if keep_passed else []  # else none outlives its step
        drawing = live if lengths is None else lengths > index
        symbols.append(_draw(head, hidden, given_now, drawing, forced=forced is not None))
        live = drawing if head.end is None else symbols[-1].values != head.end
    if not symbols:
        return Thoughts(given.long(), noise, noise, state, passed=() if keep_passed else None)
    values, log_prob, entropy, prior = (
        None if each[0] is None else torch.stack(each, 4) for each in zip(*symbols, strict=True)
    )
    assert values is not None
    thoughts = Thoughts(
        values, log_prob, entropy, state, prior, passed=tuple(passed) if keep_passed else None
    )
    length = lengths_of(values, head, lengths)
    if length is None or lengths is not None:
        return thoughts._replace(length=length)
    return thoughts._replace(length=length, unfinished=length == len(symbols))


def lengths_of(symbols: Tensor, head: ThoughtHead | None, lengths: Tensor | None) -> Tensor | None:
    """Return how long thoughts are, (S, B, T, K) long: as given, or up to their end; None: all of L.

    Args:
        symbols: (S, B, T, K, L, ...).
        head: that drew them.
        lengths: (S, B, T, 1 or K) long, where the task sets them.
    """
    if lengths is not None:
        return lengths.clamp(max=symbols.shape[4]).expand(symbols.shape[:4])
    return None if head is None or head.end is None else (symbols != head.end).sum(-1)


def with_thoughts(trace: Trace, thoughts: Thoughts) -> Trace:
    """Return a trace with what it has of its thoughts."""
    shared = ("log_prob", "entropy", "prior_divergence", "symbols", "length", "unfinished")
    return trace._replace(**{name: getattr(thoughts, name) for name in shared})


def _think_natively(
    gru: GRU, layer: Linear, rows: Tensor, branches: Tensor, given: Tensor, forced: bool
) -> Thoughts:
    """Sample or score thoughts that all have L symbols, by native functions."""
    start, table = rows[:, START : START + 1], rows[:, FIRST_SYMBOL:]
    weights = (gru.weight_hh, gru.bias_hh, layer.weight, layer.bias)
    return Thoughts(*Think.apply(start, table, branches, *weights, given, forced))


def _draw(
    head: ThoughtHead, hidden: Tensor, given: Tensor, drawing: Tensor | None, *, forced: bool
) -> Symbols:
    """Draw one symbol of every thought that has not ended, (S, B, T, K) bool, None: all; pad the others."""
    if drawing is None:
        return head.draw(hidden, given, forced=forced)
    drawn = head.draw(hidden, where_live(drawing, given, 0) if forced else given, forced=forced)
    values = where_live(drawing, drawn.values, head.padding)
    return Symbols(values, *(None if x is None else where_live(drawing, x, 0.0) for x in drawn[1:]))
