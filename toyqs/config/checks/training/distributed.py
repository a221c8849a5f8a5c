"""Checks of what several processes can train together with the result of one."""

from __future__ import annotations

from toyqs.config.errors import refuse
from toyqs.config.inactive import inactive_keys
from toyqs.config.run_config import RunConfig


def check_parallel(config: RunConfig, ranks: int) -> None:
    """Refuse what would give other numbers than one process does.

    Args:
        config: resolved.
        ranks: how many processes torchrun has started.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if ranks == 1:
        return
    size, parts = config.data_loader_batch_size, config.grad_acc * ranks
    if size % parts or size < 2 * ranks:
        refuse(
            "data_loader_batch_size",
            size,
            f"does not go evenly, two sequences or more, to {ranks} processes with "
            f"grad_acc={config.grad_acc}",
            f"a multiple of {parts}, {max(parts, 2 * ranks)} or more",
        )
    if config.cuda_graphs:
        refuse(
            "cuda_graphs",
            True,
            f"a graph is of one process's step, and there are {ranks}",
            "cuda_graphs=false or one process",
        )
    _check_clip(config, ranks)
    if config.learned_reward:
        refuse(
            "learned_reward",
            True,
            f"is fitted on one half of a batch, and {ranks} processes have no halves in common",
            "learned_reward=false or one process",
        )
    inactive = inactive_keys(config)
    of_others = [name for name in ("baseline", "value_sees") if getattr(config, name) == "average_thought"]
    for name in of_others:
        if config.use_reasoner and name not in inactive and (name == "baseline" or config.has_critic):
            refuse(
                name,
                "average_thought",
                f"takes the mean over a whole batch's thoughts, of which {ranks} processes see a share each",
                f"another {name} or one process",
            )


def _check_clip(config: RunConfig, ranks: int) -> None:
    """Refuse QK-clip where what the thoughts of a batch have in common is computed once."""
    if (
        config.qk_clip
        and config.backbone != "gru"
        and config.has_thoughts
        and config.interpreter_start == "afresh"
    ):
        refuse(
            "qk_clip",
            config.qk_clip,
            f"follows the beginnings that thoughts of a batch share, and {ranks} processes see a part each",
            "interpreter_start=onward, qk_clip=0 or one process",
        )
