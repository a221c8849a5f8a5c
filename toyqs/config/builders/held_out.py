"""RunConfig -> the held-out sequences, and the losses there that a run's may be compared with."""

from __future__ import annotations

import math

from torch import Tensor

from toyqs.config.builders.training import build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.objectives.registry import objective_class
from toyqs.rng import stream
from toyqs.training.stacking import stack, with_hints, with_lengths
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
    if config.reads_hints:
        held_out = with_hints(held_out, config.task, [batch] * num_seeds, "held_out")
    if params.reference == "oracle":
        held_out = held_out._replace(oracle=config.task.oracle(held_out.inputs).to(like))
    if not params.adaptive_len:
        return held_out
    return with_lengths(held_out, config.task, [batch] * num_seeds, params.tokens_per_symbol)


def known_losses(config: RunConfig, held_out: Batch) -> dict[str, float | None]:
    """Return the losses that a run's may be compared with, in nats per counted position, by column.

    With ahead=joint they are of all N tokens of a position together: `bayes_floor` is the least of any model
    that predicts them from what was read before, `joint_floor` the least of one of the run's own kind.
    """
    task = config.task
    if not config.predicts_jointly:
        known = {"bayes_floor": task.floor(), "uniform_nll": math.log(task.vocab_size)}
        return known | (task.references(held_out) if task.references else {})
    number, floor = config.num_ahead, task.joint_floor or (lambda *_: None)
    different, learns = _num_different(config), _learns_weights(config)
    bounded = learns or different == 1 or _weighs_alike(config)
    return {
        "bayes_floor": floor(number, None, True),
        "joint_floor": floor(number, different, learns) if bounded else None,
        "uniform_nll": number * math.log(task.vocab_size),
    }


def _learns_weights(config: RunConfig) -> bool:
    """Tell whether a loss trains how likely thoughts are."""
    return config.has_policy_loss or not objective_class(config).uses_score_function


def _weighs_alike(config: RunConfig) -> bool:
    """Tell whether thoughts whose weights no loss of theirs trains are drawn, or driven, to equal ones."""
    return config.random_thoughts or bool(config.entropy_encouragement_coef)


def _num_different(config: RunConfig) -> int | None:
    """Return how many different thoughts a position can have; None: too many to count, or without end."""
    if config.symbol_kind == "deterministic" or not config.has_thoughts:
        return 1
    if config.symbol_kind != "token" or config.lengths_vary:
        return None
    return (config.thought_vocab or config.task.vocab_size) ** config.max_reasoning_len
