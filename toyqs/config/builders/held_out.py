"""RunConfig -> the held-out sequences."""

from __future__ import annotations

from torch import Tensor

from toyqs.config.builders.training import build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.rng import stream
from toyqs.training.batches import stack, with_lengths
from toyqs.types import Batch


def draw_held_out(config: RunConfig, num_seeds: int, like: Tensor, count: int | None = None) -> Batch:
    """Draw the held-out sequences (S, B, T), the same for every seed and every run of the task.

    Args:
        config: resolved.
        num_seeds: S.
        like: the model's dtype and device.
        count: B, fewer where the task has fewer, 2 at least; None: as many as the run's last evaluation.
    """
    count = config.eval_sequences if count is None else count
    size = min(count, config.task.held_out_size(config.seq_len) or count)
    batch = config.task.sample(stream(0, "held-out data"), max(2, size), config.seq_len, "held_out")
    held_out, params = (
        stack([batch] * num_seeds, like, config.thinks_everywhere),
        build_training_params(config),
    )
    if params.reference == "oracle":
        held_out = held_out._replace(oracle=config.task.oracle(held_out.inputs).to(like))
    if not params.adaptive_len:
        return held_out
    return with_lengths(held_out, config.task, [batch] * num_seeds)
