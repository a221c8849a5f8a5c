"""Checks of a thinking model, its thoughts and its objective."""

from __future__ import annotations

from toyqs.config.checks.attention import check_attention, check_coherence
from toyqs.config.checks.credit import check_credit
from toyqs.config.checks.interpreter import check_reading, check_seen
from toyqs.config.checks.positions import check_extent
from toyqs.config.checks.rewards import check_learned_reward
from toyqs.config.choices import SAMPLERS
from toyqs.config.errors import refuse, refusing, typed
from toyqs.config.inactive import inactive_keys
from toyqs.config.run_config import RunConfig
from toyqs.model.roles import WeightGroups, check_widths
from toyqs.objectives.advantages import BASELINES
from toyqs.objectives.registry import fields_of, objective_class, registry

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
    if config.mixing not in ("auto", "thought", "add") and not config.use_base_lm:
        refuse(
            "mixing",
            config.mixing,
            "needs the base state, which use_base_lm=false takes away",
            "mixing=auto or use_base_lm=true",
        )
    if config.simple_lm_head and config.mixing not in ("auto", "add"):
        refuse(
            "simple_lm_head",
            True,
            f"adds the reading, and mixing={config.mixing} does not",
            "mixing=auto or simple_lm_head=false",
        )
    if config.gate_floor > 1:
        refuse("gate_floor", config.gate_floor, "is the least weight of a thought, at most 1", "0 to 1")
    check_reading(config)
    check_seen(config)
    check_extent(config)
    if config.max_reasoning_len:
        _check_kind(config)
        _check_sampler(config)
        _check_symbols(config)
        _check_number(config)
        _check_objective(config)
        check_attention(config)
        check_coherence(config)


def _check_kind(config: RunConfig) -> None:
    """Refuse a kind of symbol that does not go with the objective or with other settings."""
    kind = config.symbol_kind
    if kind in ON_A_PATH and objective_class(config).uses_score_function:
        refuse(
            "thoughts",
            kind,
            f"have no density for objective={config.objective} to raise",
            "objective=pathwise",
        )
    if kind == "token" and not objective_class(config).uses_score_function:
        refuse(
            "objective",
            config.objective,
            "no gradient passes through the choice of a token",
            "thoughts=gaussian, gumbel, deterministic or state, or another objective",
        )
    if kind == "deterministic" and config.random_thoughts:
        why = "thoughts=deterministic are the reasoner's own states, and nothing is drawn"
        refuse("random_thoughts", True, why, "random_thoughts=false or another kind of thoughts")
    if kind not in ("token", "gumbel") and config.share_lm_head:
        refuse(
            "share_lm_head",
            True,
            f"thoughts={kind} are no symbols that an LM head could choose",
            "share_lm_head=false or thoughts=token",
        )


def _check_sampler(config: RunConfig) -> None:
    objective = config.objective
    if config.sampler == "policy":
        return
    if not objective_class(config).uses_score_function:
        refuse(
            "sampler",
            config.sampler,
            f"objective={objective} trains along the model's own draw",
            "sampler=policy, or an objective that scores thoughts",
        )
    kinds = SAMPLERS[config.sampler]
    if config.symbol_kind not in kinds:
        refuse(
            "sampler",
            config.sampler,
            f"is a law of thoughts={' or '.join(kinds)}, not of {config.thoughts}",
            "another sampler, such as tempered",
        )
    if config.has_policy_loss and not objective_class(config).off_policy:
        able = ", ".join(name for name, kind in registry().items() if kind.off_policy)
        refuse(
            "sampler",
            config.sampler,
            f"objective={objective} takes every thought for the policy's own, and is biased without "
            "importance weights",
            f"sampler=policy, or one of objective={able}",
        )


def _check_symbols(config: RunConfig) -> None:
    tokens = config.task.vocab_size
    if config.share_lm_head and config.thought_vocab not in (None, tokens):
        refuse(
            "share_lm_head",
            True,
            f"its symbols are the task's {tokens} tokens, but thought_vocab={config.thought_vocab}",
            "thought_vocab=null or share_lm_head=false",
        )
    _check_markers(config)
    if (config.train_nll_num or 1) > config.trice_samples:
        refuse(
            "train_nll_num",
            config.train_nll_num,
            f"there are only trice_samples={config.trice_samples} thoughts",
            f"1 to {config.trice_samples}",
        )


def _check_markers(config: RunConfig) -> None:
    given, count = config.meta_token_init, config.thought_vocab or config.task.vocab_size
    if given is None:
        return
    if not config.symbols_are_tokens:
        why = f"thoughts={config.thoughts} have no symbol to start the markers as"
        refuse("meta_token_init", given, why, "meta_token_init=null")
    if type(given) not in (int, str):
        refuse(
            "meta_token_init", given, "takes a symbol's id or a token's name", "for example meta_token_init=0"
        )
    if isinstance(given, str) and config.thought_vocab is not None:
        refuse(
            "meta_token_init",
            given,
            f"the symbols of thought_vocab={config.thought_vocab} have no names",
            f"an id from 0 to {count - 1}, or thought_vocab=null",
        )
    symbol = config.marker_start
    if symbol is None or not 0 <= symbol < count:
        known = "a token's name or " if config.thought_vocab is None else ""
        refuse(
            "meta_token_init",
            given,
            f"is none of the {count} thought symbols",
            f"{known}an id from 0 to {count - 1}",
        )


def _check_number(config: RunConfig) -> None:
    """Refuse too few thoughts for what compares those of a position."""
    if not config.has_policy_loss:
        return
    least = objective_class(config).least_thoughts
    if config.trice_samples < least:
        refuse(
            "objective",
            config.objective,
            f"compares the thoughts of a position, and trice_samples={config.trice_samples} are too few",
            f"trice_samples={least} or more",
        )
    least = BASELINES[config.baseline].least_thoughts if "baseline" in fields_of(config) else 1
    if config.trice_samples < least:
        able = ", ".join(name for name, x in BASELINES.items() if x.least_thoughts <= config.trice_samples)
        refuse(
            "trice_samples",
            config.trice_samples,
            f"baseline={config.baseline} compares the thoughts of a position, and so few learn nothing",
            f"trice_samples={least} or more, or one of baseline={able}",
        )
    if config.trice_samples == 1 and config.advantage_scale == "group_std":
        refuse("trice_samples", 1, "advantage_scale=group_std needs a spread", "trice_samples=2 or more")
    relative = "temperature_scale" in fields_of(config) and config.temperature_scale == "spread"
    if config.trice_samples == 1 and relative:
        refuse(
            "trice_samples",
            1,
            "temperature_scale=spread needs a spread",
            "trice_samples=2 or more, or temperature_scale=absolute",
        )


def _check_objective(config: RunConfig) -> None:
    for key, (values, reason) in objective_class(config).allowed_values.items():
        given = getattr(config, key)
        if given not in values and key not in inactive_keys(config):
            known = " or ".join(map(typed, values))
            refuse(key, given, f"objective={config.objective} {reason}", f"{key}={known}")
    if config.inner_steps > 1 and not objective_class(config).allows_inner_steps:
        able = " or ".join(name for name, kind in registry().items() if kind.allows_inner_steps)
        refuse(
            "inner_steps",
            config.inner_steps,
            f"only objective={able} may train on the same thoughts again",
            f"inner_steps=1 or objective={able}",
        )
    check_credit(config)
    if config.learned_reward:
        check_learned_reward(config)
    if config.has_critic and config.value_sees == "base_prediction" and not config.predicts_without_thought:
        refuse(
            "value_sees",
            "base_prediction",
            "with these settings there is no prediction without a thought",
            "value_sees=target, or use_base_lm=true and mixing=auto",
        )
    if config.baseline == "null_thought" and not config.predicts_without_thought:
        refuse(
            "baseline",
            "null_thought",
            "with these settings there is no prediction without a thought",
            "use_base_lm=true and mixing=auto, or another baseline",
        )
