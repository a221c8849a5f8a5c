"""Checks of what each symbol of a thought can be paid, and of a reward of all its steps."""

from __future__ import annotations

from toyqs.config.errors import refuse
from toyqs.config.run_config import RunConfig
from toyqs.objectives.advantages import BASELINES
from toyqs.objectives.registry import fields_of


def check_credit(config: RunConfig) -> None:
    """Refuse credit for symbols where a baseline, a scale or a reward is of whole thoughts.

    Args:
        config: resolved, of a run with thoughts.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if not config.credits_symbols:
        return
    if BASELINES[config.baseline].reads is not None:
        able = " or ".join(name for name, x in BASELINES.items() if x.reads is None and name != "trice")
        refuse(
            "baseline",
            config.baseline,
            "is for what whole thoughts earn, and with credit=prefix a symbol is paid what it and those "
            "after it add",
            f"baseline={able}, or credit=outcome",
        )
    if config.advantage_scale == "group_std":
        refuse(
            "advantage_scale",
            "group_std",
            "is the spread of what whole thoughts earn, of which credit=prefix pays each symbol a part",
            "advantage_scale=batch_std or none, or credit=outcome",
        )
    if config.learned_reward:
        refuse(
            "learned_reward",
            True,
            "expects what a whole thought earns, and credit=prefix asks that of its first symbols",
            "learned_reward=false or credit=outcome",
        )
    if config.rewards_steps:
        refuse(
            "reward",
            "trajectory",
            "is already of all steps of a thought, and credit=prefix takes differences between them",
            "reward=likelihood or credit=outcome",
        )
    if "clip_each" in fields_of(config) and config.clip_each == "thought":
        refuse(
            "clip_each",
            "thought",
            "clips one ratio for each thought, and with credit=prefix its symbols have different advantages",
            "clip_each=symbol or credit=outcome",
        )
