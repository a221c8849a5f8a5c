"""Critics: what a position's thoughts are expected to earn, learned beside the model and apart from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toyqs.model.layers import Linear, Stacked
from toyqs.types import Trace


class ValueHead(Stacked):
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
