"""Objectives: from a trace and a batch to the parts of the loss, one number per seed each.

The training loop weights the parts and adds them up, so an objective has no weights and no schedule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from toyqs.objectives import coherence, exchange, losses, reward_model, rewards
from toyqs.objectives.rewards import OWN_LOSS, REWARDS
from toyqs.types import Batch, Trace


class Loss(NamedTuple):
    """The parts of a loss, and what a step logs in addition."""

    parts: dict[str, Tensor]  # (S,) each
    reward: Tensor | None = None  # (S,) the mean reward; None: no thoughts to reward
    meters: dict[str, Tensor] | None = None  # (S,) each


class Allowed(NamedTuple):
    """The values that an objective allows for a setting, and why no other: the end of a line of refusal."""

    values: tuple[Any, ...]
    reason: str


# value_sees -> the field of the trace with the prediction whose reward a critic corrects; others: none.
CRITIC_STARTS = {
    "base_prediction": "base_logits",
    "average_thought": "average_logits",
    "greedy_thought": "greedy_logits",
}


@dataclass(frozen=True)
class Objective(ABC):
    """The loss of a batch, from a trace and the batch.

    Its fields are the settings that it reads, by their names; the class variables say the rest of what checks
    and construction have to know. registry.py finds every class that has a name.
    """

    name: ClassVar[str] = ""  # the word after objective=; "": a base class, which cannot be chosen
    least_thoughts: ClassVar[int] = 1  # K
    uses_score_function: ClassVar[bool] = True  # False: the prediction's own gradient trains the thoughts
    changes_prediction_loss: ClassVar[bool] = (
        False  # the predictor's loss is another, whatever policy_loss_beta
    )
    allows_inner_steps: ClassVar[bool] = False  # several steps may use the same thoughts (inner_steps)
    off_policy: ClassVar[bool] = False  # thoughts may be drawn from another law than the policy (sampler)
    needs_density: ClassVar[bool] = False  # it reads trace.sampler_log_prob: thoughts are drawn before a step
    sees_target: ClassVar[bool] = False  # the thoughts that it trains on depend on the target
    takes_one_prediction: ClassVar[bool] = False  # all K thoughts may give one prediction (mixing=attend)
    allowed_values: ClassVar[dict[str, Allowed]] = {}  # setting -> the values it works with; others: any

    reward: str = "likelihood"  # a key of REWARDS
    reward_beta: float = 1.0  # β of kl_reverse
    trajectory_alpha: float = 0.0  # α of trajectory
    ahead_decay: float = 1.0  # a token's weight against that of the one before
    teacher_forcing_weight: float = 1.0  # of the tokens after the first, in the NLL alone
    plugin: dict[str, Any] = field(
        default_factory=dict
    )  # name of a plug-in's reward or baseline -> its settings

    @abstractmethod
    def __call__(self, trace: Trace, batch: Batch) -> Loss:
        """Compute the loss of a batch."""

    @property
    def has_critic(self) -> bool:
        """Tell whether it needs trace.correction, and so a critic that learns next to the model."""
        return False

    def compute_reward(self, log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the rewards (S, B, T, K) from log q (S, B, T, K), differentiable for OWN_LOSS."""
        own = {"kl_reverse": {"beta": self.reward_beta}, "trajectory": {"alpha": self.trajectory_alpha}}
        given = own.get(self.reward) or self.plugin.get(self.reward, {})
        return REWARDS[self.reward](log_q, trace, batch, **given)

    def earned_by(self, logits: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute what one prediction of a position earns, no gradient: (S, B, T, N, V) -> (S, B, T, 1)."""
        return self.earned_with(logits.unsqueeze(3), trace, batch)

    def earned_with(self, logits: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute what other predictions earn, no gradient: (S, B, T, K, N, V) -> (S, B, T, K)."""
        logits = logits.detach()
        other = trace._replace(logits=logits, prefix_logits=logits.unsqueeze(4))
        log_q = rewards.over_tokens(rewards.token_log_prob(other.logits, rewards.tokens(batch)), batch)
        return self.compute_reward(log_q, other, batch)

    def expected(self, value_sees: str, trace: Trace, batch: Batch) -> Tensor:
        """Compute a critic's value: what the prediction that it knows earns, and its correction of that.

        Args:
            value_sees: which prediction; see CRITIC_STARTS.
            trace: with `correction`, and with that prediction.
            batch: with the tokens' weights in a reward.

        Returns:
            (S, B, T), with a gradient to the critic alone.

        Raises:
            ValueError: the trace lacks one of them.
        """
        correction = rewards.over_tokens(self._from(trace, "correction").unsqueeze(3), batch)
        if value_sees in CRITIC_STARTS:
            known = self._from(trace, CRITIC_STARTS[value_sees])
            correction = self.earned_by(known, trace, batch) + correction
        return correction.squeeze(3)

    def _from(self, trace: Trace, field: str) -> Tensor:
        """Return what the trace holds in a field; ValueError, naming both, where it holds nothing."""
        found: Tensor | None = getattr(trace, field)
        if found is None:
            raise ValueError(f"{type(self).__name__} needs trace.{field}")
        return found

    def predictor_score(self, token_log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute what the predictor maximises, log q or a reward of OWN_LOSS.

        Args:
            token_log_q: (S, B, T, K, N) log q of each token.
            trace: what the reward needs.
            batch: before `discounted`.

        Returns:
            (S, B, T, K), differentiable.
        """
        taught = rewards.discounted(batch, self.ahead_decay, self.teacher_forcing_weight)
        log_q = rewards.over_tokens(token_log_q, taught)
        return self.compute_reward(log_q, trace, taught) if self.reward in OWN_LOSS else log_q


@dataclass(frozen=True)
class LikelihoodObjective(Objective):
    """The objective of a model without sampled thoughts: the likelihood, or a reward of OWN_LOSS.

    −log q(y | x)
    """

    def __call__(self, trace: Trace, batch: Batch) -> Loss:
        """Compute the loss of a batch.

        Args:
            trace: logits (S, B, T, 1, N, V).
            batch: at the thinking positions.

        Returns:
            One part, "nll".
        """
        token_log_q = rewards.token_log_prob(trace.logits, rewards.tokens(batch))
        score = self.predictor_score(token_log_q, trace, batch)
        rewards.require_shape("log q", score, batch.weights.unsqueeze(-1).shape)
        return Loss({"nll": losses.position_mean(-score.squeeze(-1), batch.weights)})


nll = LikelihoodObjective()


@dataclass(frozen=True)
class ThoughtObjective(Objective):
    """The base of the objectives of sampled thoughts: rewards, the predictor's loss, the entropy bonus.

        nll:      −log q(y | h_i, x), the mean over the thoughts; −r_i for the rewards of OWN_LOSS
        entropy:  −Σ_l H(π(· | s_<l))  per symbol, on the sampled prefix
        prior:    Σ_l KL(π(· | s_<l) ‖ N(0, I))  likewise, for Gaussian thoughts

    Where a position predicts N tokens, the j-th after the first counts by ahead_decay^j in the reward, and
    by teacher_forcing_weight · ahead_decay^j in the NLL:  log q = Σ_j ahead_decay^j log q(y_{t+j} | ·).

    With coherence_beta above 0 a thought earns that times its coherence too (`coherence.scores`).

    A penalty in the trace is subtracted from the rewards before any baseline; the NLL ignores it. With
    a shuffle in the trace the counted positions exchange what is left (`exchange.exchanged`).

    With `learned_reward` the reward named above is the target of a reward model r_ψ on one half of the
    sequences, and on the other half sg r_ψ(h, x) pays the policy instead of it:

        reward_model:  ½ (sg t_i − r_ψ(h_i, x))²,  the mean over the thoughts
        policy:        as without it, with r_i = sg r_ψ(h_i, x)

    Each part is a mean over the positions of its own half; nll, entropy and prior are over all.

    Entropy and prior are myopic: they leave out that an early symbol changes the distributions of the
    later ones (`maxent` does not).
    """

    train_nll_num: int | None = None  # how many of the K, the first ones, carry the NLL; None: all
    coherence_beta: float = 0.0  # reward of a thought's coherence, as it is from 0 to 1
    learned_reward: bool = False
    reward_sees: str = "thought"  # prediction: r_ψ is fitted on the differences between thoughts alone

    def __call__(self, trace: Trace, batch: Batch) -> Loss:
        """Compute the loss of a batch.

        Args:
            trace: logits (S, B, T, K, N, V), log_prob and entropy (S, B, T, K, L), and what the reward
                and the policy's loss also need.
            batch: at the thinking positions.

        Returns:
            The parts "policy", "nll", "entropy" and, where there are such, "prior", "critic" and
            "reward_model".

        Raises:
            ValueError: shapes disagree, or the trace lacks what is needed.
        """
        if trace.log_prob is None or trace.entropy is None:
            raise ValueError(f"{type(self).__name__} needs a trace with sampled thoughts")
        earned, score = self._earned_and_score(trace, batch)
        batch = rewards.discounted(batch, self.ahead_decay)
        fitting, paying = reward_model.split_to_fit_and_pay(batch) if self.learned_reward else (batch, batch)
        reward = self._policy_reward(earned, trace, paying)
        rewards.require_shape("reward", reward, trace.log_prob.shape[:-1])
        means = {
            "policy": self.policy_loss(reward, trace, paying),
            "nll": self.predictor_loss(score[..., : self.train_nll_num], trace),
            **losses.regularisers(trace),
            **self._auxiliary_losses(reward, earned, trace, batch),
        }
        weights = {"policy": paying.weights, "critic": paying.weights, "reward_model": fitting.weights}
        parts = {name: losses.position_mean(x, weights.get(name, batch.weights)) for name, x in means.items()}
        meters = {
            name: losses.position_mean(x, paying.weights)
            for name, x in self.meters(reward, trace, paying).items()
        }
        if self.learned_reward:
            expected = reward_model.learned(trace)
            meters["reward_fit"] = reward_model.correlation(expected, earned, paying.weights)
        return Loss(parts, losses.position_mean(reward.mean(-1), paying.weights), meters)

    def _earned_and_score(self, trace: Trace, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the rewards, without gradient, and what the predictor maximises, (S, B, T, K) each."""
        token_log_q = rewards.token_log_prob(trace.logits, rewards.tokens(batch))
        discounted = rewards.discounted(batch, self.ahead_decay)
        log_q = rewards.over_tokens(token_log_q, discounted)
        reward = self.compute_reward(log_q, trace, discounted)
        earned = coherence.added(reward.detach(), trace, batch, self.coherence_beta)
        if batch.ahead is not None and self.teacher_forcing_weight != 1.0:
            return earned, self.predictor_score(token_log_q, trace, batch)
        return earned, reward if self.reward in OWN_LOSS else log_q

    def earned(self, trace: Trace, batch: Batch) -> Tensor:
        """Compute what each thought earns, less its penalty, (S, B, T, K), no gradient; see `__call__`."""
        return _less_penalty(self._earned_and_score(trace, batch)[0], trace)

    def _policy_reward(self, earned: Tensor, trace: Trace, paying: Batch) -> Tensor:
        """Compute what pays the policy: earned, or expected by r_ψ, less the penalty, perhaps exchanged."""
        reward = reward_model.learned(trace).detach() if self.learned_reward else earned
        reward = _less_penalty(reward, trace)
        if trace.shuffle is None:
            return reward
        return paying.over_pieces(exchange.exchanged, reward, trace.shuffle, paying.weights)

    def _auxiliary_losses(
        self, reward: Tensor, earned: Tensor, trace: Trace, batch: Batch
    ) -> dict[str, Tensor]:
        """Compute the losses of the critic and of the reward model, (S, B, T) each, where there are such."""
        parts = {}
        critic = self.critic_loss(reward, trace, batch)
        if critic is not None:
            parts["critic"] = critic
        if self.learned_reward:
            parts["reward_model"] = reward_model.squared_error(
                reward_model.learned(trace), earned, apart=self.reward_sees == "prediction"
            )
        return parts

    @abstractmethod
    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the policy's loss per position (S, B, T), from rewards (S, B, T, K) without gradient."""

    def critic_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor | None:
        """Compute the critic's loss per position (S, B, T); None without one."""
        return None

    def meters(self, reward: Tensor, trace: Trace, batch: Batch) -> dict[str, Tensor]:
        """Compute what else is worth logging, per position (S, B, T) each."""
        return {}

    def predictor_loss(self, score: Tensor, trace: Trace) -> Tensor:
        """Compute the predictor's loss per position (S, B, T), from what it maximises (S, B, T, K)."""
        return -score.mean(-1)


def _less_penalty(reward: Tensor, trace: Trace) -> Tensor:
    return reward if trace.penalty is None else reward - trace.penalty
