"""What a model predicts, and its parts that only some objectives need."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from toyqs.model.critics import RewardModel, RewardOfPrediction, ValueHead
from toyqs.model.predicting.gold import GoldHead
from toyqs.model.predicting.offsets import Offsets
from toyqs.model.predicting.prefixes import Prefixes
from toyqs.model.thoughts import ThoughtHead


class Horizon(NamedTuple):
    """The tokens that a position predicts, and the readings that it predicts them from; see `talk`."""

    num_tokens: int = 1  # N
    interpreter_reads_on: bool = False  # each token from a reading of its own; else all from the first one
    offsets: Offsets | None = None  # where all tokens are predicted from what was read up to the position


ONE_TOKEN = Horizon()


class Auxiliaries(NamedTuple):
    """Parts that only some objectives need."""

    extra_predictions: frozenset[str] = frozenset()  # "base": with no thought; "average": see `Trace`
    greedy_head: ThoughtHead | None = None  # samples the thoughts of `Trace.greedy_logits`; None: no such
    critic: ValueHead | None = None
    sampler: ThoughtHead | None = None  # samples off-policy thoughts; None: the thought head does
    reward_model: RewardModel | RewardOfPrediction | None = None
    prefixes: Prefixes | None = None  # predictions with them; None: nobody reads such
    gold_head: GoldHead | None = None  # says the right thought; None: the policy thinks it, or there is none


def average_of_others(reading: Tensor) -> Tensor:
    """Average the readings of all other positions' thoughts: (S, B, T, K, …, E) -> (S, B, T, 1, …, E)."""
    reading = reading.detach()
    own = reading.sum(3, keepdim=True)
    others = reading.shape[1:4].numel() - reading.shape[3]
    return (own.sum((1, 2), keepdim=True) - own) / max(1, others)
