"""Notation and the values that flow between the parts.

S  seeds trained side by side
B  batch
T  positions (after `focus`, and in a Context: the thinking positions only)
K  thoughts per position
L  symbols per thought, the most where thoughts differ in length
N  tokens predicted per position
V  vocabulary
D  hidden width
Z  width of a continuous thought symbol

The axis order is always (S, B, T, K, L, D); a size-1 axis broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor

# Inputs, positions, targets and weights of a batch, and a share (S,) -> its loss (S,) times that share, by a
# function for the whole step, which adds its gradients to the parameters'.
WholeStep: TypeAlias = "Callable[[Tensor, Tensor | None, Tensor, Tensor, Tensor | None], Tensor]"
BranchState: TypeAlias = Any  # a backbone's memory of every branch; only the backbone knows what it holds


class Ahead(NamedTuple):
    """The N tokens that each thinking position predicts, its own target the first of them."""

    targets: Tensor  # (S, B, T, N) long, the targets of the positions t … t + N − 1
    weights: Tensor  # (S, B, T, N) float, 1 where that position is in the sequence and counts, else 0
    oracle: Tensor | None = None  # (S, B, T, N, V) true log p(target | its own prefix)


class Batch(NamedTuple):
    """Sequences drawn from a task."""

    inputs: Tensor  # (S, B, T) long
    targets: Tensor  # (S, B, T) long, the token to predict at each position
    weights: Tensor  # (S, B, T) float, 0 where a position does not count in the loss
    think: Tensor  # (S, B, T) bool, the positions that think; equally many in every sequence
    oracle: Tensor | None = None  # (S, B, T, V) true log p(target | prefix), where the task knows it
    ahead: Ahead | None = None  # set by `focus` where N > 1
    thought_length: Tensor | None = None  # (S, B, T) long, symbols per thought where the task sets them
    total: Callable[[Tensor], Tensor] | None = None  # sum over the processes that share the batch; None: one
    jointly: Callable[..., Tensor] | None = None  # see `over_pieces`; None: this is all of the batch
    gold: Tensor | None = None  # (S, B, T, L) long, the right thought's symbols, −1: none; see `Task.gold`
    hint: Tensor | None = None  # (S, B, H) long, what may be read before a sequence; see `Task.hint`
    start: Tensor | None = None  # (S, B) long, the place in its text where a sequence begins
    problem_length: Tensor | None = None  # (S, B, T) long, see `Task`; where the tokens do not tell it

    def over_pieces(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Compute what one position's part of a function depends on others for, over the whole batch.

        Args:
            function: of tensors (S, B, T, ...); its result has such axes too, or one number per seed.
            tensors: at this batch's positions. Where it is a piece of a batch, the function gets those of
                all pieces.

        Returns:
            The result, no gradient to the other pieces; of one with the axes B and T the part of this batch.
        """
        return function(*tensors) if self.jointly is None else self.jointly(function, *tensors)

    @property
    def lengths(self) -> Tensor | None:
        """Return `thought_length` with an axis for a position's thoughts, (S, B, T, 1)."""
        return None if self.thought_length is None else self.thought_length.unsqueeze(-1)


class Context(NamedTuple):
    """The result of reading the sequences, gathered to the thinking positions."""

    base: Tensor | None  # (S, B, T, D) base_lm's outputs; None where the prediction may not see them
    branches: BranchState | None  # base_reasoner's state after each position, where thoughts begin; K = 1
    reasoner: Tensor | None = None  # (S, B, T, D) base_reasoner's outputs, where a critic or r_ψ reads them
    ahead: Tensor | None = None  # (S, B, T, N, D) base_lm's outputs at t … t + N − 1; None where N = 1
    following: Tensor | None = None  # (S, B, T, N − 1) long, the next tokens, where the interpreter reads on
    last: Tensor | None = None  # (S, B, T) long, the token at t, where the interpreter reads it once more
    first: int = 0  # the position of the sequences' first token, where positions are learned
    tokens: Tensor | None = (
        None  # (S, B, all T) long, where base_lm reads after the thoughts (thought_into=state)
    )
    positions: Tensor | None = None  # (S, B, T) long, which of these think; None: all
    base_branches: BranchState | None = None  # base_lm's state after each position, where it scores symbols


class Thoughts(NamedTuple):
    """K thoughts at every position."""

    symbols: Tensor  # (S, B, T, K, L) long, or (S, B, T, K, L, Z) float
    log_prob: Tensor | None  # (S, B, T, K, L) of each symbol, differentiable; None: it has no density
    entropy: Tensor | None  # (S, B, T, K, L) of each symbol's distribution, differentiable
    branches: BranchState  # the reasoner's state after the start marker and all symbols but the last
    prior_divergence: Tensor | None = None  # (S, B, T, K, L) KL of each symbol's distribution to N(0, I)
    length: Tensor | None = None  # (S, B, T, K) long, symbols before the end; None: L each
    unfinished: Tensor | None = None  # (S, B, T, K) bool, no end sampled within L; None: ends are not sampled
    passed: tuple[BranchState, ...] | None = (
        None  # after the start marker and 0 … L − 1 symbols; None: not kept
    )

    def live(self, index: int) -> Tensor | None:
        """Return which thoughts have a symbol of this index on the axis L, (S, B, T, K) bool; None: all."""
        return None if self.length is None else self.length > index

    @property
    def given_length(self) -> Tensor | None:
        """Return `length` where the task set it; None where it follows from the symbols."""
        return self.length if self.unfinished is None else None


class Shares(NamedTuple):
    """How much each score counts in the coherence of a thought, before they are scaled to add up to 1."""

    semantic: float = 0.4
    syntactic: float = 0.3
    predictive: float = 0.3


class Coherence(NamedTuple):
    """How well thoughts fit what base_lm makes of their context; None where a score does not exist."""

    semantic: Tensor | None  # (S, B, T, K) in [0, 1], of the directions of reading and base state
    syntactic: Tensor | None  # (S, B, T, K) in [0, 1], of the symbols under base_lm
    alone: Tensor | None = (
        None  # (S, B, T, K, V) logits with each thought alone, of the first token; no gradient
    )
    none: Tensor | None = None  # (S, B, T, 1, V) the same without a thought
    shares: Shares = Shares()

    def mean(self, predictive: Tensor | None = None) -> Tensor:
        """Compute the mean of the scores that there are, by their shares, (S, B, T, K).

        Args:
            predictive: (S, B, T, K) the score that knows the target; None: without it.

        Raises:
            ValueError: there is none that counts.
        """
        scores = (self.semantic, self.syntactic, predictive)
        found = [(share, x) for share, x in zip(self.shares, scores, strict=True) if x is not None and share]
        if not found:
            raise ValueError("no score of coherence exists whose share is above 0")
        (share, first), *others = found
        summed = sum((own * x for own, x in others), share * first)
        return summed / sum(own for own, _ in found)


class Trace(NamedTuple):
    """The outputs of a model that an objective sees; None where the model has no such output."""

    logits: (
        Tensor  # (S, B, T, K, N, V); K = 1 when not reasoning, and where all K thoughts give one prediction
    )
    log_prob: Tensor | None = None  # (S, B, T, K, L) of each thought symbol
    entropy: Tensor | None = None  # (S, B, T, K, L) of each thought symbol's distribution
    thought_weight: Tensor | None = None  # (S, B, T, K) the weight that the mixer gives each thought
    attention: Tensor | None = None  # (S, B, T, K) each thought's share of the one prediction; None: one each
    without_logits: Tensor | None = (
        None  # (S, B, T, K, N, V) that prediction without each thought, no gradient
    )
    coherence: Coherence | None = None  # of each thought
    base_logits: Tensor | None = None  # (S, B, T, N, V) of the same head with no thought
    average_logits: Tensor | None = None  # (S, B, T, N, V) with the average reading of the other positions
    greedy_logits: Tensor | None = None  # (S, B, T, N, V) with the thought of likeliest symbols
    correction: Tensor | None = None  # (S, B, T, N) a critic's, of the reward of a prediction that it knows
    learned_reward: Tensor | None = None  # (S, B, T, K) r_ψ(h, x), differentiable in ψ alone
    sampler_log_prob: Tensor | None = None  # (S, B, T, K, L) log-density of each symbol under its sampler
    reference_log_probs: Tensor | None = None  # (S, B, T, N, V) log LM(y | x)
    prior_divergence: Tensor | None = None  # (S, B, T, K, L) KL of each symbol's distribution to N(0, I)
    symbols: Tensor | None = None  # (S, B, T, K, L) or (S, B, T, K, L, Z), the thoughts
    length: Tensor | None = None  # (S, B, T, K) long, symbols of each thought; None: L each
    unfinished: Tensor | None = None  # (S, B, T, K) bool, no end sampled within L symbols
    penalty: Tensor | None = None  # (S, B, T, K) subtracted from each thought's reward, no gradient
    running_reward: Tensor | None = None  # (S,) moving mean of past rewards, from the training loop
    shuffle: Tensor | None = None  # (S, B, T) numbers by which positions exchange rewards; None: they do not
    inference_log_prob: Tensor | None = None  # (S, B, T, K, L) of each symbol under the inference network
    prefix_logits: Tensor | None = None  # (S, B, T, K, L, N, V) with a thought's first 0 … L − 1 symbols
    gold_log_prob: Tensor | None = None  # (S, B, T) of the right thought; see `Model.instruct`


class QKClip(Protocol):
    """What keeps the attention logits of one transformer small; model/backbones/qk_clip has it."""

    largest: Any  # its `found`: layer -> (H,), the largest logit of each head since `begin`

    def begin(self) -> None:
        """Forget what earlier steps have measured."""
        ...

    def apply(self) -> None:
        """Scale queries and keys by what was measured since `begin`."""
        ...


class Maps(NamedTuple):
    """The matrices of a hidden layer in a parameter (S, rows, columns), side by side along their outputs."""

    number: int = 1  # of them, all of one shape
    outputs: int = 2  # the parameter's axis of outputs, 1 or 2


class Model(Protocol):
    """The model as training and evaluation see it; model/latent_reasoner.py implements it."""

    predicts_without_thought: bool  # whether `talk` can predict with no thought
    num_ahead: int  # N
    predicts_jointly: bool  # whether all N are predicted from what was read up to the position
    num_symbols: int | None  # V of its thoughts; None: their symbols are vectors, or there are none
    couples_positions: bool  # whether a trace, or what learns from it, depends on what other positions it has
    thinks_in_turn: bool  # whether a thought depends on those at earlier positions
    plain_step: WholeStep | None  # of a model without thoughts; None: trained as all others are

    def read(self, inputs: Tensor, positions: Tensor | None, first: int = 0) -> Context:
        """Read inputs (S, B, T); return the context at positions (S, B, T'), None: at all.

        A first token's position is `first` where positions are learned.
        """
        ...

    def at(self, context: Context, index: Tensor) -> Context:
        """Return the context at some of its positions, index (S, B, T')."""
        ...

    def think(
        self,
        context: Context,
        noise: Tensor,
        forced: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        off_policy: bool = False,
        targets: Tensor | None = None,
    ) -> Thoughts | None:
        """Sample thoughts from noise in [0, 1), or score forced symbols, (S, B, T, K, L, ...).

        Lengths (S, B, T, 1 or K) cut them off. A model without thoughts returns None. Off-policy, an
        inference network samples them knowing the targets (S, B, T, N).
        """
        ...

    def nearest_tokens(self, symbols: Tensor) -> Tensor | None:
        """Return the token nearest to each symbol that is a vector, (S, B, T, K, Z); None: none is."""
        ...

    def talk(self, context: Context, thoughts: Thoughts | None, gate_floor: float = 0.0) -> Trace:
        """Predict with each thought; a mixer that weighs thoughts gives none less weight than the floor."""
        ...

    def __call__(
        self,
        inputs: Tensor,
        positions: Tensor | None,
        noise: Tensor,
        forced: Tensor | None = None,
        targets: Tensor | None = None,
        gate_floor: float = 0.0,
        lengths: Tensor | None = None,
        first: int = 0,
    ) -> Trace:
        """Read, think and talk; with targets (S, B, T', N) a critic, if there is one, adds its correction."""
        ...

    def respond(
        self,
        context: Context,
        noise: Tensor,
        forced: Tensor | None = None,
        targets: Tensor | None = None,
        gate_floor: float = 0.0,
        lengths: Tensor | None = None,
    ) -> Trace:
        """Think and talk, as `__call__` does, from a context already read."""
        ...

    def instruct(
        self,
        context: Context,
        noise: Tensor,
        gold: Tensor,
        gate_floor: float = 0.0,
        lengths: Tensor | None = None,
    ) -> Trace:
        """Think the right thought and talk; a control thinks its own and says the right one from its states.

        Args:
            context: from `read`.
            noise: as in `think`, of which that of the first thought is used.
            gold: (S, B, T, L) long, see `Batch`.
            gate_floor: as in `talk`.
            lengths: as in `think`.

        Returns:
            The trace, K = 1, with `gold_log_prob`.
        """
        ...
