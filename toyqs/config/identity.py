"""A run's identity: its settings with one spelling for one run, and the hash of those that can matter."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import Any

from toyqs.assets import pretrained
from toyqs.config import finished_run
from toyqs.config.inactive import idle_keys
from toyqs.config.resolve import resolved
from toyqs.config.run_config import (
    OUTSIDE_KEY,
    RunConfig,
    marker_symbol,
    mixing_of,
)
from toyqs.model.roles import WeightGroups

# Raised on purpose when the same settings begin to give other numbers.
RESULTS_VERSION = 1

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
        columns["reference_run"] = finished_run.identity(run)
    text = json.dumps(columns | {"results_version": RESULTS_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
