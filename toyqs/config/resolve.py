"""The settings as typed, completed: what follows from a variant, a checkpoint or other settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from toyqs.assets.pretrained import Architecture, architecture
from toyqs.config.choices import DEBUG_VARIANTS
from toyqs.config.facts.thoughts import MARKERS
from toyqs.config.key_table import KEY
from toyqs.config.keys import STARTS, WIDTHS
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.kernels import KEPT_FROM
from toyqs.objectives.registry import objective_class

# Numbers kept for a backward pass: of a chunk, and of a symbol for each unit of its states' width. Native
# kernels compute gates again from the states, but for wide ones.
CHUNK = 12 * 2**20
GROKFAST_LAMBDA = 0.1  # of optimizer=muon_grokfast
STATE_NUMBERS, NATIVE_STATE_NUMBERS, WIDE_STATE_NUMBERS = 12, 2, 5


def resolved(config: RunConfig) -> RunConfig:
    """Return the settings with all that follows from others filled in: variants, widths, forced choices.

    What sizes choose for `chunk_positions` depends on the kernels: it stays open while kernels=auto is.
    """
    config = _with_filter(_with_teacher(_with_folders(_with_variant(config))))
    if config.pretrained is not None:
        config = with_checkpoint(config, config.pretrained)
    if config.model_hidden_dim is not None:
        widths: dict[str, Any] = dict.fromkeys(WIDTHS, config.model_hidden_dim)
        config = replace(config, **widths, model_hidden_dim=None)
    if config.interpreter_hidden_dim is None:
        config = replace(config, interpreter_hidden_dim=config.reasoner_hidden_dim)
    if config.symbol_kind == "deterministic":  # all thoughts of a position are the same
        config = replace(config, trice_samples=1, train_nll_num=1)
    if config.random_thoughts and config.has_thoughts:
        config = replace(config, policy_loss_beta=0.0, entropy_encouragement_coef=0.0, prior_beta=0.0)
        config = replace(config, sampler="policy")
    if config.train_nll_num is None:
        config = replace(config, train_nll_num=config.trice_samples)
    if not config.has_policy_loss:
        config = _without_policy(config)
    if config.chunk_positions is not None or config.kernels != "auto" or not config.takes_native_kernels:
        config = replace(config, chunk_positions=chunk(config))
    if not config.use_reasoner:
        config = replace(config, controls="none")
    return config


def _with_variant(config: RunConfig) -> RunConfig:
    """Return the settings with those of its variant."""
    if config.debug_cfg is None:
        return config
    return replace(config, **DEBUG_VARIANTS.get(config.debug_cfg, {}), debug_cfg=None)


def _with_filter(config: RunConfig) -> RunConfig:
    """Return the settings with Grokfast's λ, and Muon under the name that says whether it is filtered."""
    slow = config.grokfast_lambda
    if slow is None:
        slow = GROKFAST_LAMBDA if config.optimizer == "muon_grokfast" else 0.0
    named = {"muon": "muon_grokfast"} if slow else {"muon_grokfast": "muon"}
    return replace(config, grokfast_lambda=slow, optimizer=named.get(config.optimizer, config.optimizer))


def _with_folders(config: RunConfig) -> RunConfig:
    """Return the settings with the folder of each run that is named by its key alone."""
    named = {name: given for name in STARTS if KEY.fullmatch(given := getattr(config, name) or "")}
    folders: dict[str, Any] = {name: f"{config.runs_dir}/{key}" for name, key in named.items()}
    return replace(config, **folders) if folders else config


def _with_teacher(config: RunConfig) -> RunConfig:
    """Return the settings with the loss of stage=bake and the run that it learns from."""
    if config.stage != "bake":
        return config
    teacher = config.reference_run or config.start_from
    return replace(config, reward="kl_forward", reference="checkpoint", reference_run=teacher)


def chunk(config: RunConfig) -> int:
    """Return how many thinking positions of a sequence are taken at a time; 0: all of them.

    By the sizes it is as many as keep CHUNK numbers for the backward pass; all where no more than twice CHUNK
    are kept. All also where chunks cost time: a loss that depends on all positions has the forward pass made
    twice, and a GPU's time is that of launches. For transformers this is not known.
    """
    thinking = config.num_thinking
    given = config.chunk_positions
    if given is None:
        whole = config.device != "cpu" or config.backbone != "gru" or config.think_at == "hard"
        if whole or config.hands_on or config.compares_positions or config.depends_on_batch:
            return 0
        width = config.reasoner_hidden_dim + (config.interpreter_hidden_dim or config.reasoner_hidden_dim)
        steps = config.max_reasoning_len * (2 if config.trains_prefixes else 1) + MARKERS
        of_thought = steps * _state_numbers(config) * width
        numbers = (
            thinking * config.data_loader_batch_size // config.grad_acc * config.trice_samples * of_thought
        )
        given = -(-thinking // -(-numbers // CHUNK)) if numbers > 2 * CHUNK else 0
    return given if config.has_thoughts and given < thinking else 0


def _state_numbers(config: RunConfig) -> int:
    if config.kernels != "native":
        return STATE_NUMBERS
    return NATIVE_STATE_NUMBERS if config.reasoner_hidden_dim < KEPT_FROM else WIDE_STATE_NUMBERS


def _without_policy(config: RunConfig) -> RunConfig:
    """Return the settings with none of what only a trained policy needs."""
    # a group baseline would refuse K = 1 without need
    config = replace(config, baseline="none", advantage_scale="none", credit="outcome", coherence_beta=0.0)
    if not config.policy_loss_beta:  # no policy learns from it
        config = replace(config, learned_reward=False)
    if config.reward in ("trajectory", "contribution"):  # nobody is paid by it, and it would cost predictions
        config = replace(config, reward="likelihood")
    kind = objective_class(config)
    if kind.sees_target:
        config = replace(config, objective="reinforce", sampler="policy")
    if kind.uses_score_function and not kind.changes_prediction_loss and config.inner_steps == 1:
        config = replace(config, objective="reinforce")
    return config


def with_checkpoint(config: RunConfig, name: str) -> RunConfig:
    """Return the settings with the backbone, layers, heads, widths and tokeniser of a checkpoint.

    Args:
        config: its widths do not matter.
        name: the checkpoint's folder or hub name.

    Raises:
        ValueError: one line; see `pretrained.architecture`.
    """
    sizes: dict[str, Any] = sizes_of(architecture(name))
    return replace(config, **sizes, model_hidden_dim=None, task=config.task.with_tokenizer(name))


def sizes_of(found: Architecture) -> dict[str, str | int | None]:
    """Return the settings that a checkpoint decides, by key."""
    return {
        "backbone": found.family,
        "model_n_layer": found.layers,
        "model_n_head": found.heads,
        "model_n_kv_head": found.kv_heads,
        **dict.fromkeys(WIDTHS, found.width),
    }
