"""What follows from several keys about the parts of the loss."""

from __future__ import annotations

from toyqs.config import choices
from toyqs.config.facts.thoughts import ThoughtFacts
from toyqs.objectives.advantages import OF_BATCH
from toyqs.objectives.registry import fields_of, from_config, objective_class
from toyqs.objectives.rewards import OWN_LOSS, READ_REFERENCE


class ObjectiveFacts(ThoughtFacts):
    """The keys, and what follows from them about thoughts and the loss."""

    @property
    def has_policy_loss(self) -> bool:
        """Tell whether a score function trains the policy, and not the prediction's own gradient."""
        return bool(self.policy_loss_beta) and objective_class(self).uses_score_function

    @property
    def uses_reference(self) -> bool:
        """Tell whether the reward or a part of the loss reads a reference's prediction."""
        of_reward = self.reward in READ_REFERENCE and (self.has_thoughts or self.reward in OWN_LOSS)
        return of_reward or self.penalises_prediction_kl

    @property
    def penalises_prediction_kl(self) -> bool:
        """Tell whether predictions pay for their divergence from the reference's."""
        itself = self.reference == "no_thought" and not self.use_reasoner  # of which it is 0
        return bool(self.prediction_kl_beta) and not itself

    @property
    def penalises_thought_kl(self) -> bool:
        """Tell whether thoughts pay for their divergence from those of the reference."""
        return bool(self.thought_kl_beta) and self.has_thoughts and self.has_policy_loss

    @property
    def has_reference_model(self) -> bool:
        """Tell whether there is a second model, which no gradient trains."""
        return self.reference in choices.REFERENCE_MODELS and (
            self.uses_reference or self.penalises_thought_kl
        )

    @property
    def credits_symbols(self) -> bool:
        """Tell whether each symbol of a thought is paid what it adds."""
        return (
            self.has_thoughts
            and self.has_policy_loss
            and self.credit == "prefix"
            and "credit" in fields_of(self)
        )

    @property
    def rewards_steps(self) -> bool:
        """Tell whether a thought's reward is one of all its steps."""
        return self.has_thoughts and self.has_policy_loss and self.reward == "trajectory"

    @property
    def trains_prefixes(self) -> bool:
        """Tell whether predictions with a thought's first symbols alone have a loss of their own."""
        return self.has_thoughts and self.prefix_nll_beta > 0

    @property
    def trains_without_thought(self) -> bool:
        """Tell whether the prediction without a thought has a loss of its own beside the thoughts'."""
        return self.use_reasoner and self.base_nll_beta > 0

    @property
    def has_critic(self) -> bool:
        """Tell whether a critic learns what thoughts will earn."""
        return from_config(objective_class(self), self).has_critic

    @property
    def compares_positions(self) -> bool:
        """Tell whether all positions enter what thoughts are paid, so that none can be taken apart."""
        if not (self.has_thoughts and self.has_policy_loss):
            return False
        read = {self.baseline} if "baseline" in fields_of(self) else set()
        read |= {self.value_sees} if self.has_critic else set()
        return self.learned_reward or "average_thought" in read

    @property
    def depends_on_batch(self) -> bool:
        """Tell whether a position's loss depends on a statistic of the batch (`Batch.over_pieces`)."""
        if not (self.has_thoughts and self.has_policy_loss):
            return False
        scale = self.advantage_scale in OF_BATCH and "advantage_scale" in fields_of(self)
        spread = self.temperature_scale == "spread" and "temperature_scale" in fields_of(self)
        return scale or spread or self.shuffle_rewards
