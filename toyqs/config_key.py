"""A run's identity: its settings with one spelling for one run, and the hash of those that can matter."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import Any

from toyqs.config import RunConfig
from toyqs.model.roles import WeightGroups

# Raised on purpose when the same settings begin to give other numbers.
RESULTS_VERSION = 1

# Named variants: what each sets.
DEBUG_VARIANTS: dict[str, dict[str, Any]] = {
    "seperateInterpreter": {"weight_groups": ["A", "A", "A", "B"], "interpreter_start": "afresh"},
}

WIDTHS = ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")

# Settings that cannot change a run's numbers; `info` is a column all the same.
# eval_every is not among them: it decides which steps metrics.jsonl, and so the learning curve, holds.
OUTSIDE_KEY = ("force", "controls", "wandb_mode", "runs_dir", "processes")

# Settings newer than runs that are kept, with the value that says what was done before: at it they stay out
# of the hash, so that a new setting does not give old runs another name.
ADDED: dict[str, Any] = {
    "objective": "reinforce",
    "reward_beta": 1.0,
    "reference": None,
    "temperature": 0.1,
    "temperature_scale": "absolute",
    "clip_ratio": 0.2,
    "inner_steps": 1,
    "value_sees": "average_thought",
    "critic_loss_beta": 1.0,
    "gate_floor": 0.0,
    "n_tokens_ahead": 1,
    "ahead": "persist",
    "ahead_decay": 1.0,
    "teacher_forcing_weight": 1.0,
    "thoughts": "token",
    "latent_dim": 4,
    "sigma": 0.3,
    "gumbel_temperature": 1.0,
    "prior_beta": 0.0,
}

GROUP_BASELINES = ("group_mean", "trice", "leave_one_out")  # they compare the K thoughts of a position
OF_TEMPERATURE = (
    *("listwise", "plackett_luce", "weighted_mle", "maxent", "vargrad", "logz_mse", "logz_learned"),
)  # objectives that draw the policy towards exp(reward / temperature)
LOSS_OF_REWARD = ("kl_forward", "kl_reverse")  # rewards that the predictor climbs in place of the likelihood

OF_REWARD = ("reward", "reward_beta", "reference")
OF_POLICY = (
    *OF_REWARD,
    *("objective", "baseline", "advantage_scale", "temperature", "temperature_scale"),
    *("clip_ratio", "inner_steps", "value_sees", "critic_loss_beta"),
)
OF_SYMBOLS = (
    *OF_POLICY,
    *("policy_loss_beta", "entropy_encouragement_coef", "entropy_schedule", "trice_samples", "train_nll_num"),
    *("thought_vocab", "share_lm_head"),
    *("thoughts", "latent_dim", "sigma", "gumbel_temperature", "prior_beta"),
)
WEIGHED = ("gate", "hidden", "logits")  # mixings that weigh each thought against the base
OF_AHEAD = ("ahead", "ahead_decay", "teacher_forcing_weight")
OF_THOUGHTS = (
    *(*OF_SYMBOLS, "n_tokens_ahead", *OF_AHEAD),
    *("reasoner_hidden_dim", "interpreter_hidden_dim", "weight_groups", "mixing", "gate_floor"),
    "simple_lm_head",
    *("interpreter_start", "think_at", "max_reasoning_len"),
)


def resolved(config: RunConfig) -> RunConfig:
    """The settings with everything filled in that follows from others: variants, widths, forced choices."""
    config = replace(config, **DEBUG_VARIANTS.get(config.debug_cfg or "", {}), debug_cfg=None)
    if config.model_hidden_dim is not None:
        widths: dict[str, Any] = dict.fromkeys(WIDTHS, config.model_hidden_dim)
        config = replace(config, **widths, model_hidden_dim=None)
    if config.interpreter_hidden_dim is None:
        config = replace(config, interpreter_hidden_dim=config.reasoner_hidden_dim)
    if thoughts_of(config) == "deterministic":  # all thoughts of a position would be the same
        config = replace(config, trice_samples=1, train_nll_num=1)
    if config.train_nll_num is None:
        config = replace(config, train_nll_num=config.trice_samples)
    if not has_policy_loss(config):  # a group baseline would refuse K = 1 for nothing
        config = replace(config, baseline="none", advantage_scale="none")
    if not config.use_base_lm:
        config = replace(config, interpreter_start="afresh")
    if not config.use_reasoner:
        config = replace(config, controls="none")
    return config


def speaks(config: RunConfig) -> bool:
    """Whether there are thoughts of one symbol or more."""
    return config.use_reasoner and config.max_reasoning_len > 0


def thoughts_of(config: RunConfig) -> str:
    """What a thought symbol is; token where there is none, so that zero-length thoughts are one run."""
    return config.thoughts if speaks(config) else "token"


def has_policy_loss(config: RunConfig) -> bool:
    """Whether a score function trains the policy: not where the prediction's own gradient reaches it."""
    return bool(config.policy_loss_beta) and config.objective != "pathwise"


def mixing_of(config: RunConfig) -> str:
    """How base state and reading meet, `auto` settled."""
    if not config.use_base_lm:
        return "thought"
    if config.mixing == "auto":
        return "add" if config.simple_lm_head else "concat"
    return config.mixing


def base_matters(config: RunConfig) -> bool:
    """Whether base_lm computes anything: not where only the thought is seen and no role shares its core."""
    label = WeightGroups.parse(config.weight_groups).label
    alone = config.use_reasoner and label.count(label[0]) == 1
    return config.use_base_lm and not (alone and mixing_of(config) == "thought")


def tokens_ahead(config: RunConfig) -> int:
    """N: how many tokens each position predicts; a model without thoughts is a plain language model."""
    return config.n_tokens_ahead if config.use_reasoner else 1


def goes_on(config: RunConfig) -> bool:
    """Whether the interpreter reads the true tokens on after a thought."""
    return tokens_ahead(config) > 1 and config.ahead == "continue"


def canonical(config: RunConfig) -> RunConfig:
    """The settings with one spelling for one run: those that cannot matter are back at their defaults.

    Epochs cannot matter once max_steps is given; until then they stay.
    """
    config = resolved(config)
    config = replace(
        config,
        weight_groups=list(WeightGroups.parse(config.weight_groups).label),
        mixing=mixing_of(config),
        baseline="group_mean" if config.baseline == "trice" else config.baseline,
    )
    defaults = RunConfig()
    return replace(config, **{name: getattr(defaults, name) for name in _idle(config)})


def baseline_matters(config: RunConfig) -> bool:
    """Whether the objective compares rewards with a baseline."""
    return config.objective not in (*OF_TEMPERATURE, "pathwise")


def has_critic(config: RunConfig) -> bool:
    """Whether something beside the model learns what its thoughts will earn."""
    valued = config.objective in ("reinforce", "ppo_clip") and config.baseline == "value"
    return valued or config.objective == "logz_learned"


def _idle(config: RunConfig) -> list[str]:
    """The keys that cannot change this run."""
    kept = set(OF_REWARD) if config.reward in LOSS_OF_REWARD else set()
    if speaks(config):
        # these shape the predictor's training too
        kept |= {"objective"} if config.objective in ("multi_sample", "pathwise") else set()
        kept |= {"objective", "inner_steps"} if config.inner_steps > 1 else set()
    idle = _idle_of_the_rest(config) + _idle_of_kind(config)
    return [name for name in idle if name not in kept] + _idle_of_objective(config)


def _idle_of_kind(config: RunConfig) -> list[str]:
    """The keys that mean nothing to this kind of thought symbol."""
    kind, idle = thoughts_of(config), []
    if kind not in ("token", "gumbel"):
        idle.append("thought_vocab")
    if kind != "gaussian":
        idle.append("latent_dim")
    if kind not in ("gaussian", "state"):
        idle += ["sigma", "prior_beta"]
    if kind != "gumbel":
        idle.append("gumbel_temperature")
    if kind == "deterministic":
        idle += ["entropy_encouragement_coef", "entropy_schedule"]
    return idle


def _idle_of_objective(config: RunConfig) -> list[str]:
    idle = ["policy_loss_beta"] if config.objective == "pathwise" else []
    if config.reward != "kl_reverse":
        idle.append("reward_beta")
    if config.reward not in ("log_ratio", *LOSS_OF_REWARD):
        idle.append("reference")
    if config.objective not in OF_TEMPERATURE or config.objective == "plackett_luce":
        idle += ["temperature", "temperature_scale"]
    if config.objective not in ("reinforce", "ppo_clip"):
        idle.append("advantage_scale")
    if not baseline_matters(config):
        idle.append("baseline")
    if config.objective != "ppo_clip":
        idle.append("clip_ratio")
    if not has_critic(config):
        idle.append("value_sees")
    if not (has_critic(config) and baseline_matters(config)):
        idle.append("critic_loss_beta")
    return idle


def _idle_of_model(config: RunConfig) -> list[str]:
    idle = ["simple_lm_head"]
    if mixing_of(config) not in WEIGHED:
        idle.append("gate_floor")
    if config.n_tokens_ahead == 1:
        idle += OF_AHEAD
    if not base_matters(config):
        idle.append("base_lm_hidden_dim")
    return idle


def _idle_of_the_rest(config: RunConfig) -> list[str]:
    idle = _idle_of_model(config)
    if not config.use_reasoner:
        idle += OF_THOUGHTS
    elif not config.max_reasoning_len:
        idle += OF_SYMBOLS
    if not has_policy_loss(config):
        idle += OF_POLICY
    if not config.entropy_encouragement_coef:
        idle.append("entropy_schedule")
    if not config.use_scheduler:
        idle.append("schedule")
    if config.max_steps > 0:
        idle.append("epochs")
    if config.task.length(1) == config.task.length(2):
        idle.append("seq_len")
    return idle


def settings(config: RunConfig, seed: int) -> dict[str, Any]:
    """The columns of a row that say what was run, in the one spelling of `canonical`.

    Returns:
        Key -> number, word, bool or None; `task` is the task's name, its knobs are `task.x`.
    """
    config = canonical(config)
    columns = {name: value for name, value in _plain(config).items() if name not in OUTSIDE_KEY}
    columns |= {"seed": seed, "weight_groups": "".join(config.weight_groups), "task": config.task.name}
    return columns | {f"task.{name}": value for name, value in _plain(config.task).items()}


def _plain(values: Any) -> dict[str, Any]:
    """The fields of a dataclass; 1 and -0.0 are written 1.0 and 0.0 where a float is meant."""
    plain = {x.name: getattr(values, x.name) for x in fields(values)}
    floats = {x.name for x in fields(values) if x.type == "float"}
    return {name: float(value) + 0.0 if name in floats else value for name, value in plain.items()}


def run_key(config: RunConfig, seed: int) -> str:
    """The run's name: equal for equal results, whatever the command line looked like.

    Returns:
        16 hex digits of the hash of all settings that can matter and of RESULTS_VERSION. A task with an
        `identity()`, such as the content of its file, is hashed by that instead of by its knobs.
    """
    columns = settings(config, seed)
    del columns["info"]
    columns = {name: value for name, value in columns.items() if name not in ADDED or value != ADDED[name]}
    if hasattr(config.task, "identity"):
        columns = {name: value for name, value in columns.items() if not name.startswith("task.")}
        columns["task.identity"] = config.task.identity()
    text = json.dumps(columns | {"results_version": RESULTS_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
