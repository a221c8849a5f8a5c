"""Which settings a learned reward goes with; see thinking.py."""

from __future__ import annotations

from toyqs.config.errors import Refusal
from toyqs.config.run_config import RunConfig
from toyqs.objectives.advantages import BASELINES
from toyqs.objectives.registry import fields_of, objective_class


def check_learned_reward(config: RunConfig) -> None:
    """Refuse what a reward that is fitted on one half of a batch and pays on the other cannot do.

    Args:
        config: resolved, with learned_reward.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if not objective_class(config).uses_score_function:
        raise Refusal(
            f"learned_reward=true: objective={config.objective} has no policy that a reward could pay; "
            "give learned_reward=false or another objective"
        )
    if "baseline" in fields_of(config) and BASELINES[config.baseline].is_prediction:
        raise Refusal(
            f"baseline={config.baseline}: is what another prediction earned, but learned_reward=true pays "
            "what is expected, not what was earned; give learned_reward=false or baseline=leave_one_out"
        )
    if config.think_at == "hard":
        raise Refusal(
            "think_at=hard: a learned reward reads every position; give learned_reward=false or "
            "think_at=marked"
        )
    if config.reward_sees == "prediction":
        _check_reward_of_prediction(config)
    size, parts = config.data_loader_batch_size, config.grad_acc
    if size < max(4, 2 * parts):  # the policy's signal is measured on halves of a batch, which are halved too
        raise Refusal(
            f"data_loader_batch_size={size}: learned_reward=true is fitted on one half of the sequences and "
            f"pays on the other; give at least 4, and at least 2 for each part of grad_acc={parts}"
        )


def _check_reward_of_prediction(config: RunConfig) -> None:
    """A learned reward that is the expected likelihood of one token, told apart between thoughts."""
    if config.reward not in ("likelihood", "log_ratio", "kl_forward"):
        raise Refusal(
            f"reward_sees=prediction: expects a likelihood, which reward={config.reward} is not; give "
            "reward=likelihood or reward_sees=thought"
        )
    if config.n_tokens_ahead > 1:
        raise Refusal(
            f"n_tokens_ahead={config.n_tokens_ahead}: reward_sees=prediction knows one token's reward; give "
            "n_tokens_ahead=1 or reward_sees=thought"
        )
    if config.trice_samples == 1:
        raise Refusal(
            "trice_samples=1: reward_sees=prediction learns from the differences between thoughts; give "
            "trice_samples=2 or more, or reward_sees=thought"
        )
