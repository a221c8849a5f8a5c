"""Checks of rewards that positions exchange, and of the control of that kind."""

from __future__ import annotations

from toyqs.config.errors import refuse
from toyqs.config.run_config import RunConfig


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
