"""A run's controls, as settings: each an ordinary run with its own key and row."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from toyqs.config.run_config import RunConfig
from toyqs.objectives.registry import objective_class
from toyqs.training.flops import Cost

# What only sampled tokens have, switched off.
UNSAMPLED: dict[str, Any] = {
    **{"share_lm_head": False, "meta_token_init": None, "variable_len": False},
    **{"length_penalty": 0.0, "punish_unfinished": 0.0, "thought_kl_beta": 0.0, "learned_reward": False},
    **{"random_thoughts": False, "sampler": "policy", "inner_steps": 1, "thought_logits": "linear"},
    **{"trice_samples": 1, "train_nll_num": 1},
}

# Thoughts of one constant symbol: nothing is sampled, no thought is rewarded. The reward stays, for one of
# OWN_LOSS is the predictor's own loss; any other is idle without a policy loss, and canonically `likelihood`.
ONE_SYMBOL: dict[str, Any] = {
    **UNSAMPLED,
    **{"thoughts": "token", "thought_vocab": 1, "objective": "reinforce"},
    **{"policy_loss_beta": 0.0, "entropy_encouragement_coef": 0.0},
    **{"markov_reasoner": False, "interpreter_reads": "all"},  # a constant symbol carries no state on
}

# Thoughts of the reasoner's own states.
COCONUT: dict[str, Any] = {**UNSAMPLED, "thoughts": "deterministic", "objective": "pathwise"}


def unmatched_controls(config: RunConfig) -> dict[str, RunConfig]:
    """Return the controls that tell thinking from noise and from the parts around it.

    no_reasoner      the base LM alone
    zero_length      thoughts of no symbols; read afresh they need no base_reasoner and no reasoner, which go
    state_handed_on  no symbols either, but the interpreter goes on from the reasoner's state
    pause            as many steps of one constant symbol, the interpreter going on from the reasoner's state:
                     back-propagated, nothing sampled; with adaptive_len as many as the task says, for what a
                     thought's length tells is not its content
    policy_off       thoughts sampled and read, never reinforced; not with objective=pathwise, whose
                     thoughts no policy loss trains: it would be the run itself

    And with controls=all:

    deterministic    the reasoner's own states as thoughts, back-propagated (Coconut)
    random           symbols uniform or from N(0, I), in training and evaluation; not with
                     thoughts=deterministic, of which nothing is drawn; as long as the run's, so with
                     adaptive_len their length still tells what the task says
    constant         thoughts of one constant symbol, all of the full length, read as the run reads its own:
                     afresh they say as little as none
    reward_shuffled  a position's thoughts are paid what those of another position earned; not with
                     thought_into=state, where what another position earned depends on them too
    policy_reversed  the policy loss with the other sign; both only where a policy loss trains the thoughts

    With thought_into=state those that have a reading hand it on: in state_handed_on and pause base_lm gets
    what the interpreter makes of the reasoner's state, at every step.

    With warm_start all get the same labels on the same sequences: policy_off and the last two as thoughts, as
    the run itself does, the others by a linear map of their states (`GoldHead`).

    Args:
        config: a thinking run.

    Returns:
        Name -> settings, in the order of display.
    """
    silent = _labelled(config, max_reasoning_len=0)
    controls = {
        "no_reasoner": _plain(config),
        "zero_length": silent,
        "state_handed_on": replace(silent, interpreter_start="onward", hide_last_token=False),
        "pause": _labelled(config, **ONE_SYMBOL, interpreter_start="onward"),
    }
    if objective_class(config).uses_score_function:
        controls["policy_off"] = replace(config, policy_loss_beta=0.0)
    return controls | _sceptical(config) if config.controls == "all" else controls


def _sceptical(config: RunConfig) -> dict[str, RunConfig]:
    """Return the controls that controls=all adds: other thoughts, and other rewards for the same ones."""
    controls = {"deterministic": _labelled(config, **COCONUT)}
    if config.symbol_kind != "deterministic":
        controls["random"] = _labelled(config, random_thoughts=True, markov_reasoner=False)
    controls["constant"] = _labelled(config, **ONE_SYMBOL, adaptive_len=False)
    if config.has_policy_loss and not config.hands_on:
        controls["reward_shuffled"] = replace(config, shuffle_rewards=True)
    if config.has_policy_loss:
        controls["policy_reversed"] = replace(config, policy_loss_beta=-config.policy_loss_beta)
    return controls


def matched_controls(
    config: RunConfig, cost: Callable[[RunConfig], Cost], parameters: Callable[[RunConfig], int]
) -> dict[str, RunConfig]:
    """Return the controls that tell thinking from more training and from more parameters.

    compute_matched  the base LM alone, its steps multiplied by the ratio of counted FLOPs per step
    param_matched    a plain model of the same backbone, as wide as gives it the nearest number of parameters;
                     not with a checkpoint, whose width is what it is, nor where base_lm starts from a run,
                     whose weights no base of another width can take over

    Args:
        config: a thinking run, max_steps resolved.
        cost: counts a run's training step.
        parameters: counts a run's parameters.

    Returns:
        Name -> settings, in the order of display.
    """
    plain = _plain(config)
    ratio = _rounded(cost(config).flops_per_step / cost(plain).flops_per_step)
    controls = {"compute_matched": replace(plain, max_steps=round(ratio * config.max_steps))}
    if config.pretrained is not None or config.base_is_given:
        return controls
    width = matched_width(plain, parameters(config), parameters)
    return controls | {"param_matched": replace(plain, base_lm_hidden_dim=width)}


def _rounded(ratio: float) -> float:
    """Round to tenths, from ten on to ones: within a twentieth, and runs of similar cost share a control."""
    return max(1.0, round(ratio, 0 if ratio >= 10 else 1))


def _plain(config: RunConfig) -> RunConfig:
    return _labelled(config, use_reasoner=False, use_base_lm=True)


def _labelled(config: RunConfig, **changes: Any) -> RunConfig:
    """Return a control whose own thoughts cannot be the right ones: its states say these instead."""
    changes |= {"warm_start_as": "labels"} if config.warm_start else {}
    return replace(config, **changes)


def matched_width(plain: RunConfig, target: int, parameters: Callable[[RunConfig], int]) -> int:
    """Return the width at which a plain model has nearest to `target` parameters; its heads divide it.

    Args:
        plain: a run without thoughts; its parameters rise with its width.
        target: number of parameters.
        parameters: counts a run's parameters.
    """
    unit = plain.width_unit

    @functools.cache
    def at(units: int) -> int:
        return parameters(replace(plain, base_lm_hidden_dim=unit * units))

    high = 1
    while at(high) < target:
        high *= 2
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) < target else (low, middle)
    return unit * min((low, high), key=lambda units: abs(at(units) - target))
