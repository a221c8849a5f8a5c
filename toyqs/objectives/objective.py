"""Objectives: a trace and a batch -> the parts of the loss, one number per seed each.

The training loop weights the parts and adds them up, so an objective has no weights and no schedule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from toyqs.objectives import losses, reward_model, rewards
from toyqs.types import Batch, Trace


class Loss(NamedTuple):
    """The parts of a loss, each (S,), the mean reward (S,) where there are thoughts to reward, and meters."""

    parts: dict[str, Tensor]
    reward: Tensor | None = None
    meters: dict[str, Tensor] | None = None  # (S,) each: what is logged of a step beside its loss


Reward = Callable[[Tensor, Trace, Batch], Tensor]  # log q (S, B, T, K), trace, batch -> (S, B, T, K)
REWARDS: dict[str, Reward] = {
    "likelihood": rewards.likelihood,
    "accuracy": rewards.accuracy,
    "log_ratio": rewards.log_ratio,
    "kl_forward": rewards.kl_forward,
    "kl_reverse": rewards.kl_reverse,
}
OWN_LOSS = ("kl_forward", "kl_reverse")  # rewards that the predictor climbs too, in place of the likelihood


class Allowed(NamedTuple):
    """The values that an objective takes of a setting, and why no other: the end of a line of refusal."""

    values: tuple[Any, ...]
    reason: str


@dataclass(frozen=True)
class Objective(ABC):
    """A trace and a batch -> the parts of the loss.

    Its fields are the settings that it reads, by their names; the class says the rest of what checks and
    construction have to know. family.py finds every class that has a name.
    """

    name: ClassVar[str] = ""  # of objective=…; "": none of the family
    least_thoughts: ClassVar[int] = 1  # K
    uses_score_function: ClassVar[bool] = True  # False: the prediction's own gradient trains the thoughts
    changes_prediction_loss: ClassVar[bool] = (
        False  # the prediction is trained otherwise too, policy loss or not
    )
    allows_inner_steps: ClassVar[bool] = False  # training may go on with the same thoughts: inner_steps
    off_policy: ClassVar[bool] = False  # thoughts may be drawn by another law than the policy's: sampler
    allowed_values: ClassVar[dict[str, Allowed]] = {}  # setting -> what it can do with; else anything

    reward: str = "likelihood"  # a key of REWARDS
    reward_beta: float = 1.0  # of kl_reverse
    ahead_decay: float = 1.0  # a token's weight against that of the one before
    teacher_forcing_weight: float = 1.0  # of the tokens after the first, in the NLL alone

    @abstractmethod
    def __call__(self, trace: Trace, batch: Batch) -> Loss:
        """The loss of a batch."""

    @property
    def has_critic(self) -> bool:
        """Whether it needs trace.value, and so a critic that learns beside the model."""
        return False


@dataclass(frozen=True)
class LikelihoodObjective(Objective):
    """What a model without sampled thoughts learns from: the likelihood (O1), or a reward of OWN_LOSS.

    −log q(y | x)
    """

    def __call__(self, trace: Trace, batch: Batch) -> Loss:
        """The loss of a batch.

        Args:
            trace: logits (S, B, T, 1, N, V).
            batch: at the thinking positions.

        Returns:
            One part, "nll".
        """
        taught = rewards.discounted(batch, self.ahead_decay, self.teacher_forcing_weight)
        climbed = rewards.over_tokens(rewards.token_log_prob(trace.logits, rewards.tokens(batch)), taught)
        rewards.require_shape("log q", climbed, batch.weights.unsqueeze(-1).shape)
        if self.reward in OWN_LOSS:
            climbed = rewarded(self.reward, self.reward_beta, climbed, trace, taught)
        return Loss({"nll": losses.position_mean(-climbed.squeeze(-1), batch.weights)})


nll = LikelihoodObjective()


def rewarded(name: str, beta: float, log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """The rewards (S, B, T, K) of log q (S, B, T, K), differentiable where a predictor climbs them."""
    if name == "kl_reverse":
        return rewards.kl_reverse(log_q, trace, batch, beta)
    return REWARDS[name](log_q, trace, batch)


def regularisers(trace: Trace) -> dict[str, Tensor]:
    """Minus the entropy of the thoughts' symbols and their divergence from a prior, where there are such.

    Returns:
        "entropy" and "prior", (S, B, T) each, the mean over the K thoughts.
    """
    parts = {}
    if trace.entropy is not None:
        parts["entropy"] = -trace.entropy.sum(-1).mean(-1)
    if trace.prior_divergence is not None:
        parts["prior"] = trace.prior_divergence.sum(-1).mean(-1)
    return parts


@dataclass(frozen=True)
class ThoughtObjective(Objective):
    """What the objectives of sampled thoughts share: rewards, the predictor's loss, the entropy bonus.

        nll:      −log q(y | h_i, x), the mean over the thoughts; −r_i for the rewards of OWN_LOSS
        entropy:  −Σ_l H(π(· | s_<l))  per symbol, on the sampled prefix
        prior:    Σ_l KL(π(· | s_<l) ‖ N(0, I))  likewise, for Gaussian thoughts

    Where a position predicts N tokens, the j-th after the first counts by ahead_decay^j in the reward, and
    by teacher_forcing_weight · ahead_decay^j in the NLL:  log q = Σ_j ahead_decay^j log q(y_{t+j} | ·).

    A penalty in the trace is taken from the rewards before any baseline; the predictor knows nothing of it.

    With `learned_reward` the reward named above is what a reward model r_ψ learns to expect, on one half of
    the sequences, and on the other half sg r_ψ(h, x) pays the policy in its place (O7):

        reward_model:  ½ (sg t_i − r_ψ(h_i, x))²,  the mean over the thoughts
        policy:        as ever, with r_i = sg r_ψ(h_i, x)

    Each part is a mean over the positions of its own half; nll, entropy and prior are over all.

    Entropy and prior are myopic: they leave out that an early symbol changes the distributions of the
    later ones (`maxent` does not).
    """

    train_nll_num: int | None = None  # the first so many of the K carry the NLL; None: all
    learned_reward: bool = False
    reward_sees: str = "thought"  # prediction: r_ψ is fitted on the differences between thoughts alone

    def __call__(self, trace: Trace, batch: Batch) -> Loss:
        """The loss of a batch.

        Args:
            trace: logits (S, B, T, K, N, V), log_prob and entropy (S, B, T, K, L), and what the reward
                and the policy's loss need besides.
            batch: at the thinking positions.

        Returns:
            The parts "policy", "nll", "entropy" and, where there are such, "prior", "critic" and
            "reward_model".

        Raises:
            ValueError: shapes disagree, or the trace lacks what is needed.
        """
        if trace.log_prob is None or trace.entropy is None:
            raise ValueError(f"{type(self).__name__} needs a trace with sampled thoughts")
        each = rewards.token_log_prob(trace.logits, rewards.tokens(batch))
        taught = rewards.discounted(batch, self.ahead_decay, self.teacher_forcing_weight)
        batch = rewards.discounted(batch, self.ahead_decay)
        climbed, predicted = self._scores(each, trace, batch)
        fitting, paying = reward_model.split_to_fit_and_pay(batch) if self.learned_reward else (batch, batch)
        earned = climbed.detach()
        expected = reward_model.learned(trace) if self.learned_reward else earned
        reward = expected.detach() if trace.penalty is None else expected.detach() - trace.penalty
        rewards.require_shape("reward", reward, trace.log_prob.shape[:-1])
        if batch.ahead is not None and self.teacher_forcing_weight != 1.0:
            _, predicted = self._scores(each, trace, taught)
        means = {
            "policy": self.policy_loss(reward, trace, paying),
            "nll": self.predictor_loss(predicted[..., : self.train_nll_num]),
            **regularisers(trace),
        }
        critic = self.critic_loss(reward, trace)
        if critic is not None:
            means["critic"] = critic
        meters = self.meters(reward, trace, paying)
        weights = dict.fromkeys(("policy", "critic", *meters), paying.weights)
        if self.learned_reward:
            means["reward_model"] = reward_model.squared_error(
                expected, earned, apart=self.reward_sees == "prediction"
            )
            weights["reward_model"] = fitting.weights
        parts, seen = (
            {name: losses.position_mean(x, weights.get(name, batch.weights)) for name, x in given.items()}
            for given in (means, meters)
        )
        if self.learned_reward:
            seen["reward_fit"] = reward_model.correlation(expected, earned, paying.weights)
        return Loss(parts, losses.position_mean(reward.mean(-1), paying.weights), seen)

    def _scores(self, each: Tensor, trace: Trace, batch: Batch) -> tuple[Tensor, Tensor]:
        """The rewards and what the predictor climbs, (S, B, T, K), from log q of each token."""
        log_q = rewards.over_tokens(each, batch)
        climbed = rewarded(self.reward, self.reward_beta, log_q, trace, batch)
        return climbed, climbed if self.reward in OWN_LOSS else log_q

    @abstractmethod
    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """The policy's loss per position (S, B, T), from rewards (S, B, T, K) without gradient."""

    def critic_loss(self, reward: Tensor, trace: Trace) -> Tensor | None:
        """What a critic learns from, per position (S, B, T); None without one."""
        return None

    def meters(self, reward: Tensor, trace: Trace, batch: Batch) -> dict[str, Tensor]:
        """What else is worth logging, per position (S, B, T) each."""
        return {}

    def predictor_loss(self, log_q: Tensor) -> Tensor:
        """The predictor's loss per position (S, B, T), from log q (S, B, T, K)."""
        return -log_q.mean(-1)
