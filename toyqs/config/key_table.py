"""A run's key, and the values against which it is hashed: a setting that has its value here stays out.

A new setting comes with a line here, the value that says what was done before it: then no finished run
gets another name. A default that changes leaves its line as it is, and RESULTS_VERSION is raised.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from toyqs.files import by_content

# Raised on purpose when the same settings begin to give other numbers, or when a default changes.
RESULTS_VERSION = 3

KEY = re.compile("[0-9a-f]{16}")  # the name of a run's folder

TABLE_VERSION = 2  # the version of results at which the lines below were the defaults

SETTINGS: dict[str, Any] = {
    "backbone": "gru",
    "pretrained": None,
    "start_from": None,
    "infer_pretrained_base": None,
    "infer_pretrained_reasoner": None,
    "infer_pretrained_base_reasoner": None,
    "lora_rank": 0,
    "model_n_layer": 2,
    "model_n_head": 2,
    "model_n_kv_head": None,
    "positions_up_to": None,
    "base_lm_hidden_dim": 12,
    "reasoner_hidden_dim": 24,
    "interpreter_hidden_dim": None,
    "model_hidden_dim": None,
    "use_reasoner": True,
    "use_base_lm": True,
    "weight_groups": "ABCD",
    "simple_lm_head": False,
    "mixing": "auto",
    "use_residual": False,
    "attend_by": "learned",
    "attend_temperature": 0.1,
    "gate_floor": 0.0,
    "linear_lm_head": True,
    "lm_head_layers": 1,
    "share_lm_head": False,
    "interpreter_start": "afresh",
    "thought_into": "prediction",
    "different_eot": True,
    "add_last_context_token": False,
    "increment_pos_id_for_last_context_token": False,
    "thought_vocab": 6,
    "meta_token_init": None,
    "meta_token_mode": "none",
    "meta_token_scale": 10.0,
    "think_at": "marked",
    "hard_quantile": 0.75,
    "trice_samples": 4,
    "max_reasoning_len": 3,
    "length_schedule": "constant",
    "min_reasoning_len": 1,
    "variable_len": False,
    "adaptive_len": False,
    "adaptive_by": "task",
    "problem_per_symbol": 5,
    "hide_last_token": False,
    "thoughts": "token",
    "latent_dim": 4,
    "sigma": 0.3,
    "gumbel_temperature": 1.0,
    "thought_logits": "linear",
    "thought_logit_scale": 7.0,
    "markov_reasoner": False,
    "interpreter_reads": "all",
    "sampler": "policy",
    "sampler_temperature": 2.0,
    "random_thoughts": False,
    "objective": "reinforce",
    "reward": "likelihood",
    "reward_beta": 1.0,
    "trajectory_alpha": 0.0,
    "reference": None,
    "reference_decay": 0.99,
    "reference_run": None,
    "thought_kl_beta": 0.0,
    "coherence_beta": 0.0,
    "coherence_semantic": 0.4,
    "coherence_syntactic": 0.3,
    "coherence_predictive": 0.3,
    "learned_reward": False,
    "reward_sees": "thought",
    "shuffle_rewards": False,
    "baseline": "leave_one_out",
    "value_sees": "average_thought",
    "critic_loss_beta": 1.0,
    "advantage_scale": "batch_std",
    "credit": "outcome",
    "temperature": 0.1,
    "temperature_scale": "absolute",
    "clip_ratio": 0.2,
    "clip_each": "thought",
    "inner_steps": 1,
    "warm_start": 0,
    "warm_start_as": "thoughts",
    "length_penalty": 0.0,
    "punish_unfinished": 0.0,
    "schedule_punfinished": False,
    "policy_loss_beta": 1.0,
    "nll_loss_beta": 1.0,
    "base_nll_beta": 0.0,
    "prefix_nll_beta": 0.0,
    "prediction_kl_beta": 0.0,
    "entropy_encouragement_coef": 0.15,
    "entropy_schedule": "linear",
    "prior_beta": 0.0,
    "train_nll_num": None,
    "n_tokens_ahead": 1,
    "ahead": "persist",
    "ahead_decay": 1.0,
    "teacher_forcing_weight": 1.0,
    "stage": "train",
    "hint_share": 0.0,
    "base_lr": 0.02,
    "base_lm_lr": None,
    "reasoner_lr": None,
    "interpreter_lr": None,
    "optimizer": "adamw",
    "adjust_lr_fn": "match_rms_adamw",
    "grokfast_lambda": 0.0,
    "grokfast_alpha": 0.98,
    "qk_clip": 0.0,
    "use_scheduler": True,
    "schedule": "cosine",
    "clip_gradients": 1.0,
    "weight_decay": 0.0,
    "max_steps": -1,
    "epochs": 50,
    "data_loader_batch_size": 64,
    "grad_acc": 1,
    "chunk_positions": 0,
    "seq_len": 128,
    "debug_cfg": None,
    "device": "cpu",
    "dtype": "float32",
    "kernels": "torch",
    "autocast": False,
    "branch_attention": "dense",
    "eval_every": 0,
    "eval_sequences": 4096,
}

# Task -> its own settings.
TASK_SETTINGS: dict[str, dict[str, Any]] = {
    "rev_prog": {
        "p": 6,
        "m": 3,
        "k": 3,
        "queries": 4,
        "label_noise": 0.0,
        "held_out_programs": 0.0,
        "seed": 0,
        "reach": 1,
        "curriculum": 0.0,
    },
    "iterate": {"n": 16, "k": 4, "kind": "cycle", "held_out": 0.4, "curriculum": 0.5, "seed": 0, "reach": 1},
    "s5": {
        "group": "s5",
        "positions": 4,
        "asked": "every",
        "drawn_from": "all",
        "reach": 1,
        "curriculum": 0.0,
    },
    "group": {
        "group": "s3",
        "positions": 8,
        "asked": "every",
        "drawn_from": "all",
        "reach": 2,
        "curriculum": 0.5,
    },
    "depo": {"n": 8, "k": 3, "queries": 2, "reach": 2, "curriculum": 0.5},
    "mano": {"modulus": 7, "k": 3, "operators": "+-*", "reach": 2, "curriculum": 0.5},
    "hidden_markov": {
        "states": 16,
        "vocab": 8,
        "positions": 16,
        "transition_sharpness": 4.0,
        "emission_sharpness": 4.0,
        "seed": 0,
    },
    "char_text": {
        "path": None,
        "dataset": None,
        "held_out_fraction": 0.1,
        "curriculum": 0.0,
        "levels": 4,
        "losses": None,
    },
    "token_text": {
        "path": None,
        "dataset": None,
        "tokenizer": None,
        "thinking_tokens": False,
        "held_out_fraction": 0.1,
        "think_every": 1,
        "curriculum": 0.0,
        "levels": 4,
        "losses": None,
    },
}


def key_of(columns: Mapping[str, Any], version: int) -> str:
    """Return the key of the run that has these settings: 16 hex digits.

    Args:
        columns: all settings of the run, as `identity.settings` returns them and config.json holds them.
        version: RESULTS_VERSION when the run was trained.
    """
    return _key(_hashed(columns, version))


def keys_of(columns: Mapping[str, Any], version: int, seeds: Iterable[int]) -> dict[int, str]:
    """Return the keys of the runs that differ in the seed alone, by seed; see `key_of`."""
    hashed = _hashed(columns, version)
    return {seed: _key({**hashed, "seed": seed}) for seed in seeds}


def _hashed(columns: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Return the settings that are not at the values of the tables."""
    own = TASK_SETTINGS.get(columns["task"], {})
    table = SETTINGS | {f"task.{name}": value for name, value in own.items()}
    hashed = {
        name: value
        for name, value in columns.items()
        if name != "info" and (name not in table or value != table[name])
    }
    return by_content(hashed) | {"results_version": version}


def _key(hashed: Mapping[str, Any]) -> str:
    text = json.dumps(hashed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
