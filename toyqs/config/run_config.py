"""RunConfig: the keys of a run, and what follows from several of them."""

from __future__ import annotations

from dataclasses import dataclass

from toyqs.config import choices
from toyqs.config.keys import Keys
from toyqs.model.latent_heads import HEADS
from toyqs.model.mixing import MIXERS
from toyqs.model.roles import ROLES, WeightGroups
from toyqs.objectives.advantages import OF_BATCH
from toyqs.objectives.registry import fields_of, from_config, objective_class
from toyqs.objectives.rewards import OWN_LOSS, READ_REFERENCE

MARKERS = 2  # start and end, which a thought adds to its symbols

EM_DASH = "\N{EM DASH}"


@dataclass
class RunConfig(Keys):
    """The settings of a run, and what follows from several of them."""

    @property
    def has_thoughts(self) -> bool:
        """Tell whether there are thoughts of one symbol or more."""
        return self.use_reasoner and self.max_reasoning_len > 0

    @property
    def lengths_vary(self) -> bool:
        """Tell whether thoughts may differ in length."""
        return self.has_thoughts and (self.variable_len or self.adaptive_len)

    @property
    def symbol_kind(self) -> str:
        """Return the kind of a symbol; token where there are none: zero-length thoughts are one run."""
        return HEADS[self.thoughts].kind if self.has_thoughts else "token"

    @property
    def symbols_are_tokens(self) -> bool:
        """Tell whether a symbol is one of a vocabulary, relaxed or not."""
        return self.symbol_kind in ("token", "gumbel")

    @property
    def has_policy_loss(self) -> bool:
        """Tell whether a score function trains the policy, and not the prediction's own gradient."""
        return bool(self.policy_loss_beta) and objective_class(self).uses_score_function

    @property
    def thinks_everywhere(self) -> bool:
        """Tell whether all positions think, wherever the task says."""
        return self.use_reasoner and self.think_at == "all"

    @property
    def off_policy(self) -> bool:
        """Tell whether training draws its thoughts from another distribution than the policy."""
        return self.has_thoughts and self.sampler != "policy"

    @property
    def uses_reference(self) -> bool:
        """Tell whether the reward reads a reference's prediction, if only to report it."""
        return self.reward in READ_REFERENCE and (self.has_thoughts or self.reward in OWN_LOSS)

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
    def mixer(self) -> str:
        """Return the word of the mixer, with `auto` decided."""
        if not self.use_base_lm:
            return "add" if self.simple_lm_head or self.mixing == "add" else "thought"
        if self.use_residual:
            return "sum"
        if self.mixing == "auto":
            together = "concat" if self.pretrained is None else "logits"
            return "add" if self.simple_lm_head else together
        return self.mixing

    @property
    def hands_on(self) -> bool:
        """Tell whether readings are added to base_lm's next inputs."""
        return self.use_reasoner and self.thought_into == "state"

    @property
    def weighs_thoughts(self) -> bool:
        """Tell whether the mixer learns the weight of each thought."""
        return MIXERS[self.mixer].weighs_thoughts

    @property
    def uses_base_lm(self) -> bool:
        """Tell whether base_lm computes anything: not if only thoughts are read and it shares no core."""
        label = WeightGroups.parse(self.weight_groups).label
        alone = self.use_reasoner and label.count(label[0]) == 1
        return self.use_base_lm and not (alone and self.mixer == "thought")

    @property
    def predicts_without_thought(self) -> bool:
        """Tell whether the model can also predict without a thought."""
        interpreter = self.interpreter_hidden_dim or self.reasoner_hidden_dim
        as_wide = self.uses_base_lm and self.base_lm_hidden_dim == interpreter
        return (self.use_base_lm and self.mixer != "thought") or as_wide

    @property
    def tracked_by(self) -> str:
        """Return the tracker, wandb where only its mode is given."""
        return "wandb" if self.tracker == "none" and self.wandb_mode != "disabled" else self.tracker

    @property
    def base_is_given(self) -> bool:
        """Tell whether base_lm starts from a finished run."""
        return any((self.start_from, self.infer_pretrained_base, self.infer_pretrained_base_reasoner))

    @property
    def trains_without_thought(self) -> bool:
        """Tell whether the prediction without a thought has a loss of its own beside the thoughts'."""
        return self.use_reasoner and self.base_nll_beta > 0

    @property
    def has_gold(self) -> bool:
        """Tell whether right thoughts teach it at first: not where it has no state that could say them."""
        return self.warm_start > 0 and not {"base_lm", "reasoner"}.isdisjoint(self.roles_in_use)

    @property
    def has_cosine_logits(self) -> bool:
        """Tell whether the logits of thought symbols are bounded cosines."""
        bounded = self.thought_logits == "cosine" and not self.random_thoughts
        return bounded and self.has_thoughts and self.symbol_kind == "token"

    @property
    def num_symbols(self) -> int:
        """Return how many symbols a thought may be of, where they are tokens."""
        return self.thought_vocab or self.task.vocab_size

    @property
    def predicts_jointly(self) -> bool:
        """Tell whether a position predicts several tokens from what was read up to it."""
        return self.n_tokens_ahead > 1 and self.ahead == "joint"

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
    def num_ahead(self) -> int:
        """Return N, the tokens that each position predicts: 1 without thoughts, but for ahead=joint."""
        return self.n_tokens_ahead if self.use_reasoner or self.predicts_jointly else 1

    @property
    def sequence_length(self) -> int:
        """Return T of the longest sequences, those of training or the held-out ones."""
        return max(self.task.length(self.seq_len), self.task.held_out_length(self.seq_len))

    @property
    def longest_sequence(self) -> int:
        """Return the positions that a sequence, its longest thought and the tokens ahead need together."""
        length = self.sequence_length
        if not self.use_reasoner:  # a plain model must not depend on settings that are inactive in it
            return length
        return length + self.max_reasoning_len + MARKERS + self.num_ahead

    @property
    def learns_positions(self) -> bool:
        """Tell whether positions are rows of a learned table, whose size is this run's choice."""
        return self.backbone == "gpt2" and self.pretrained is None

    @property
    def num_positions(self) -> int:
        """Return how many positions a transformer knows."""
        given = self.positions_up_to if self.learns_positions else None
        return given or self.longest_sequence

    @property
    def interpreter_reads_on(self) -> bool:
        """Tell whether the interpreter reads the true tokens after a thought."""
        return self.num_ahead > 1 and self.ahead == "continue"

    @property
    def marker_start(self) -> int | None:
        """Return the id of the thought symbol whose embedding the markers start as.

        Where a text has no em dash, the literature's choice, a hyphen takes its place.

        Returns:
            None: they start at random; also where no token has the name given, which the checks refuse.
        """
        given = self.meta_token_init if self.has_thoughts and self.symbols_are_tokens else None
        if not isinstance(given, str):
            return given
        names = self.task.symbols(range(self.task.vocab_size))
        wanted = (given, "-") if given == EM_DASH else (given,)
        return next((names.index(name) for name in wanted if name in names), None)

    @property
    def has_critic(self) -> bool:
        """Tell whether a critic learns what thoughts will earn."""
        return from_config(objective_class(self), self).has_critic

    @property
    def num_thinking(self) -> int:
        """Return how many positions of a sequence think, or may be selected to."""
        everywhere = self.thinks_everywhere
        return self.task.length(self.seq_len) if everywhere else self.task.thinking(self.seq_len)

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

    @property
    def widths(self) -> dict[str, int]:
        """Return the hidden width of each role."""
        reasoner = self.reasoner_hidden_dim
        return {
            "base_lm": self.base_lm_hidden_dim,
            "base_reasoner": reasoner,
            "reasoner": reasoner,
            "interpreter": self.interpreter_hidden_dim or reasoner,
        }

    @property
    def rates(self) -> dict[str, float]:
        """Return the peak learning rate of each role, by the same keys as the widths: base_lr, or its own."""
        reasoner = self.reasoner_lr or self.base_lr
        return {
            "base_lm": self.base_lm_lr or self.base_lr,
            "base_reasoner": reasoner,
            "reasoner": reasoner,
            "interpreter": self.interpreter_lr or self.base_lr,
        }

    @property
    def takes_native_kernels(self) -> bool:
        """Tell whether there are native kernels for its backbone and its device.

        A GPT-2 that is a checkpoint may have another activation, or adapters.
        """
        gpt2 = self.backbone == "gpt2" and self.pretrained is None and not self.autocast
        return self.device == "cpu" and (self.backbone == "gru" or gpt2)

    @property
    def width_unit(self) -> int:
        """Return what divides every width: a transformer's heads share it, rotary ones in even parts."""
        return {"gru": 1, "gpt2": self.model_n_head}.get(self.backbone, 2 * self.model_n_head)

    @property
    def roles_in_use(self) -> list[str]:
        """Return the roles that compute something in this run, in the order of ROLES."""
        if not self.use_reasoner:
            return ["base_lm"]
        reasons = self.max_reasoning_len > 0 or self.interpreter_start == "onward"
        unused = set() if self.uses_base_lm else {"base_lm"}
        unused |= set() if reasons else {"base_reasoner", "reasoner"}
        return [role for role in ROLES if role not in unused]
