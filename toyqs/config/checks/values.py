"""The check of a configuration: every refusal is one line with the key, the value and the remedy."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from toyqs.config.bounds import check_bounds
from toyqs.config.checks.backbone import check_backbone
from toyqs.config.checks.positions import check_ahead
from toyqs.config.checks.pretrained import check_pretrained
from toyqs.config.checks.reference import check_reference
from toyqs.config.checks.rewards import check_inference, check_shuffled_rewards
from toyqs.config.checks.thoughts import check_thinking
from toyqs.config.checks.training.distributed import check_parallel
from toyqs.config.checks.training.hints import check_bake_as_typed, check_hints
from toyqs.config.checks.training.kernels import check_kernels
from toyqs.config.checks.training.optimizer import check_qk_clip
from toyqs.config.checks.training.starts import check_starts
from toyqs.config.checks.training.warm_start import check_warm_start
from toyqs.config.errors import refuse, refusing
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.roles import WeightGroups, check_rates
from toyqs.training import distributed

MOST_RECORDS = 100  # of thoughts in training
MUCH_POLICY = 10.0  # weight of the policy's loss above which a note is given


def check(config: RunConfig, *, elsewhere: bool = False) -> list[str]:
    """Refuse what cannot run, before any work.

    Args:
        config: as given.
        elsewhere: it runs on another machine, which may have a GPU where this one has none.

    Returns:
        Notes on what the settings imply without saying so, one line each.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    check_bounds(config)
    check_pretrained(config)
    check_bake_as_typed(config)
    notes = _notes(config)
    config = resolved(config)
    _check_parts(config)
    refusing(lambda: config.task.check(config.seq_len))
    _check_head_and_rates(config)
    _check_thoughts_every(config)
    if config.think_at == "all" and config.task.think_every > 1:
        refuse(
            "think_at",
            "all",
            f"task.think_every={config.task.think_every} lets fewer positions think",
            "think_at=marked or task.think_every=1",
        )
    _check_chunks(config)
    if config.use_reasoner:
        check_thinking(config)
    elif not config.use_base_lm:
        refuse(
            "use_base_lm",
            False,
            "with use_reasoner=false nothing is left to predict from",
            "use_base_lm=true or use_reasoner=true",
        )
    check_warm_start(config)
    check_hints(config)
    check_ahead(config)
    if not config.nll_loss_beta:
        _check_other_losses(config)
    _check_machine(config, elsewhere)
    check_parallel(config, distributed.ranks())
    check_shuffled_rewards(config, distributed.ranks())
    check_inference(config)
    check_reference(config)
    notes += check_starts(config)
    _check_runs_dir(config.runs_dir)
    if config.tracker == "tensorboard" and config.wandb_mode != "disabled":
        refuse("wandb_mode", config.wandb_mode, "tracker=tensorboard is another tracker", "one of the two")
    return notes


def _check_parts(config: RunConfig) -> None:
    if config.data_loader_batch_size % config.grad_acc:
        why = f"does not divide data_loader_batch_size={config.data_loader_batch_size}"
        refuse("grad_acc", config.grad_acc, why, "a divisor of it")


def _check_machine(config: RunConfig, elsewhere: bool) -> None:
    if config.device == "cuda" and not elsewhere and not torch.cuda.is_available():
        refuse("device", "cuda", "torch finds no CUDA device here", "device=cpu")
    check_backbone(config)
    check_kernels(config, elsewhere=elsewhere)
    check_qk_clip(config)


def _check_head_and_rates(config: RunConfig) -> None:
    if config.lm_head_layers > 1 and not config.linear_lm_head:
        refuse(
            "lm_head_layers",
            config.lm_head_layers,
            "are layers of a linear head, and linear_lm_head=false is an MLP of three",
            "linear_lm_head=true or lm_head_layers=1",
        )
    rates = {role: config.rates[role] for role in config.roles_in_use}
    refusing(lambda: check_rates(WeightGroups.parse(config.weight_groups), rates))


def _check_chunks(config: RunConfig) -> None:
    """Refuse chunks of positions where they cannot be taken apart."""
    if not config.chunk_positions:
        return
    if config.think_at == "hard":
        whole = "think_at=hard chooses among all positions of a sequence"
    elif config.compares_positions:
        what = "learned_reward=true" if config.learned_reward else "the average thought"
        whole = f"{what} is of all positions"
    elif config.hands_on:
        whole = "thought_into=state hands thoughts on from position to position"
    else:
        return
    refuse("chunk_positions", config.chunk_positions, whole, "chunk_positions=0")


def _check_thoughts_every(config: RunConfig) -> None:
    """Refuse records of thoughts in training where there would be none, or too many to leaf through."""
    every, steps = config.thoughts_every, config.max_steps
    if not every or not config.has_thoughts:
        return
    if steps < 1:
        steps = config.task.steps(config.data_loader_batch_size, config.seq_len, config.epochs)
    if every >= steps:
        refuse("thoughts_every", every, f"records nothing within {steps} steps", f"less than {steps}, or 0")
    if (steps - 1) // every > MOST_RECORDS:
        why = f"records thoughts {(steps - 1) // every} times, and there may be {MOST_RECORDS} records"
        refuse("thoughts_every", every, why, f"{-(-steps // MOST_RECORDS)} or more")


def _check_other_losses(config: RunConfig) -> None:
    bonus = config.entropy_encouragement_coef and config.symbol_kind != "deterministic"
    of_thoughts = config.has_thoughts and (config.has_policy_loss or bonus)
    near_reference = config.penalises_prediction_kl
    if not (of_thoughts or config.trains_without_thought or config.trains_prefixes or near_reference):
        refuse("nll_loss_beta", 0, "leaves no loss to train with", "nll_loss_beta=1")
    if config.controls != "none" and not (near_reference and config.reference != "no_thought"):
        refuse(
            "nll_loss_beta",
            0,
            f"leaves the controls of controls={config.controls} no loss to train with",
            "nll_loss_beta=1 or controls=none",
        )


def _check_runs_dir(runs_dir: str) -> None:
    folder = Path(runs_dir).absolute()
    there = next(x for x in (folder, *folder.parents) if os.path.exists(x))
    if not (os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)):
        fault = "cannot be written" if os.path.isdir(there) else "is a file"
        refuse("runs_dir", runs_dir, f"{there} {fault}", "a folder of your own")


def _notes(config: RunConfig) -> list[str]:
    notes = []
    if config.use_reasoner and not config.use_base_lm and resolved(config).interpreter_start == "onward":
        notes.append(
            "use_base_lm=false with interpreter_start=onward: the context reaches the prediction by the "
            "reasoner's state, not by the symbols alone as with afresh"
        )
    if config.symbol_kind == "deterministic" and config.trice_samples > 1:
        notes.append("thoughts=deterministic sets trice_samples=1: all thoughts of a position are the same")
    if config.mixing == "attend" and config.has_thoughts and resolved(config).trice_samples == 1:
        notes.append("mixing=attend of one thought is mixing=concat: its weight is 1")
    adam = config.optimizer != "sgd"
    if adam and config.use_reasoner and config.meta_token_mode == "grad_scale":
        notes.append(
            "meta_token_mode=grad_scale does next to nothing: Adam divides the scale out again, and clipping "
            "counts it; reparameterise and lr_multiplier do something"
        )
    if adam and config.has_thoughts and config.has_policy_loss and config.policy_loss_beta > MUCH_POLICY:
        notes.append(
            f"policy_loss_beta={config.policy_loss_beta:g} drowns the other losses more than it teaches the "
            "policy: Adam divides a common factor out again. At width 16 a weight of 100 ended at 1.58 nats "
            "where all weights are shared (0.69 with 1) and at 0.76 where none are (0.28): docs/findings.md"
        )
    if config.qk_clip and config.backbone == "gru" and config.pretrained is None:
        notes.append(f"qk_clip={config.qk_clip:g} has no effect: a GRU has no attention")
    if not config.use_reasoner and config.controls == "all":  # typed, unlike the default
        notes.append("controls=all has no effect: use_reasoner=false has no thoughts to control")
    return notes
