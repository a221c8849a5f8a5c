"""The objective of thoughts that the prediction's own gradient reaches, without a score function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from toyqs.objectives import losses, rewards
from toyqs.objectives.objective import Loss, Objective
from toyqs.types import Batch, Trace


@dataclass(frozen=True)
class Pathwise(Objective):
    """The prediction's loss alone, back-propagated through the thoughts to the reasoner (O13, O14, O15).

        nll:   −log q(y | h_i, x), the mean over the thoughts; −r_i for the rewards of OWN_LOSS

    and entropy and prior where the thoughts have them; they are exact here, as the effect of early symbols
    on later distributions is differentiated too. For Gaussian thoughts the expected gradient is that of
    Σ_h π(h | x) log q(y | h, x), as for `Reinforce`, with far lower variance; deterministic thoughts have
    it exactly; relaxed tokens are biased.

    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes"; Jang et al. 2017, "Categorical
    reparameterization with Gumbel-softmax"; Hao et al. 2024, "Coconut".
    """

    name: ClassVar[str] = "pathwise"
    uses_score_function: ClassVar[bool] = False
    changes_prediction_loss: ClassVar[bool] = True
    takes_one_prediction: ClassVar[bool] = True

    train_nll_num: int | None = None  # how many of the K, the first ones, carry the loss; None: all

    def __call__(self, trace: Trace, batch: Batch) -> Loss:
        """Compute the loss of a batch.

        Args:
            trace: logits (S, B, T, K, N, V) with a gradient to the thoughts, and what the reward needs.
            batch: at the thinking positions.

        Returns:
            The parts "nll" and, where the trace has them, "entropy" and "prior".
        """
        token_log_q = rewards.token_log_prob(trace.logits, rewards.tokens(batch))
        discounted = rewards.discounted(batch, self.ahead_decay)
        reward = self.compute_reward(rewards.over_tokens(token_log_q, discounted), trace, discounted)
        score = self.predictor_score(token_log_q, trace, batch)
        means = {"nll": -score[..., : self.train_nll_num].mean(-1), **losses.regularisers(trace)}
        parts = {name: losses.position_mean(value, batch.weights) for name, value in means.items()}
        return Loss(parts, losses.position_mean(reward.detach().mean(-1), batch.weights))
