"""RunConfig: the keys of a run, and what follows from several of them."""

from __future__ import annotations

from dataclasses import dataclass

from toyqs.config.facts.objective import ObjectiveFacts
from toyqs.model.mixing import MIXERS
from toyqs.model.roles import ROLES, WeightGroups


@dataclass
class RunConfig(ObjectiveFacts):
    """The settings of a run, and what follows from several of them: here, about its parts."""

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
        if self.mixing == "attend" and not (self.has_thoughts and self.trice_samples > 1):
            return "concat"  # the weight of a single thought is 1
        return self.mixing

    @property
    def attends(self) -> bool:
        """Tell whether all K thoughts of a position give one prediction."""
        return self.use_reasoner and MIXERS[self.mixer].joins_thoughts

    @property
    def attends_by_scores(self) -> bool:
        """Tell whether the weights of thoughts in it are given by their coherence, and not learned."""
        return self.attends and self.attend_by == "scores"

    @property
    def pays_contributions(self) -> bool:
        """Tell whether a thought earns what it adds to the prediction that the others give."""
        return self.has_thoughts and self.has_policy_loss and self.reward == "contribution"

    @property
    def pays_coherence(self) -> bool:
        """Tell whether thoughts earn by their coherence."""
        return self.has_thoughts and self.has_policy_loss and self.coherence_beta > 0

    @property
    def judges_thoughts(self) -> bool:
        """Tell whether the coherence of thoughts is computed, if only to report it."""
        asked = self.log_coherence and self.has_thoughts and self.coherence_exists
        return self.attends_by_scores or self.pays_coherence or asked

    @property
    def coherence_exists(self) -> bool:
        """Tell whether there is a score of coherence whose share is above 0."""
        return any(share > 0 and exists for share, exists in self.coherence_scores.values())

    @property
    def coherence_scores(self) -> dict[str, tuple[float, bool]]:
        """Return the share of each score of coherence, and whether it exists in this run."""
        alone = self.predicts_without_thought and not (self.hands_on or self.predicts_jointly)
        as_wide = self.base_lm_hidden_dim == (self.interpreter_hidden_dim or self.reasoner_hidden_dim)
        tokens = self.symbol_kind == "token" and self.thought_vocab is None
        return {
            "semantic": (self.coherence_semantic, alone and as_wide and self.uses_base_lm),
            "syntactic": (self.coherence_syntactic, alone and tokens and self.uses_base_lm),
            "predictive": (self.coherence_predictive, alone),
        }

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
    def has_gold(self) -> bool:
        """Tell whether right thoughts teach it at first: not where it has no state that could say them."""
        return self.warm_start > 0 and not {"base_lm", "reasoner"}.isdisjoint(self.roles_in_use)

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
    def uses_muon(self) -> bool:
        """Tell whether Muon steps the matrices of hidden layers."""
        return self.optimizer.startswith("muon")

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
