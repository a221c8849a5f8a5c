"""RunConfig -> the cost of a training step, built as the run builds it and counted by training/flops.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from toyqs.assets.pretrained import CheckpointError
from toyqs.config.builders.auxiliaries import build_auxiliaries
from toyqs.config.builders.model import build_model, count_parameters
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.facts.thoughts import MARKERS
from toyqs.config.run_config import RunConfig
from toyqs.model.core import Core
from toyqs.training.batches import draw_batches, truncate_thoughts
from toyqs.training.flops import Cost, mean, measure
from toyqs.training.loop import accumulate
from toyqs.training.params import TrainingParams
from toyqs.training.sampling.ahead import sample_thoughts
from toyqs.training.shortage import in_fewer


def count_cost(config: RunConfig) -> Cost:
    """Count parameters, FLOPs and recurrent steps of a run's training step, for one seed.

    Products that gradient checkpointing computes again are not counted. FlexAttention's are counted as those
    of `branch_attention=dense`, and those of native kernels, which torch does not see, as those of
    `kernels=torch`. With `device=cuda` a GPU's are counted, also where there is none, as on the node that
    submits a cluster's jobs.

    A step is counted without right thoughts (`warm_start`), and so without what says them in controls.

    Where a schedule makes thoughts of several lengths: the mean over all steps of the training, and over all
    lengths where they are drawn at random.
    """
    config = replace(config, branch_attention="dense", kernels="torch", warm_start=0)
    params = build_training_params(config)
    if not params.stages:
        return _cost_at(config, params, params.thoughts.length)
    lengths = map(params.length_at, range(params.steps))
    steps = Counter(params.stages if params.random_lengths else lengths)
    return mean({_cost_at(config, params, length): count for length, count in steps.items()})


def counts_on_gpu(config: RunConfig) -> bool:
    """Tell whether a run's step is counted on a GPU: where it is to train on one, and there is one."""
    return config.device == "cuda" and torch.cuda.is_available()


def num_weights(config: RunConfig) -> int:
    """Return the number of parameters of one seed; see `count_parameters`.

    Raises:
        MemoryError: it is beyond what torch can count.
        CheckpointError: a checkpoint lacks one of them.
    """
    try:
        return count_parameters(config)
    except CheckpointError:
        raise
    except (RuntimeError, TypeError, OverflowError):  # torch's: a size is beyond 64 bits
        raise MemoryError("its weights are more than any memory holds; give smaller widths") from None


def gold_head_cost(config: RunConfig) -> dict[str, int]:
    """Return what the linear map costs that says right thoughts in a control; see `GoldHead`.

    It is part of no prediction, and counts neither as the model's parameters nor in a step's FLOPs.

    Returns:
        label_parameters, and label_flops, of a position with a right thought, forward and backward; empty
        where there is no such map.
    """
    with torch.device("meta"):
        head = build_auxiliaries(config, 1, None).gold_head if config.has_gold else None
        if head is None:
            return {}
        weight = head.linear.weight.numel()
    uses = config.max_reasoning_len if config.has_thoughts else 1
    return {"label_parameters": weight + head.linear.bias.numel(), "label_flops": 6 * weight * uses}


def step_bytes(config: RunConfig) -> int:
    """Estimate the memory of a training step for one seed, roughly and from above, without making it.

    Counted are weights, gradients and what the optimiser keeps of them or makes in a step, and what the
    backward pass keeps of each state: a dozen numbers per unit of width in a GRU, more in each layer of a
    transformer.
    """
    widths, batch = config.widths, config.data_loader_batch_size // config.grad_acc
    kept = 12 if config.backbone == "gru" else 40 * config.model_n_layer
    positions = batch * (config.task.length(config.seq_len) + config.hint_length)
    branches = positions * (config.trice_samples if config.use_reasoner else 1)
    read = (branches if config.hands_on else positions) * widths["base_lm"] + positions * widths[
        "base_reasoner"
    ]
    numbers = _states(config) * num_weights(config) + kept * read
    if config.use_reasoner:
        symbols = config.max_reasoning_len * (2 if config.trains_prefixes else 1) + MARKERS
        numbers += branches * symbols * kept * (widths["reasoner"] + widths["interpreter"])
    prefixes = config.credits_symbols or config.rewards_steps or config.trains_prefixes
    predictions = branches * (1 + config.max_reasoning_len if prefixes else 1)
    numbers += predictions * config.num_ahead * 4 * config.task.vocab_size
    return numbers * (8 if config.dtype == "float64" else 4)


def _states(config: RunConfig) -> int:
    """Return how many numbers a step has of each weight: itself, its gradient, and the optimiser's own.

    They are two moments; with muon the momentum, its successor, the step and two copies of what is
    orthogonalised; with a filter its mean and that of the next step.
    """
    return 2 + (5 if config.uses_muon else 2) + (2 if config.grokfast_lambda else 0)


def _cost_at(config: RunConfig, params: TrainingParams, length: int) -> Cost:
    """Count a training step with thoughts of this length.

    Of one that does not fit into memory fewer sequences are counted, and half of them; each further one costs
    what these cost more. So the count, and with it the steps of `compute_matched`, are the same on any
    machine, but where so few sequences lack some beginnings of thoughts, which are computed once.
    """
    size, least = params.batch_size // params.grad_acc, 2 if config.learned_reward else 1

    def counted(most: int) -> Cost:
        if most == size:
            return _measured(config, params, length)
        return _extended(config, params, length, max(least, most), least)

    return in_fewer(size, counted, "a training step") if config.auto_find_grad_acc else counted(size)


def _extended(config: RunConfig, params: TrainingParams, length: int, few: int, least: int) -> Cost:
    """Return the cost of a training step, of which so few sequences of a micro-batch are counted."""
    positions, size = config.task.length(config.seq_len), params.batch_size // params.grad_acc
    half = few // 2 if few // 2 >= least else 0
    costs = {
        count: _measured(config, replace(params, batch_size=count, grad_acc=1), length)
        for count in (few, half)
        if count
    }

    def line(of: Callable[[Cost], float]) -> float:
        """Return what the whole step has of something that a batch has per position."""
        more, less = (of(costs[count]) * count if count else 0.0 for count in (few, half))
        return (more + (more - less) * (size - few) / (few - half)) / size

    flops = line(lambda cost: cost.flops_per_token)
    updates = line(lambda cost: cost.recurrent_steps_per_token)
    return Cost(costs[few].parameters, round(flops * params.batch_size * positions), flops, updates)


def _measured(config: RunConfig, params: TrainingParams, length: int) -> Cost:
    as_on_gpu = config.device == "cuda" and not counts_on_gpu(config)
    config = replace(config, device="cpu") if as_on_gpu else config
    model, objective = build_model(config, [0]), build_objective(config)
    reference_model = build_reference_model(config, model)
    like = next(model.parameters())
    weights = {name: weight.at(0.0) for name, weight in params.weights.items()}
    batch = truncate_thoughts(next(draw_batches(config.task, [0], params, like)), length)
    running = like.new_zeros(1)

    def step() -> None:
        ready = sample_thoughts(model, batch) if params.inner_steps else batch
        for _ in range(max(1, params.inner_steps)):
            accumulate(model, objective, ready, weights, params, running, reference_model=reference_model)

    models = [model] if reference_model is None else [model, cast(nn.Module, reference_model.model)]
    for core in (core for one in models for core in cast(nn.ModuleDict, one.cores).values()):
        cast(Core, core).backbone.as_on_gpu = as_on_gpu
    return measure(models, step, params.batch_size * config.task.length(config.seq_len))
