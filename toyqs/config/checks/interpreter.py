"""Checks of how a thought is read and what its prediction is added to."""

from __future__ import annotations

from toyqs.config.errors import Refusal, refuse
from toyqs.config.run_config import RunConfig


def check_reading(config: RunConfig) -> None:
    """Refuse a last token without a context, sums of logits that do not fit, a loss of no prediction.

    Args:
        config: resolved, of a run with thoughts.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.base_nll_beta and not config.predicts_without_thought:
        refuse(
            "base_nll_beta",
            config.base_nll_beta,
            "with these settings there is no prediction without a thought to train",
            "use_base_lm=true and mixing=auto, or base_nll_beta=0",
        )
    if config.use_residual:
        _check_residual(config)
    if config.mixer == "sum":
        _check_one_head(config)
    if config.add_last_context_token and config.interpreter_start != "onward":
        refuse(
            "add_last_context_token",
            True,
            "an interpreter that starts afresh reads the symbols alone, and no context",
            "interpreter_start=onward or add_last_context_token=false",
        )


def _check_residual(config: RunConfig) -> None:
    if not config.use_base_lm:
        refuse(
            "use_residual",
            True,
            "adds the base logits, which use_base_lm=false takes away",
            "use_residual=false or use_base_lm=true",
        )
    if config.simple_lm_head:
        refuse(
            "use_residual",
            True,
            "adds logits, and simple_lm_head=true adds the projected reading",
            "only one of them",
        )
    if config.mixing not in ("auto", "thought", "sum"):
        refuse(
            "use_residual",
            True,
            f"adds the base logits to those of the thought alone, and mixing={config.mixing} mixes them "
            "in another way",
            "mixing=thought or use_residual=false",
        )


def _check_one_head(config: RunConfig) -> None:
    given = "use_residual=true" if config.use_residual else "mixing=sum"
    base, interpreter = config.base_lm_hidden_dim, config.interpreter_hidden_dim
    if base != interpreter:
        raise Refusal(
            f"{given}: base state and reading pass through one LM head, but are {base} and {interpreter} "
            f"wide; give both one width, such as model_hidden_dim={base}"
        )
