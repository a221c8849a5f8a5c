"""Critics: what a position's thoughts are expected to earn, learned beside the model and apart from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toyqs.model.layers import Embedding, Linear, SeedStacked, gather_rows
from toyqs.types import Trace


class ValueHead(SeedStacked):
    """V(x, y), the expected reward at a position that has read x and whose target is y, whatever the thought.

    A layer of 32 over what the base LM and the base reasoner hold of x gives a number for every possible
    target, of which y's is taken. `sees` says what it is given:

        context          x alone, one number for all targets: the plain value head
        target           x and y
        base_prediction  x, y and the prediction with no thought: V = log softmax(its logits + δ(x))[y]
        average_thought  the same with the prediction that the average thought of the other positions gives
        greedy_thought   the same with the prediction that the thought of likeliest symbols gives

    A thought's reward log q(y | h, x) moves much further with x and y than with the thought, so that what a
    value does not explain of the former drowns the latter. The last form is exact from the start, with δ = 0,
    for a model that pays its thoughts no attention yet: there learning to think has to begin.

    Nothing that it is given gets its gradient: a critic trains no one but itself.
    """

    hidden = 32

    def __init__(self, num_seeds: int, widths: Sequence[int], vocab_size: int, sees: str) -> None:
        """Build the layers.

        Args:
            num_seeds: S.
            widths: of the features of x.
            vocab_size: V.
            sees: see above.
        """
        super().__init__()
        self.sees = sees
        self.inner = Linear(num_seeds, sum(widths), self.hidden)
        self.outer = Linear(num_seeds, self.hidden, 1 if sees == "context" else vocab_size)
        self.start = -math.log(vocab_size)  # a reward that knows nothing

    def forward(self, features: Sequence[Tensor], trace: Trace, targets: Tensor) -> Tensor:
        """Expected rewards.

        Args:
            features: of x, (S, B, T, width_i) each.
            trace: with the logits of the prediction that `sees` names.
            targets: (S, B, T) long.

        Returns:
            (S, B, T).
        """
        given = torch.cat([feature.detach() for feature in features], -1)
        values = self.outer(nn.functional.relu(self.inner(given)))
        if self.sees == "context":
            return values.squeeze(-1) + self.start
        seen = {
            "base_prediction": trace.base_logits,
            "average_thought": trace.average_logits,
            "greedy_thought": trace.greedy_logits,
        }.get(self.sees)
        if seen is None:
            predicted = values + self.start
        else:
            predicted = (seen[:, :, :, 0].detach() + values).log_softmax(-1)
        return predicted.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


class RewardModel(SeedStacked):
    """r_ψ(h, x), the expected reward of the thought h at a position that has read x (O7).

        r_ψ(h, x) = w · relu(W x + Σ_l e_l(h_l)) + c

    x is what the base LM and the base reasoner hold; e_l is a table of the symbols at place l, or a linear
    map where symbols are vectors. It does not see the target, so what it learns is an expectation over it.

    Nothing that it is given gets its gradient: it trains no one but itself.
    """

    hidden = 32

    def __init__(
        self, num_seeds: int, widths: Sequence[int], length: int, size: int, vocab_size: int, chosen: bool
    ) -> None:
        """Build the layers.

        Args:
            num_seeds: S.
            widths: of the features of x.
            length: L.
            size: of a symbol: how many there are to choose from, or its width Z.
            vocab_size: V, whose uniform prediction is the reward that it starts from.
            chosen: whether symbols are choices, not vectors.
        """
        super().__init__()
        self.size = size
        self.inner = Linear(num_seeds, sum(widths), self.hidden)
        rows = length * size
        self.symbols = Embedding(num_seeds, rows, self.hidden, std=0.5) if chosen else None
        self.vectors = None if chosen else Linear(num_seeds, rows, self.hidden)
        self.outer = Linear(num_seeds, self.hidden, 1)
        self.start = -math.log(vocab_size)

    def forward(self, features: Sequence[Tensor], symbols: Tensor, trace: Trace) -> Tensor:
        """Expected rewards.

        Args:
            features: of x, (S, B, T, width_i) each.
            symbols: of the thoughts, (S, B, T, K, L) long or (S, B, T, K, L, Z).
            trace: not read.

        Returns:
            (S, B, T, K), with a gradient to this model's own parameters alone.
        """
        read = self.inner(torch.cat([feature.detach() for feature in features], -1)).unsqueeze(3)
        rewards = self.outer(nn.functional.relu(read + self._hear(symbols.detach())))
        return rewards.squeeze(-1) + self.start

    def _hear(self, symbols: Tensor) -> Tensor:
        """(S, B, T, K, hidden)."""
        if self.symbols is None:
            assert self.vectors is not None
            rows = symbols.flatten(4)
            missing = self.vectors.weight.shape[1] - rows.shape[-1]  # of thoughts shorter than L by now
            return self.vectors(nn.functional.pad(rows, (0, missing)))
        places = torch.arange(symbols.shape[-1], device=symbols.device) * self.size
        return gather_rows(self.symbols.weight, symbols + places).sum(-2)


class RewardOfPrediction(SeedStacked):
    """r_ψ(h, x) = Σ_y D_ψ(y | x) sg log q(y | h, x): the likelihood that a thought is expected to earn.

    Only the law of the target is learned, D_ψ = softmax(log q̄ + δ(x)), from a prediction q̄ that it starts as:
    the one that the average thought of the other positions gives. What a thought does to each token is taken
    from the prediction itself, so that its worth needs no learning thought by thought.

    Like RewardModel it does not see the target, and trains no one but itself.
    """

    hidden = 64

    def __init__(self, num_seeds: int, widths: Sequence[int], vocab_size: int) -> None:
        """Build the layers; see RewardModel."""
        super().__init__()
        self.inner = Linear(num_seeds, sum(widths), self.hidden)
        self.outer = Linear(num_seeds, self.hidden, vocab_size)

    def forward(self, features: Sequence[Tensor], symbols: Tensor, trace: Trace) -> Tensor:
        """Expected rewards.

        Args:
            features: of x, (S, B, T, width_i) each.
            symbols: not read.
            trace: logits (S, B, T, K, 1, V) and average_logits (S, B, T, 1, V).

        Returns:
            (S, B, T, K), with a gradient to this model's own parameters alone.
        """
        assert trace.average_logits is not None
        read = self.inner(torch.cat([feature.detach() for feature in features], -1))
        started = trace.average_logits[:, :, :, 0].detach().log_softmax(-1)
        known = (started + self.outer(nn.functional.relu(read))).softmax(-1).unsqueeze(3)
        return (known * trace.logits[..., 0, :].detach().log_softmax(-1)).sum(-1)
