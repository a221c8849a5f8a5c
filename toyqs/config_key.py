"""A run's identity: its settings with one spelling for one run, and the hash of those that can matter."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import Any

from toyqs import finished, pretrained
from toyqs.config import RunConfig
from toyqs.from_checkpoint import with_checkpoint
from toyqs.idle import idle_keys
from toyqs.model.roles import WeightGroups
from toyqs.traits import (
    WIDTHS,
    has_policy_loss,
    marker_symbol,
    mixing_of,
    thoughts_of,
)

# Raised on purpose when the same settings begin to give other numbers.
RESULTS_VERSION = 1

# Named variants: what each sets.
DEBUG_VARIANTS: dict[str, dict[str, Any]] = {
    "seperateInterpreter": {"weight_groups": ["A", "A", "A", "B"], "interpreter_start": "afresh"},
}

# Settings that cannot change a run's numbers; `info` is a column all the same.
# eval_every is not among them: it decides which steps metrics.jsonl, and so the learning curve, holds.
OUTSIDE_KEY = (
    "force",
    "controls",
    "wandb_mode",
    "runs_dir",
    "processes",
    "checkpoint_every",
    "gradient_checkpointing",
    "shard_optimiser",
    "fsdp",
)

# Settings newer than runs that are kept, with the value that says what was done before: at it they stay out
# of the hash, so that a new setting does not give old runs another name.
ADDED: dict[str, Any] = {
    "task.drawn_from": "all",
    "objective": "reinforce",
    "reward_beta": 1.0,
    "reference": None,
    "backbone": "gru",
    "pretrained": None,
    "lora_rank": 0,
    "model_n_layer": 2,
    "model_n_head": 2,
    "model_n_kv_head": None,
    "autocast": False,
    "branch_attention": "dense",
    "temperature": 0.1,
    "temperature_scale": "absolute",
    "clip_ratio": 0.2,
    "inner_steps": 1,
    "value_sees": "average_thought",
    "critic_loss_beta": 1.0,
    "gate_floor": 0.0,
    "meta_token_init": None,
    "meta_token_mode": "none",
    "meta_token_scale": 10.0,
    "use_residual": False,
    "different_eot": True,
    "add_last_context_token": False,
    "increment_pos_id_for_last_context_token": False,
    "n_tokens_ahead": 1,
    "ahead": "persist",
    "ahead_decay": 1.0,
    "teacher_forcing_weight": 1.0,
    "hard_quantile": 0.75,
    "length_schedule": "constant",
    "min_reasoning_len": 1,
    "thoughts": "token",
    "latent_dim": 4,
    "sigma": 0.3,
    "gumbel_temperature": 1.0,
    "prior_beta": 0.0,
    "reference_decay": 0.99,
    "reference_run": None,
    "thought_kl_beta": 0.0,
    "sampler": "policy",
    "sampler_temperature": 2.0,
    "learned_reward": False,
    "reward_sees": "thought",
    "variable_len": False,
    "adaptive_len": False,
    "length_penalty": 0.0,
    "punish_unfinished": 0.0,
    "schedule_punfinished": False,
}


def resolved(config: RunConfig) -> RunConfig:
    """The settings with everything filled in that follows from others: variants, widths, forced choices."""
    config = replace(config, **DEBUG_VARIANTS.get(config.debug_cfg or "", {}), debug_cfg=None)
    if config.pretrained is not None:
        config = with_checkpoint(config, config.pretrained)
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
    if not config.policy_loss_beta:  # nobody is paid
        config = replace(config, learned_reward=False)
    if not config.use_base_lm:
        config = replace(config, interpreter_start="afresh")
    if not config.use_reasoner:
        config = replace(config, controls="none")
    return config


def canonical(config: RunConfig) -> RunConfig:
    """The settings with one spelling for one run: those that cannot matter are back at their defaults.

    Epochs cannot matter once max_steps is given; until then they stay.
    """
    config = resolved(config)
    config = replace(
        config,
        weight_groups=list(WeightGroups.parse(config.weight_groups).label),
        mixing=mixing_of(config),
        meta_token_init=marker_symbol(config),
        baseline="group_mean" if config.baseline == "trice" else config.baseline,
    )
    defaults = RunConfig()
    return replace(config, **{name: getattr(defaults, name) for name in idle_keys(config)})


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
        `identity()`, such as the content of its file, is hashed by that instead of by its knobs, and a
        checkpoint or a run that is referred to by its files' content.
    """
    columns = settings(config, seed)
    del columns["info"]
    columns = {name: value for name, value in columns.items() if name not in ADDED or value != ADDED[name]}
    if hasattr(config.task, "identity"):
        columns = {name: value for name, value in columns.items() if not name.startswith("task.")}
        columns["task.identity"] = config.task.identity()
    if name := columns.get("pretrained"):
        columns["pretrained"] = pretrained.identity(name)
    if run := columns.get("reference_run"):
        columns["reference_run"] = finished.identity(run)
    text = json.dumps(columns | {"results_version": RESULTS_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
