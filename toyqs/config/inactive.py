"""Settings that cannot change a run because of its other settings (ConfigSpace: conditional keys)."""

from __future__ import annotations

from toyqs.config.run_config import (
    RunConfig,
)
from toyqs.objectives.registry import all_fields, fields_of, objective_class
from toyqs.objectives.rewards import OWN_LOSS, READ_REFERENCE

KEYS_OF_TRANSFORMER = ("model_n_layer", "model_n_head", "model_n_kv_head", "autocast", "branch_attention")

KEYS_OF_REFERENCE = ("reference", "reference_decay", "reference_run")

KEYS_OF_REWARD = ("reward", "reward_beta", *KEYS_OF_REFERENCE)

KEYS_OF_POLICY = (
    *KEYS_OF_REWARD,
    *("objective", "baseline", "advantage_scale", "temperature", "temperature_scale"),
    *("clip_ratio", "inner_steps", "value_sees", "critic_loss_beta", "thought_kl_beta"),
    *("learned_reward", "reward_sees"),
    *("length_penalty", "punish_unfinished", "schedule_punfinished"),
)

KEYS_OF_SYMBOLS = (
    *KEYS_OF_POLICY,
    *("policy_loss_beta", "entropy_encouragement_coef", "entropy_schedule", "trice_samples", "train_nll_num"),
    *("thought_vocab", "share_lm_head", "meta_token_init"),
    *("length_schedule", "min_reasoning_len"),
    *("thoughts", "latent_dim", "sigma", "gumbel_temperature", "prior_beta", "variable_len", "adaptive_len"),
    *("sampler", "sampler_temperature"),
)

KEYS_OF_AHEAD = ("ahead", "ahead_decay", "teacher_forcing_weight")

KEYS_OF_THOUGHTS = (
    *(*KEYS_OF_SYMBOLS, "n_tokens_ahead", *KEYS_OF_AHEAD),
    *("reasoner_hidden_dim", "interpreter_hidden_dim", "weight_groups", "mixing", "gate_floor"),
    *("simple_lm_head", "meta_token_mode", "meta_token_scale"),
    *("interpreter_start", "think_at", "hard_quantile", "max_reasoning_len"),
    "branch_attention",
    *("different_eot", "add_last_context_token", "increment_pos_id_for_last_context_token"),
)


def inactive_keys(config: RunConfig) -> list[str]:
    """Return the keys that cannot change this run."""
    active = set(KEYS_OF_REWARD) if config.reward in OWN_LOSS else set()
    if config.has_thoughts:
        # these also shape the training of the prediction
        active |= {"objective"} if objective_class(config).changes_prediction_loss else set()
        active |= {"objective", "inner_steps"} if config.inner_steps > 1 else set()
    inactive = _inactive_of_the_rest(config) + _inactive_of_kind(config)
    return [name for name in inactive if name not in active] + _inactive_of_objective(config)


def _inactive_of_kind(config: RunConfig) -> list[str]:
    """Return the keys that mean nothing to this kind of symbol."""
    kind, inactive = config.symbol_kind, []
    if kind not in ("token", "gumbel"):
        inactive.append("thought_vocab")
    if kind != "gaussian":
        inactive.append("latent_dim")
    if kind not in ("gaussian", "state"):
        inactive += ["sigma", "prior_beta"]
    if kind != "gumbel":
        inactive.append("gumbel_temperature")
    if config.sampler != "tempered":
        inactive.append("sampler_temperature")
    if kind == "deterministic":
        inactive += ["entropy_encouragement_coef", "entropy_schedule"]
    return inactive


def _inactive_of_objective(config: RunConfig) -> list[str]:
    """Return the keys that this objective, its reward and its critic do not read."""
    read = fields_of(config)
    inactive = sorted(all_fields() - read)
    if not objective_class(config).uses_score_function:
        inactive.append("policy_loss_beta")
    if config.reward != "kl_reverse":
        inactive.append("reward_beta")
    if not config.learned_reward:
        inactive.append("reward_sees")
    if not config.punish_unfinished:
        inactive.append("schedule_punfinished")
    if not config.has_critic:
        inactive.append("value_sees")
    if not (config.has_critic and "baseline" in read) and not config.learned_reward:
        inactive.append("critic_loss_beta")
    return inactive + _inactive_of_reference(config)


def _inactive_of_reference(config: RunConfig) -> list[str]:
    inactive = [] if config.reference == "ema" else ["reference_decay"]
    if config.reference != "checkpoint":
        inactive.append("reference_run")
    if config.reward not in READ_REFERENCE and not config.penalises_thought_kl:
        inactive += KEYS_OF_REFERENCE
    return inactive


def _inactive_of_model(config: RunConfig) -> list[str]:
    inactive = ["simple_lm_head", "use_residual"]  # canonical settings say both by `mixing`
    if config.backbone == "gru":
        inactive += [*KEYS_OF_TRANSFORMER, "increment_pos_id_for_last_context_token"]
    elif config.backbone == "gpt2":
        inactive.append("model_n_kv_head")
    if not config.add_last_context_token:
        inactive.append("increment_pos_id_for_last_context_token")
    if config.meta_token_mode == "none":
        inactive.append("meta_token_scale")
    if config.think_at != "hard":
        inactive.append("hard_quantile")
    if config.length_schedule == "constant":
        inactive.append("min_reasoning_len")
    if not config.weighs_thoughts:
        inactive.append("gate_floor")
    if config.n_tokens_ahead == 1:
        inactive += KEYS_OF_AHEAD
    if not config.uses_base_lm:
        inactive.append("base_lm_hidden_dim")
    return inactive


def _inactive_of_the_rest(config: RunConfig) -> list[str]:
    inactive = _inactive_of_model(config)
    if not config.use_reasoner:
        inactive += KEYS_OF_THOUGHTS
    elif not config.max_reasoning_len:
        inactive += KEYS_OF_SYMBOLS
    if not config.has_policy_loss:
        inactive += KEYS_OF_POLICY
    if not config.entropy_encouragement_coef:
        inactive.append("entropy_schedule")
    if not config.use_scheduler:
        inactive.append("schedule")
    if config.max_steps > 0:
        inactive.append("epochs")
    if config.task.length(1) == config.task.length(2):
        inactive.append("seq_len")
    return inactive
