"""Notation and the values that flow between the parts.

S  seeds trained side by side
B  batch
T  positions (after `focus`, and in a Context: the thinking positions only)
K  thoughts per position
L  symbols per thought, at most where thoughts end apart
N  tokens predicted per position
V  vocabulary
D  hidden width
Z  width of a continuous thought symbol

The axis order is always (S, B, T, K, L, D); a size-1 axis broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

BranchState: TypeAlias = Any  # a backbone's own memory of every branch; only the backbone looks inside


class Ahead(NamedTuple):
    """The N tokens that a thinking position predicts, its own target the first of them."""

    targets: Tensor  # (S, B, T, N) long, the targets of the positions t … t + N − 1
    weights: Tensor  # (S, B, T, N) float, 1 where such a position is there and counts, else 0
    oracle: Tensor | None = None  # (S, B, T, N, V) true log p(target | its own prefix)


class Batch(NamedTuple):
    """Sequences drawn from a task."""

    inputs: Tensor  # (S, B, T) long
    targets: Tensor  # (S, B, T) long, what is to be predicted at each position
    weights: Tensor  # (S, B, T) float, 0 where a position does not count
    think: Tensor  # (S, B, T) bool, the positions that think; equally many in every sequence
    oracle: Tensor | None = None  # (S, B, T, V) true log p(target | prefix), where the task knows it
    ahead: Ahead | None = None  # filled by `focus` where N > 1
    thought_length: Tensor | None = None  # (S, B, T) long, symbols per thought where the task gives them
    total: Callable[[Tensor], Tensor] | None = None  # sums over processes with a share each; None: one

    @property
    def lengths(self) -> Tensor | None:
        """`thought_length` for all thoughts of a position, (S, B, T, 1)."""
        return None if self.thought_length is None else self.thought_length.unsqueeze(-1)


class Context(NamedTuple):
    """What reading leaves behind, gathered to the thinking positions."""

    base: Tensor | None  # (S, B, T, D) base_lm outputs; None when the prediction may not see them
    branches: BranchState | None  # base_reasoner: one resumable branch point per position, K = 1
    reasoner: Tensor | None = None  # (S, B, T, D) base_reasoner outputs, where a critic or r_ψ reads them
    ahead: Tensor | None = None  # (S, B, T, N, D) base_lm outputs at t … t + N − 1; None where N = 1
    following: Tensor | None = (
        None  # (S, B, T, N − 1) long, the tokens after t, where readings go on over them
    )
    last: Tensor | None = None  # (S, B, T) long, the token at t, where the interpreter hears it again


class Thoughts(NamedTuple):
    """K thoughts at every position."""

    symbols: Tensor  # (S, B, T, K, L) long, or (S, B, T, K, L, Z) float
    log_prob: Tensor | None  # (S, B, T, K, L) per symbol, differentiable; None: symbols without a density
    entropy: Tensor | None  # (S, B, T, K, L) of each symbol's distribution, differentiable
    branches: BranchState  # the reasoner's state after the start marker and all symbols but the last
    prior_divergence: Tensor | None = None  # (S, B, T, K, L) KL of each symbol's distribution to N(0, I)
    length: Tensor | None = None  # (S, B, T, K) long, symbols before the end; None: L each
    unfinished: Tensor | None = None  # (S, B, T, K) bool, no end drawn within L; None: none is drawn

    def live(self, place: int) -> Tensor | None:
        """Whether each thought has a symbol at this place of the axis L, (S, B, T, K); None: all have."""
        return None if self.length is None else self.length > place

    @property
    def given_length(self) -> Tensor | None:
        """`length` where the task gave it; None where the symbols themselves tell."""
        return self.length if self.unfinished is None else None


class Trace(NamedTuple):
    """All that an objective sees of a model; None where absent."""

    logits: Tensor  # (S, B, T, K, N, V); K = 1 when not reasoning
    log_prob: Tensor | None = None  # (S, B, T, K, L) of each thought symbol
    entropy: Tensor | None = None  # (S, B, T, K, L) of each thought symbol's distribution
    thought_weight: Tensor | None = None  # (S, B, T, K) how open the mixer is to each thought
    base_logits: Tensor | None = None  # (S, B, T, N, V) of the same head with no thought
    average_logits: Tensor | None = None  # (S, B, T, N, V) with the average reading of the other positions
    greedy_logits: Tensor | None = None  # (S, B, T, N, V) with the thought of the likeliest symbols
    value: Tensor | None = None  # (S, B, T) a critic's: the expected reward, or β log Σ_h exp(r / β)
    learned_reward: Tensor | None = None  # (S, B, T, K) r_ψ(h, x), differentiable in ψ alone
    sampler_log_prob: Tensor | None = None  # (S, B, T, K) log-density that each thought was drawn from
    reference_log_probs: Tensor | None = None  # (S, B, T, N, V) log LM(y | x)
    prior_divergence: Tensor | None = None  # (S, B, T, K, L) KL of each symbol's distribution to N(0, I)
    symbols: Tensor | None = None  # (S, B, T, K, L) or (S, B, T, K, L, Z) of the thoughts, to be scored again
    length: Tensor | None = None  # (S, B, T, K) long, symbols of each thought; None: L each
    unfinished: Tensor | None = None  # (S, B, T, K) bool, no end drawn within L symbols
    penalty: Tensor | None = None  # (S, B, T, K) what is taken from each thought's reward, no gradient
    running_reward: Tensor | None = None  # (S,) moving mean of past rewards, kept by the training loop


class Model(Protocol):
    """A model as training and evaluation see it; model/latent_reasoner.py says more."""

    predicts_without_thought: bool  # whether it predicts without a thought too
    num_ahead: int  # N

    def read(self, inputs: Tensor, positions: Tensor | None) -> Context:
        """Inputs (S, B, T) -> the context at the positions (S, B, T'), or at all where None."""
        ...

    def at(self, context: Context, index: Tensor) -> Context:
        """The context at some of its positions, index (S, B, T')."""
        ...

    def think(
        self,
        context: Context,
        noise: Tensor,
        forced: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        off_policy: bool = False,
    ) -> Thoughts | None:
        """Noise in [0, 1), or forced symbols, (S, B, T, K, L, ...) -> thoughts; None: a model without.

        Lengths (S, B, T, 1 or K) end them by force.
        """
        ...

    def talk(self, context: Context, thoughts: Thoughts | None, floor: float = 0.0) -> Trace:
        """The prediction with each thought; the floor is the least weight that a weighed thought has."""
        ...

    def __call__(
        self,
        inputs: Tensor,
        positions: Tensor | None,
        noise: Tensor,
        forced: Tensor | None = None,
        targets: Tensor | None = None,
        floor: float = 0.0,
        lengths: Tensor | None = None,
    ) -> Trace:
        """Read, think and talk; with targets (S, B, T') a critic, if there is one, says what it expects."""
        ...


def focus(batch: Batch, positions: Tensor | None, num_ahead: int = 1) -> Batch:
    """The batch at some of its positions, such as the thinking ones: T shrinks to their number.

    Args:
        batch: T counts every position.
        positions: (S, B, T') long, from `thinking_positions`; None: all.
        num_ahead: N, the tokens that each position predicts.

    Returns:
        The same sequences, T counting the positions in the order given; with `ahead` where N > 1. A
        position's own weight stays that of all its tokens: where it is 0, none of them counts.
    """
    ahead = _ahead(batch, positions, num_ahead) if num_ahead > 1 else None
    if positions is None:
        return batch if ahead is None else batch._replace(ahead=ahead)
    oracle = None if batch.oracle is None else pick_positions(batch.oracle, positions)
    length = None if batch.thought_length is None else batch.thought_length.gather(2, positions)
    inputs, targets, weights, think = (x.gather(2, positions) for x in batch[:4])
    return Batch(inputs, targets, weights, think, oracle, ahead, length)


def _ahead(batch: Batch, positions: Tensor | None, num_ahead: int) -> Ahead:
    places, there = places_ahead(batch.inputs, positions, num_ahead)
    counts = (pick_positions(batch.weights, places) > 0) & there
    oracle = None if batch.oracle is None else pick_positions(batch.oracle, places)
    return Ahead(pick_positions(batch.targets, places), counts.to(batch.weights.dtype), oracle)


def places_ahead(inputs: Tensor, positions: Tensor | None, num_ahead: int) -> tuple[Tensor, Tensor]:
    """Where the tokens ahead of each position stand: t, t + 1, … t + N − 1.

    Args:
        inputs: (S, B, T), whose positions they are.
        positions: (S, B, T') long, some of them; None: all.
        num_ahead: N.

    Returns:
        (S, B, T', N) long, the last position in place of those beyond the sequence, and bool, whether
        it is there: no position of another token ever stands in for one that is missing.
    """
    if positions is None:
        positions = torch.arange(inputs.shape[-1], device=inputs.device).expand(inputs.shape)
    places = positions.unsqueeze(-1) + torch.arange(num_ahead, device=inputs.device)
    last = inputs.shape[-1] - 1
    return places.clamp(max=last), places <= last


def pick_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Entries of the axis T.

    Args:
        x: (S, B, T, ...).
        positions: (S, B, T') or (S, B, T', N) long.

    Returns:
        (S, B, T', ...) or (S, B, T', N, ...).
    """
    flat, rest = positions.flatten(2), x.shape[3:]
    index = flat.view(*flat.shape, *(1 for _ in rest)).expand(*flat.shape, *rest)
    return x.gather(2, index).unflatten(2, positions.shape[2:])


def rows(batch: Batch, span: slice) -> Batch:
    """Some of a batch's sequences, before `focus`: a span of the axis B."""
    inputs, targets, weights, think, oracle, _, length, _ = batch
    oracle, length = (None if x is None else x[:, span] for x in (oracle, length))
    inputs, targets, weights, think = (x[:, span] for x in (inputs, targets, weights, think))
    return Batch(inputs, targets, weights, think, oracle, None, length)


def thinking_positions(batch: Batch) -> Tensor | None:
    """Indices of the thinking positions; None when every position thinks.

    Returns:
        (S, B, T') long, T' the number of thinking positions, ascending; or None.

    Raises:
        ValueError: sequences think at different numbers of positions.
    """
    think = batch.think
    count = int(think[0, 0].sum())
    if not bool((think.sum(-1) == count).all()):
        raise ValueError("Batch.think: every sequence must think at equally many positions")
    if count == think.shape[-1]:
        return None
    return think.nonzero()[:, -1].view(*think.shape[:-1], count)
