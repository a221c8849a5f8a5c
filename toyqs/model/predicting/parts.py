"""What a model predicts, and its parts that only some objectives need."""

from __future__ import annotations

from typing import NamedTuple

from toyqs.model.critics import RewardModel, RewardOfPrediction, ValueHead
from toyqs.model.predicting.attending import Judge
from toyqs.model.predicting.gold import GoldHead
from toyqs.model.predicting.inference import InferenceNetwork
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

    extra_predictions: frozenset[str] = (
        frozenset()
    )  # "base": with no thought; "average", "without": see `Trace`
    greedy_head: ThoughtHead | None = None  # samples the thoughts of `Trace.greedy_logits`; None: no such
    critic: ValueHead | None = None
    sampler: ThoughtHead | InferenceNetwork | None = (
        None  # samples off-policy thoughts; None: the thought head does
    )
    reward_model: RewardModel | RewardOfPrediction | None = None
    prefixes: Prefixes | None = None  # predictions with them; None: nobody reads such
    gold_head: GoldHead | None = None  # says the right thought; None: the policy thinks it, or there is none
    judge: Judge | None = None  # scores the coherence of thoughts; None: nobody asks
