"""Which settings go together: each refusal is one line with the key, the value and the remedy."""

from __future__ import annotations

import math
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from toyqs.config.checks.backbone import check_backbone
from toyqs.config.checks.distributed import check_parallel
from toyqs.config.checks.pretrained import check_pretrained
from toyqs.config.checks.reference import REFERENCES, check_reference
from toyqs.config.checks.thoughts import SAMPLERS, THOUGHTS, check_thinking
from toyqs.config.errors import Refusal, refusing
from toyqs.config.resolve import DEBUG_VARIANTS, resolved
from toyqs.config.run_config import WIDTHS, RunConfig
from toyqs.model.backbones.backbone import FAMILIES
from toyqs.model.mixing import MIXERS
from toyqs.model.roles import WeightGroups
from toyqs.objectives.advantages import ADVANTAGE_SCALES
from toyqs.objectives.objective import REWARDS
from toyqs.objectives.registry import registry
from toyqs.objectives.reinforce import GROUP_BASELINES, OF_PREDICTIONS
from toyqs.training import distributed

BASELINES = ("none", *GROUP_BASELINES, "ema", "value", *OF_PREDICTIONS)

CHOICES = {
    "backbone": ("gru", *FAMILIES),
    "mixing": ("auto", *sorted(MIXERS)),
    "interpreter_start": ("afresh", "onward"),
    "think_at": ("marked", "all", "hard"),
    "length_schedule": ("constant", "long_to_short", "short_to_long"),
    "thoughts": THOUGHTS,
    "meta_token_mode": ("none", "reparameterise", "lr_multiplier", "grad_scale"),
    "objective": tuple(registry()),
    "reward": tuple(REWARDS),
    "reference": (None, *REFERENCES),
    "sampler": ("policy", *SAMPLERS),
    "ahead": ("persist", "continue"),
    "baseline": BASELINES,
    "reward_sees": ("thought", "prediction"),
    "value_sees": ("context", "target", "base_prediction", "average_thought", "greedy_thought"),
    "advantage_scale": tuple(ADVANTAGE_SCALES),
    "temperature_scale": ("absolute", "spread"),
    "entropy_schedule": ("constant", "linear"),
    "schedule": ("linear", "cosine"),
    "controls": ("none", "fair"),
    "wandb_mode": ("disabled", "offline", "online"),
    "device": ("cpu", "cuda"),
    "dtype": ("float32", "float64"),
    "branch_attention": ("dense", "flex"),
    "debug_cfg": (None, *DEBUG_VARIANTS),
}

AT_LEAST = {
    **dict.fromkeys((*WIDTHS, "model_hidden_dim", "thought_vocab", "trice_samples", "train_nll_num"), 1),
    **dict.fromkeys(
        ("epochs", "data_loader_batch_size", "grad_acc", "seq_len", "eval_sequences", "processes"), 1
    ),
    **dict.fromkeys(("max_reasoning_len", "nll_loss_beta", "entropy_encouragement_coef", "reward_beta"), 0),
    **dict.fromkeys(("model_n_layer", "model_n_head", "model_n_kv_head"), 1),
    **{"critic_loss_beta": 0, "inner_steps": 1, "n_tokens_ahead": 1, "ahead_decay": 0, "gate_floor": 0},
    **{"teacher_forcing_weight": 0, "latent_dim": 1, "prior_beta": 0, "min_reasoning_len": 1},
    **{"length_penalty": 0, "punish_unfinished": 0, "checkpoint_every": 0, "lora_rank": 0},
    **dict.fromkeys(("clip_gradients", "eval_every", "reference_decay", "thought_kl_beta"), 0),
}

ABOVE_ZERO = (
    *("temperature", "clip_ratio", "sigma", "gumbel_temperature", "meta_token_scale", "sampler_temperature"),
)


def check(config: RunConfig) -> list[str]:
    """Refuse what cannot run, before any work.

    Returns:
        Notes: what the settings imply though they do not say so, one line each.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    _check_choices(config)
    _check_numbers(config)
    _check_seed(config.seed)
    _check_one_width(config)
    _check_groups(config)
    check_pretrained(config)
    notes = _notes(config)
    config = resolved(config)
    if config.data_loader_batch_size % config.grad_acc:
        raise Refusal(
            f"grad_acc={config.grad_acc}: does not divide data_loader_batch_size="
            f"{config.data_loader_batch_size}; give a divisor of it"
        )
    refusing(lambda: config.task.check(config.seq_len))
    if config.think_at == "all" and getattr(config.task, "think_every", 1) > 1:
        raise Refusal(
            f"think_at=all: task.think_every={config.task.think_every} lets fewer positions think; give "
            "think_at=marked or task.think_every=1"
        )
    if config.use_reasoner:
        check_thinking(config)
    elif not config.use_base_lm:
        raise Refusal(
            "use_base_lm=false: with use_reasoner=false nothing is left to predict from; "
            "give use_base_lm=true or use_reasoner=true"
        )
    if not config.nll_loss_beta:
        _check_other_losses(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise Refusal("device=cuda: torch finds no CUDA device here; give device=cpu")
    check_backbone(config)
    check_parallel(config, distributed.ranks())
    check_reference(config)
    _check_runs_dir(config.runs_dir)
    return notes


def _check_choices(config: RunConfig) -> None:
    for key, choices in CHOICES.items():
        value = getattr(config, key)
        if value not in choices:
            known = ", ".join("null" if x is None else x for x in choices)
            raise Refusal(f"{key}={value}: is not a choice; give one of {known}")


def _check_numbers(config: RunConfig) -> None:
    for x in fields(config):
        value = getattr(config, x.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise Refusal(f"{x.name}={value}: is not finite; give a finite number")
        least = AT_LEAST.get(x.name)
        if least is not None and value is not None and value < least:
            raise Refusal(f"{x.name}={value}: is too small; give {x.name}={least} or more")
    for name in ABOVE_ZERO:
        if getattr(config, name) <= 0:
            default = getattr(RunConfig, name)
            raise Refusal(
                f"{name}={getattr(config, name)}: is not above 0; give for example {name}={default}"
            )
    if not 0 < config.hard_quantile < 1:
        raise Refusal(
            f"hard_quantile={config.hard_quantile}: is a share of the positions; give more than 0 and "
            "less than 1"
        )
    if config.reference_decay >= 1:
        raise Refusal(
            f"reference_decay={config.reference_decay}: is less than 1; give for example 0.99, or "
            "reference=initial for a reference that does not move"
        )
    if config.base_lr <= 0:
        raise Refusal(f"base_lr={config.base_lr}: is not above 0; give for example base_lr=0.006")
    if config.max_steps < 1 and config.max_steps != -1:
        raise Refusal(
            f"max_steps={config.max_steps}: trains nothing; give 1 or more, or -1 for the task's own number"
        )


def _check_seed(seed: Any) -> None:
    seeds = seed if isinstance(seed, list) else [seed]
    given = f"seed=[{','.join(map(str, seed))}]" if isinstance(seed, list) else f"seed={seed}"
    if not seeds or any(type(x) is not int or x < 0 for x in seeds):
        raise Refusal(f"{given}: takes whole numbers from 0; give for example seed=7 or seed=[0,1,2,3]")
    if len(set(seeds)) < len(seeds):
        raise Refusal(f"{given}: a seed is there twice and would be the same run; give each seed once")


def _check_one_width(config: RunConfig) -> None:
    if config.model_hidden_dim is None:
        return
    for x in fields(config):
        width = getattr(config, x.name)
        if x.name in WIDTHS and width not in (x.default, config.model_hidden_dim):
            raise Refusal(
                f"{x.name}={width}: model_hidden_dim={config.model_hidden_dim} sets every width; "
                "give only one of them (model_hidden_dim=null for a width per role)"
            )


def _check_groups(config: RunConfig) -> None:
    letters = config.weight_groups
    if not all(isinstance(x, str) for x in letters):
        raise Refusal(f"weight_groups={letters}: takes letters; give for example weight_groups=[A,B,C,D]")
    refusing(lambda: WeightGroups.parse(letters))


def _check_other_losses(config: RunConfig) -> None:
    bonus = config.entropy_encouragement_coef and config.symbol_kind != "deterministic"
    if not config.has_thoughts or not (config.has_policy_loss or bonus):
        raise Refusal("nll_loss_beta=0: leaves no loss to train with; give nll_loss_beta=1")
    if config.controls != "none":
        raise Refusal(
            f"nll_loss_beta=0: leaves the controls of controls={config.controls} no loss to train with; "
            "give nll_loss_beta=1 or controls=none"
        )


def _check_runs_dir(runs_dir: str) -> None:
    folder = Path(runs_dir).absolute()
    there = next(x for x in (folder, *folder.parents) if os.path.exists(x))
    if not (os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)):
        fault = "cannot be written" if os.path.isdir(there) else "is a file"
        raise Refusal(f"runs_dir={runs_dir}: {there} {fault}; give a folder of your own")


def _notes(config: RunConfig) -> list[str]:
    notes = []
    if config.use_reasoner and not config.use_base_lm:
        if resolved(replace(config, use_base_lm=True)).interpreter_start == "onward":
            notes.append(
                "use_base_lm=false sets interpreter_start=afresh: onward would let the context past it"
            )
        if config.simple_lm_head:
            notes.append("simple_lm_head=true has no effect: use_base_lm=false leaves nothing to add to")
    if config.symbol_kind == "deterministic" and config.trice_samples > 1:
        notes.append("thoughts=deterministic sets trice_samples=1: all thoughts of a position are the same")
    if config.use_reasoner and config.meta_token_mode == "grad_scale":
        notes.append(
            "meta_token_mode=grad_scale does next to nothing: Adam divides the scale out again, and clipping "
            "counts it; reparameterise and lr_multiplier do something"
        )
    if not config.use_reasoner and config.controls != "none":
        notes.append(
            f"controls={config.controls} has no effect: use_reasoner=false has no thoughts to control"
        )
    return notes
