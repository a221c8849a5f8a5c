"""Checks of rewards that are learned or exchanged, and of an inference network."""

from __future__ import annotations

from toyqs.config.errors import refuse
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
        refuse(
            "learned_reward",
            True,
            f"objective={config.objective} has no policy that a reward could pay",
            "learned_reward=false or another objective",
        )
    if "baseline" in fields_of(config) and BASELINES[config.baseline].is_prediction:
        refuse(
            "baseline",
            config.baseline,
            "is what another prediction earned, but learned_reward=true pays what is expected, not what "
            "was earned",
            "learned_reward=false or baseline=leave_one_out",
        )
    if config.think_at == "hard":
        refuse(
            "think_at",
            "hard",
            "a learned reward reads every position",
            "learned_reward=false or think_at=marked",
        )
    if config.reward_sees == "prediction":
        _check_reward_of_prediction(config)
    size, parts = config.data_loader_batch_size, config.grad_acc
    if size < max(4, 2 * parts):  # the policy's signal is measured on halves of a batch, which are halved too
        refuse(
            "data_loader_batch_size",
            size,
            "learned_reward=true is fitted on one half of the sequences and pays on the other",
            f"at least 4, and at least 2 for each part of grad_acc={parts}",
        )


def _check_reward_of_prediction(config: RunConfig) -> None:
    """Refuse what does not fit a learned reward that is the expected likelihood of one token."""
    if config.reward not in ("likelihood", "log_ratio", "kl_forward"):
        refuse(
            "reward_sees",
            "prediction",
            f"expects a likelihood, which reward={config.reward} is not",
            "reward=likelihood or reward_sees=thought",
        )
    if config.n_tokens_ahead > 1:
        refuse(
            "n_tokens_ahead",
            config.n_tokens_ahead,
            "reward_sees=prediction knows one token's reward",
            "n_tokens_ahead=1 or reward_sees=thought",
        )
    if config.trice_samples == 1:
        refuse(
            "trice_samples",
            1,
            "reward_sees=prediction learns from the differences between thoughts",
            "trice_samples=2 or more, or reward_sees=thought",
        )


def check_inference(config: RunConfig) -> None:
    """Refuse an inference network that nothing trains.

    Args:
        config: resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if (
        config.has_thoughts
        and config.sampler == "inference"
        and "sampler" not in objective_class(config).allowed_values
    ):
        why = f"objective={config.objective} does not train the network that would draw its thoughts"
        refuse("sampler", "inference", why, "sampler=policy or objective=wake_sleep")


def check_shuffled_rewards(config: RunConfig, ranks: int) -> None:
    """Refuse an exchange of rewards where a step does not see a whole batch of several sequences.

    Args:
        config: resolved, with shuffle_rewards or with controls=all, whose control reward_shuffled has it.
        ranks: how many processes torchrun has started.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if not (config.has_thoughts and config.has_policy_loss) or config.hands_on:
        return
    asked = "shuffle_rewards" if config.shuffle_rewards else "controls"
    if asked == "controls" and config.controls != "all":
        return
    other = "shuffle_rewards=false" if config.shuffle_rewards else "controls=fair"
    what = "positions exchange their rewards over a whole batch"
    if asked == "controls":
        what = f"in its control reward_shuffled {what}"
    given = getattr(config, asked)
    if config.grad_acc > 1:
        why = f"{what}, and grad_acc={config.grad_acc} takes it in parts"
        refuse(asked, given, why, f"grad_acc=1 or {other}")
    if ranks > 1:
        refuse(
            asked, given, f"{what}, of which {ranks} processes see a share each", f"one process or {other}"
        )
    if config.data_loader_batch_size == 1:
        why = f"{what}, and data_loader_batch_size=1 is one sequence"
        refuse(asked, given, why, f"data_loader_batch_size=2 or more, or {other}")
