"""Settings that cannot change a run because of its other settings (ConfigSpace: conditional keys)."""

from __future__ import annotations

from collections.abc import Callable

from toyqs.config.run_config import RunConfig
from toyqs.objectives.registry import all_fields, fields_of, objective_class
from toyqs.objectives.rewards import OWN_LOSS, READ_REFERENCE

KEYS_OF_TRANSFORMER = (
    *("model_n_layer", "model_n_head", "model_n_kv_head", "autocast", "branch_attention"),
    "qk_clip",
)

KEYS_OF_REFERENCE = ("reference", "reference_decay", "reference_run")

KEYS_OF_REWARD = ("reward", "reward_beta", *KEYS_OF_REFERENCE)

KEYS_OF_POLICY = (
    *KEYS_OF_REWARD,
    *("objective", "baseline", "advantage_scale", "credit", "temperature", "temperature_scale"),
    *("clip_ratio", "clip_each", "inner_steps", "value_sees", "critic_loss_beta", "thought_kl_beta"),
    *("learned_reward", "reward_sees", "trajectory_alpha", "coherence_beta"),
    *("length_penalty", "punish_unfinished", "schedule_punfinished", "shuffle_rewards"),
)

KEYS_OF_COHERENCE = ("coherence_semantic", "coherence_syntactic", "coherence_predictive")

KEYS_OF_SYMBOLS = (
    *KEYS_OF_POLICY,
    *("policy_loss_beta", "entropy_encouragement_coef", "entropy_schedule", "trice_samples", "train_nll_num"),
    "prefix_nll_beta",
    *("thought_vocab", "share_lm_head", "meta_token_init"),
    *("length_schedule", "min_reasoning_len"),
    *("thoughts", "latent_dim", "sigma", "gumbel_temperature", "prior_beta", "variable_len", "adaptive_len"),
    *("adaptive_by", "problem_per_symbol"),
    *("sampler", "sampler_temperature", "random_thoughts", "chunk_positions"),
    *("thought_logits", "thought_logit_scale", "markov_reasoner", "interpreter_reads"),
)

KEYS_OF_AHEAD = ("ahead", "ahead_decay", "teacher_forcing_weight")

KEYS_OF_THOUGHTS = (
    *(*KEYS_OF_SYMBOLS, "base_nll_beta"),
    *("reasoner_hidden_dim", "interpreter_hidden_dim", "weight_groups", "mixing", "gate_floor"),
    *("attend_by", "attend_temperature", *KEYS_OF_COHERENCE),
    *("simple_lm_head", "meta_token_mode", "meta_token_scale"),
    *("interpreter_start", "thought_into", "think_at", "hard_quantile", "max_reasoning_len"),
    "branch_attention",
    *("different_eot", "add_last_context_token", "increment_pos_id_for_last_context_token"),
    "hide_last_token",
)

Condition = tuple[tuple[str, ...], Callable[[RunConfig], object]]

# Keys -> what they need in order to matter.
ONLY_IF: tuple[Condition, ...] = (
    (("simple_lm_head", "use_residual"), lambda c: False),  # canonical settings say both by `mixing`
    (KEYS_OF_TRANSFORMER, lambda c: c.backbone != "gru"),
    (("kernels",), lambda c: c.takes_native_kernels),
    (("model_n_kv_head",), lambda c: c.backbone != "gpt2"),
    (("positions_up_to",), lambda c: c.learns_positions),
    (
        ("increment_pos_id_for_last_context_token",),
        lambda c: c.backbone != "gru" and c.add_last_context_token,
    ),
    (("meta_token_scale",), lambda c: c.meta_token_mode != "none"),
    (("hard_quantile",), lambda c: c.think_at == "hard"),
    (("min_reasoning_len",), lambda c: c.length_schedule != "constant"),
    (("adaptive_by",), lambda c: c.adaptive_len),
    (("problem_per_symbol",), lambda c: c.tokens_per_symbol),
    (("gate_floor",), lambda c: c.weighs_thoughts),
    (("attend_by",), lambda c: c.attends),
    (("attend_temperature",), lambda c: c.attends_by_scores),
    (("train_nll_num",), lambda c: not c.attends),  # one prediction has one NLL
    (KEYS_OF_COHERENCE, lambda c: c.judges_thoughts),
    (("coherence_predictive",), lambda c: c.pays_coherence or c.log_coherence),  # no weight knows the target
    *(
        ((f"coherence_{name}",), lambda c, name=name: c.coherence_scores[name][1])
        for name in ("semantic", "syntactic", "predictive")
    ),
    (KEYS_OF_AHEAD, lambda c: c.n_tokens_ahead > 1),
    (("n_tokens_ahead", *KEYS_OF_AHEAD), lambda c: c.use_reasoner or c.predicts_jointly),
    (("base_lm_hidden_dim",), lambda c: c.uses_base_lm or (c.use_reasoner and c.mixer == "add")),
    (KEYS_OF_THOUGHTS, lambda c: c.use_reasoner),
    (KEYS_OF_SYMBOLS, lambda c: c.has_thoughts),
    (KEYS_OF_POLICY, lambda c: c.has_policy_loss),
    (("thought_vocab", "meta_token_init"), lambda c: c.symbols_are_tokens),
    (("latent_dim",), lambda c: c.symbol_kind == "gaussian"),
    (("sigma", "prior_beta"), lambda c: c.symbol_kind in ("gaussian", "state")),
    (("gumbel_temperature",), lambda c: c.symbol_kind == "gumbel"),
    (("share_lm_head", "sigma", "gumbel_temperature"), lambda c: not c.random_thoughts),
    (("sampler_temperature",), lambda c: c.sampler == "tempered"),
    (("warm_start", "warm_start_as"), lambda c: c.has_gold),
    (("prediction_kl_beta",), lambda c: c.penalises_prediction_kl),
    (("thought_logits",), lambda c: c.symbol_kind == "token" and not c.random_thoughts),
    (("thought_logit_scale",), lambda c: c.has_cosine_logits),
    (("markov_reasoner", "interpreter_reads"), lambda c: c.max_reasoning_len > 1),
    (("hide_last_token",), lambda c: "base_reasoner" in c.roles_in_use),
    (("entropy_encouragement_coef", "entropy_schedule"), lambda c: c.symbol_kind != "deterministic"),
    (("entropy_schedule",), lambda c: c.entropy_encouragement_coef),
    (("schedule",), lambda c: c.use_scheduler),
    (("optimizer",), lambda c: c.optimizer != "adam" or c.weight_decay),  # adam without decay is adamw
    (("adjust_lr_fn",), lambda c: c.uses_muon),
    (("grokfast_alpha",), lambda c: c.grokfast_lambda),
    (("infer_pretrained_base",), lambda c: "base_lm" in c.roles_in_use),
    (("infer_pretrained_reasoner",), lambda c: c.use_reasoner),
    (("base_lm_lr",), lambda c: c.base_lm_lr != c.base_lr and "base_lm" in c.roles_in_use),
    (("reasoner_lr",), lambda c: c.reasoner_lr != c.base_lr and "reasoner" in c.roles_in_use),
    (("interpreter_lr",), lambda c: c.interpreter_lr != c.base_lr and "interpreter" in c.roles_in_use),
    (("epochs",), lambda c: c.max_steps <= 0),
    (("seq_len",), lambda c: c.task.length(1) != c.task.length(2)),
)

# The same for what the objective, its reward and its critic read, whatever else they shape.
ONLY_IF_READ: tuple[Condition, ...] = (
    (("policy_loss_beta",), lambda c: objective_class(c).uses_score_function),
    (("reward_beta",), lambda c: c.reward == "kl_reverse"),
    (("trajectory_alpha",), lambda c: c.reward == "trajectory"),
    (("reward_sees",), lambda c: c.learned_reward),
    (("schedule_punfinished",), lambda c: c.punish_unfinished),
    (("value_sees",), lambda c: c.has_critic),
    (
        ("critic_loss_beta",),
        lambda c: (
            (c.has_critic and "baseline" in fields_of(c)) or c.learned_reward or c.sampler == "inference"
        ),
    ),
    (("reference_decay",), lambda c: c.reference == "ema"),
    (("reference_run",), lambda c: c.reference == "checkpoint"),
    (
        KEYS_OF_REFERENCE,
        lambda c: c.reward in READ_REFERENCE or c.penalises_thought_kl or c.penalises_prediction_kl,
    ),
)


def inactive_keys(config: RunConfig) -> set[str]:
    """Return the keys that cannot change this run."""
    active = set(KEYS_OF_REWARD) if config.reward in OWN_LOSS else set()
    active |= set(KEYS_OF_REFERENCE) if config.penalises_prediction_kl else set()
    if config.has_thoughts:
        # these also shape the training of the prediction
        active |= {"objective"} if objective_class(config).changes_prediction_loss else set()
        active |= {"objective", "inner_steps"} if config.inner_steps > 1 else set()
    general = {key for keys, needed in ONLY_IF for key in keys if not needed(config)}
    of_objective = {key for keys, needed in ONLY_IF_READ for key in keys if not needed(config)}
    unread = (all_fields() - fields_of(config)) & vars(config).keys()  # not those of plug-ins alone
    return (general - active) | of_objective | unread
