"""Critics: learned expectations of the rewards of a position's thoughts, which train no part of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toyqs.model.layers import Embedding, Linear, Output, SeedStacked, gather_rows
from toyqs.types import Trace


class ValueHead(SeedStacked):
    """δ(x, y), what thoughts are expected to earn at a position beyond what a prediction that it knows does.

        V(x, y) = r(the prediction) + Σ_n w_n δ_n(x, y_n),    n over the tokens, w_n their weights in a reward

    A layer of 32 over the outputs of base LM and base reasoner at x gives a number for every possible target
    of every token, of which the targets' are taken. Nothing bounds them, so that V fits any reward's range.
    The objective adds r(the prediction), the reward of what `value_sees` names (objectives/objective.py):

        context          none: one number for all targets, the plain value head
        target           none
        base_prediction  the prediction with no thought
        average_thought  the prediction that the average thought of the other positions gives
        greedy_thought   the prediction that the thought of likeliest symbols gives

    A thought's reward varies far more with x and y than with the thought, so that whatever a value leaves
    unexplained of the former drowns the latter. With δ = 0 the last three are exact for a model that does not
    use its thoughts yet: from there it has to learn to think.

    All inputs are detached: a critic trains itself alone.
    """

    hidden = 32

    def __init__(
        self,
        num_seeds: int,
        widths: Sequence[int],
        choices: int,
        num_tokens: int = 1,
        start: float = 0.0,
    ) -> None:
        """Build the layers.

        Args:
            num_seeds: S.
            widths: of the features of x.
            choices: V; 1 where the head does not see the targets.
            num_tokens: N.
            start: what each token is expected to earn where no prediction is known.
        """
        super().__init__()
        self.num_tokens, self.start = num_tokens, start
        self.inner = Linear(num_seeds, sum(widths), self.hidden)
        self.outer = Output(num_seeds, self.hidden, num_tokens * choices)

    def forward(self, features: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Return δ of each token.

        Args:
            features: of x, (S, B, T, width_i) each.
            targets: (S, B, T, N) long.

        Returns:
            (S, B, T, N), with a gradient to this head's own parameters alone.
        """
        inputs = torch.cat([feature.detach() for feature in features], -1)
        values = self.outer(nn.functional.relu(self.inner(inputs))) + self.start
        each = values.unflatten(-1, (self.num_tokens, -1))
        seen = targets.unsqueeze(-1) if each.shape[-1] > 1 else torch.zeros_like(targets).unsqueeze(-1)
        return each.gather(-1, seen).squeeze(-1)


class RewardModel(SeedStacked):
    """r_ψ(h, x), the expected reward of the thought h at a position that has read x.

        r_ψ(h, x) = w · relu(W x + Σ_l e_l(h_l)) + c

    x is the outputs of base LM and base reasoner; e_l is a table of the l-th symbols, or a linear map where
    symbols are vectors. It does not see the target, so it learns the expectation over targets.

    All inputs are detached: it trains itself alone.
    """

    hidden = 32

    def __init__(
        self, num_seeds: int, widths: Sequence[int], length: int, size: int, start: float, chosen: bool
    ) -> None:
        """Build the layers.

        Args:
            num_seeds: S.
            widths: of the features of x.
            length: L.
            size: of a symbol: the number of symbols, or its width Z.
            start: the reward that it expects at first.
            chosen: whether symbols are ids, not vectors.
        """
        super().__init__()
        self.size = size
        self.inner = Linear(num_seeds, sum(widths), self.hidden)
        rows = length * size
        self.symbols = Embedding(num_seeds, rows, self.hidden, std=0.5) if chosen else None
        self.vectors = None if chosen else Linear(num_seeds, rows, self.hidden)
        self.outer = Output(num_seeds, self.hidden, 1)
        self.start = start

    def forward(self, features: Sequence[Tensor], symbols: Tensor, trace: Trace) -> Tensor:
        """Return expected rewards.

        Args:
            features: of x, (S, B, T, width_i) each.
            symbols: of the thoughts, (S, B, T, K, L) long or (S, B, T, K, L, Z).
            trace: not used.

        Returns:
            (S, B, T, K), with a gradient to this model's own parameters alone.
        """
        of_context = self.inner(torch.cat([feature.detach() for feature in features], -1)).unsqueeze(3)
        rewards = self.outer(nn.functional.relu(of_context + self._embed(symbols.detach())))
        return rewards.squeeze(-1) + self.start

    def _embed(self, symbols: Tensor) -> Tensor:
        """Return Σ_l e_l(h_l), (S, B, T, K, hidden)."""
        if self.symbols is None:
            assert self.vectors is not None
            rows = symbols.flatten(4)
            missing = self.vectors.weight.shape[1] - rows.shape[-1]  # a length schedule may shorten thoughts
            return self.vectors(nn.functional.pad(rows, (0, missing)))
        places = torch.arange(symbols.shape[-1], device=symbols.device) * self.size
        return gather_rows(self.symbols.weight, symbols + places).sum(-2)


class RewardOfPrediction(SeedStacked):
    """r_ψ(h, x) = Σ_y D_ψ(y | x) sg log q(y | h, x): the likelihood that a thought is expected to earn.

    Only the distribution of the target is learned, D_ψ = softmax(log q̄ + δ(x)), from the prediction q̄ with
    the average reading of the other positions. How a thought changes each token's likelihood is taken from
    the prediction itself, so that no thought's value has to be learned.

    Like RewardModel it does not see the target, and trains itself alone.
    """

    hidden = 64

    def __init__(self, num_seeds: int, widths: Sequence[int], vocab_size: int) -> None:
        """Build the layers; see RewardModel."""
        super().__init__()
        self.inner = Linear(num_seeds, sum(widths), self.hidden)
        self.outer = Output(num_seeds, self.hidden, vocab_size)

    def forward(self, features: Sequence[Tensor], symbols: Tensor, trace: Trace) -> Tensor:
        """Return expected rewards.

        Args:
            features: of x, (S, B, T, width_i) each.
            symbols: not used.
            trace: logits (S, B, T, K, 1, V) and average_logits (S, B, T, 1, V).

        Returns:
            (S, B, T, K), with a gradient to this model's own parameters alone.
        """
        assert trace.average_logits is not None
        of_context = self.inner(torch.cat([feature.detach() for feature in features], -1))
        at_first = trace.average_logits[:, :, :, 0].detach().log_softmax(-1)
        target_probs = (at_first + self.outer(nn.functional.relu(of_context))).softmax(-1).unsqueeze(3)
        return (target_probs * trace.logits[..., 0, :].detach().log_softmax(-1)).sum(-1)
