"""What a run's training step costs: built as the run builds it, and counted by cost.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import cast

from torch import nn

from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.training.batches import draw_batches, truncate_thoughts
from toyqs.training.flops import Cost, mean, measure
from toyqs.training.loop import accumulate, sample_thoughts
from toyqs.training.params import TrainingParams


def count_cost(config: RunConfig) -> Cost:
    """Parameters, FLOPs and recurrent steps of a run's training step, for one seed.

    Products that gradient checkpointing takes a second time do not count, and FlexAttention's are counted as
    those of `branch_attention=dense`.

    Where a schedule makes thoughts of several lengths: the mean over all steps of the training.
    """
    config = replace(config, branch_attention="dense")
    settings = build_training_params(config)
    if not settings.stages:
        return _cost_at(config, settings, settings.thoughts.length)
    steps = Counter(map(settings.length_at, range(settings.steps)))
    return mean({_cost_at(config, settings, length): count for length, count in steps.items()})


def _cost_at(config: RunConfig, settings: TrainingParams, length: int) -> Cost:
    """Of a training step with thoughts of this length."""
    model, objective = build_model(config, [0]), build_objective(config)
    reference_model = build_reference_model(config, model)
    like = next(model.parameters())
    weights = {name: weight.at(0.0) for name, weight in settings.weights.items()}
    drawn = truncate_thoughts(next(draw_batches(config.task, [0], settings, like)), length)
    running = like.new_zeros(1)

    def step() -> None:
        ready = sample_thoughts(model, drawn) if settings.inner_steps else drawn
        for _ in range(max(1, settings.inner_steps)):
            accumulate(model, objective, ready, weights, settings, running, reference_model=reference_model)

    models = [model] if reference_model is None else [model, cast(nn.Module, reference_model.model)]
    return measure(models, step, settings.batch_size * config.task.length(config.seq_len))
