"""Which settings of a thinking model and its objective go together; see settings.py."""

from __future__ import annotations

from typing import Any

from toyqs.config.checks.interpreter import check_reading
from toyqs.config.checks.learned_reward import check_learned_reward
from toyqs.config.checks.positions import check_extent
from toyqs.config.errors import Refusal, refusing
from toyqs.config.inactive import inactive_keys
from toyqs.config.run_config import (
    RunConfig,
)
from toyqs.model.roles import WeightGroups, check_widths
from toyqs.objectives.advantages import BASELINES
from toyqs.objectives.registry import fields_of, objective_class, registry

THOUGHTS = ("token", "gaussian", "gumbel", "deterministic", "state")
# Samplers beside the policy's own draw -> the thoughts that have such a law.
SAMPLERS = {"tempered": ("token", "gaussian", "state"), "uniform": ("token",), "prior": ("gaussian",)}
ON_A_PATH = (
    "gumbel",
    "deterministic",
)  # thoughts without a density: only the prediction's gradient trains them


def check_thinking(config: RunConfig) -> None:
    """Refuse what does not go together in a run with thoughts.

    Args:
        config: resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    groups, reasoner = WeightGroups.parse(config.weight_groups), config.reasoner_hidden_dim
    interpreter = config.interpreter_hidden_dim or reasoner
    widths = {"base_reasoner": reasoner, "reasoner": reasoner, "interpreter": interpreter}
    if config.use_base_lm:
        widths["base_lm"] = config.base_lm_hidden_dim
    refusing(lambda: check_widths(groups, widths))
    if config.interpreter_start == "onward" and interpreter != reasoner:
        raise Refusal(
            f"interpreter_start=onward: goes on from the reasoner's state, {reasoner} wide, but "
            f"interpreter_hidden_dim={interpreter}; give both one width, or interpreter_start=afresh"
        )
    if config.mixing not in ("auto", "thought") and not config.use_base_lm:
        raise Refusal(
            f"mixing={config.mixing}: needs the base state, which use_base_lm=false takes away; "
            "give mixing=auto or use_base_lm=true"
        )
    if config.simple_lm_head and config.mixing not in ("auto", "add"):
        raise Refusal(
            f"simple_lm_head=true: adds the reading, and mixing={config.mixing} does not; "
            "give mixing=auto or simple_lm_head=false"
        )
    if config.gate_floor > 1:
        raise Refusal(
            f"gate_floor={config.gate_floor}: is the least weight of a thought, at most 1; give 0 to 1"
        )
    check_reading(config)
    check_extent(config)
    if config.n_tokens_ahead > 1:
        _check_ahead(config)
    if config.max_reasoning_len:
        _check_kind(config)
        _check_sampler(config)
        _check_symbols(config)
        _check_number(config)
        _check_objective(config)


def _check_ahead(config: RunConfig) -> None:
    given, length = f"n_tokens_ahead={config.n_tokens_ahead}", config.task.length(config.seq_len)
    if config.n_tokens_ahead > length:
        raise Refusal(
            f"{given}: a sequence of task={config.task.name} has only {length} tokens; give "
            f"n_tokens_ahead={length} or fewer"
        )
    if config.ahead == "persist" and config.mixer == "thought":
        raise Refusal(
            f"{given}: with ahead=persist only the base state sees the tokens ahead, and with these settings "
            "it is not predicted from; give ahead=continue, or use_base_lm=true and mixing=auto"
        )


def _check_kind(config: RunConfig) -> None:
    """Of thought symbols, and how it is trained."""
    kind, reasoner, interpreter = config.thoughts, config.reasoner_hidden_dim, config.interpreter_hidden_dim
    if kind in ON_A_PATH and objective_class(config).uses_score_function:
        raise Refusal(
            f"thoughts={kind}: have no density for objective={config.objective} to raise; "
            "give objective=pathwise"
        )
    if kind == "token" and not objective_class(config).uses_score_function:
        raise Refusal(
            f"objective={config.objective}: no gradient passes through the choice of a token; give "
            "thoughts=gaussian, gumbel, deterministic or state, or another objective"
        )
    if kind == "deterministic" and interpreter not in (None, reasoner):
        raise Refusal(
            f"thoughts=deterministic: the interpreter reads the reasoner's states, {reasoner} wide, but "
            f"interpreter_hidden_dim={interpreter}; give both one width"
        )
    if kind not in ("token", "gumbel") and config.share_lm_head:
        raise Refusal(
            f"share_lm_head=true: thoughts={kind} are no symbols that an LM head could choose; "
            "give share_lm_head=false or thoughts=token"
        )


def _check_sampler(config: RunConfig) -> None:
    given, objective = f"sampler={config.sampler}", config.objective
    if config.sampler == "policy":
        return
    if not objective_class(config).uses_score_function:
        raise Refusal(
            f"{given}: objective={objective} trains along the model's own draw; give sampler=policy, or an "
            "objective that scores thoughts"
        )
    kinds = SAMPLERS[config.sampler]
    if config.thoughts not in kinds:
        raise Refusal(
            f"{given}: is a law of thoughts={' or '.join(kinds)}, not of {config.thoughts}; give another "
            "sampler, such as tempered"
        )
    if config.has_policy_loss and not objective_class(config).off_policy:
        able = ", ".join(name for name, kind in registry().items() if kind.off_policy)
        raise Refusal(
            f"{given}: objective={objective} takes every thought for the policy's own, and is biased without "
            f"importance weights; give sampler=policy, or one of objective={able}"
        )


def _check_symbols(config: RunConfig) -> None:
    tokens = config.task.vocab_size
    if config.share_lm_head and config.thought_vocab not in (None, tokens):
        raise Refusal(
            f"share_lm_head=true: its symbols are the task's {tokens} tokens, but thought_vocab="
            f"{config.thought_vocab}; give thought_vocab=null or share_lm_head=false"
        )
    _check_markers(config)
    if (config.train_nll_num or 1) > config.trice_samples:
        raise Refusal(
            f"train_nll_num={config.train_nll_num}: there are only trice_samples={config.trice_samples} "
            f"thoughts; give 1 to {config.trice_samples}"
        )


def _check_markers(config: RunConfig) -> None:
    given, count = config.meta_token_init, config.thought_vocab or config.task.vocab_size
    if given is None:
        return
    if type(given) not in (int, str):
        raise Refusal(
            f"meta_token_init={given}: takes a symbol's id or a token's name; give for example "
            "meta_token_init=0"
        )
    if isinstance(given, str) and config.thought_vocab is not None:
        raise Refusal(
            f"meta_token_init={given}: the symbols of thought_vocab={config.thought_vocab} have no names; "
            f"give an id from 0 to {count - 1}, or thought_vocab=null"
        )
    symbol = config.marker_start
    if symbol is None or not 0 <= symbol < count:
        known = "a token's name or " if config.thought_vocab is None else ""
        raise Refusal(
            f"meta_token_init={given}: is none of the {count} thought symbols; give {known}an id from 0 to "
            f"{count - 1}"
        )


def _check_number(config: RunConfig) -> None:
    """Of thoughts, for what compares those of a position."""
    if not config.has_policy_loss:
        return
    least = objective_class(config).least_thoughts
    if config.trice_samples < least:
        raise Refusal(
            f"objective={config.objective}: compares the thoughts of a position, and trice_samples="
            f"{config.trice_samples} are too few; give trice_samples={least} or more"
        )
    least = BASELINES[config.baseline].least_thoughts if "baseline" in fields_of(config) else 1
    if config.trice_samples < least:
        raise Refusal(
            f"trice_samples={config.trice_samples}: baseline={config.baseline} compares the thoughts of a "
            f"position and needs {least}; give trice_samples={least} or more, or baseline=none or ema"
        )
    if config.trice_samples == 1 and config.advantage_scale == "group_std":
        raise Refusal(
            "trice_samples=1: advantage_scale=group_std needs a spread; give trice_samples=2 or more"
        )


def _check_objective(config: RunConfig) -> None:
    for key, (values, reason) in objective_class(config).allowed_values.items():
        given = getattr(config, key)
        if given not in values and key not in inactive_keys(config):
            known = " or ".join(map(_spelt, values))
            raise Refusal(f"{key}={_spelt(given)}: objective={config.objective} {reason}; give {key}={known}")
    if config.inner_steps > 1 and not objective_class(config).allows_inner_steps:
        able = " or ".join(name for name, kind in registry().items() if kind.allows_inner_steps)
        raise Refusal(
            f"inner_steps={config.inner_steps}: only objective={able} may train on the same thoughts "
            f"again; give inner_steps=1 or objective={able}"
        )
    if config.learned_reward:
        check_learned_reward(config)
    if config.has_critic and config.n_tokens_ahead > 1:
        raise Refusal(
            f"n_tokens_ahead={config.n_tokens_ahead}: a critic knows what one token earns; give "
            "n_tokens_ahead=1, or a baseline and an objective without a critic"
        )
    if config.has_critic and config.value_sees == "base_prediction" and not config.predicts_without_thought:
        raise Refusal(
            "value_sees=base_prediction: with these settings there is no prediction without a thought; "
            "give value_sees=target, or use_base_lm=true and mixing=auto"
        )
    if config.baseline == "null_thought" and not config.predicts_without_thought:
        raise Refusal(
            "baseline=null_thought: with these settings there is no prediction without a thought; "
            "give use_base_lm=true and mixing=auto, or another baseline"
        )


def _spelt(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
