"""One stack of runs, equal but for their seeds: build, train, evaluate, write the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from toyqs.config import identity
from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.key_table import RESULTS_VERSION
from toyqs.config.run_config import RunConfig
from toyqs.experiment import checkpoint
from toyqs.experiment.checkpointer import Checkpointer, ResumeOnly
from toyqs.experiment.learning_curve import LearningCurve, Progress
from toyqs.experiment.run_folder import RunFolder
from toyqs.experiment.timer import Timer
from toyqs.experiment.tracking import RunLog
from toyqs.numerics import mean_of_steps
from toyqs.rng import stream
from toyqs.training import distributed
from toyqs.training.batches import draw_batches, stack
from toyqs.training.evaluation import evaluate
from toyqs.training.flops import Cost
from toyqs.training.loop import Checkpoints, StepCallback, train
from toyqs.types import Batch

STARTED = 0.01  # nats that another sequence's thoughts must cost before a seed counts as thinking


def run_stack(config: RunConfig, seeds: Sequence[int], cost: Cost, progress: Progress) -> None:
    """Train one model per seed side by side and write each one's run folder.

    The row, summary.json, is written last and whole: a folder without it is an unfinished run.

    Where the seeds' folders hold checkpoints, the training goes on from there.

    Args:
        config: resolved, max_steps given.
        seeds: S of them, all at the same step; their folders are overwritten.
        cost: of a training step, columns of the row.
        progress: called after every step with the number of steps done, and with the mean held-out
            NLL where it was just measured.
    """
    clock = Timer(config.device)
    training = Training(config, seeds)
    settings, held_out = training.settings, training.held_out
    records = [RunFolder(config, seed) for seed in seeds]
    left = [checkpoint.read(record.folder) for record in records]
    for record, state in zip(records, left, strict=True):
        record.begin(len(seeds), state["log_size"] if state else 0)
    curve = training.curve([record.log for record in records], progress, clock)
    checkpoints = Checkpointer(config, records, curve, left)
    try:
        training.run(curve, checkpoints)
        tokens = (settings.steps - checkpoints.first) * held_out.inputs.shape[2] * settings.batch_size
        speed = clock.speed(tokens * len(seeds))
        final, weights = training.evaluated(), training.weights()
    except BaseException:
        for record in records:
            record.log.close()
        raise
    if curve.snr:
        final |= {"policy_snr": mean_of_steps(curve.snr)}
    wall_seconds, cpu_seconds = clock.seconds
    common = {
        "results_version": RESULTS_VERSION,
        "bayes_floor": config.task.floor(),
        **cost._asdict(),
        "train_steps": settings.steps,
        "final_reasoning_len": settings.length_at(settings.steps - 1),
        "sequences_seen": settings.steps * settings.batch_size,
        "cpu_seconds": cpu_seconds / len(seeds),
        "wall_seconds": wall_seconds,
        "tokens_per_second": speed,
        "peak_memory_bytes": clock.peak_memory(),
    }
    for index, record in enumerate(records):
        metrics = {name: float(value[index]) for name, value in final.items()}
        record.end(weights, index, common | metrics | {"started": _started(metrics)})


def train_along(config: RunConfig, seeds: Sequence[int]) -> None:
    """Train what `run_stack` trains, beside the process that does all the rest."""
    training = Training(config, seeds)
    folders = [Path(config.runs_dir) / identity.run_key(config, seed) for seed in seeds]
    training.run(lambda step, values: None, ResumeOnly([checkpoint.read(folder) for folder in folders]))


class Training:
    """A stack's model and what trains it in this process."""

    def __init__(self, config: RunConfig, seeds: Sequence[int]) -> None:
        torch.set_num_threads(1)
        self.config, self.seeds = config, seeds
        self.settings = replace(
            build_training_params(config), rank=distributed.rank(), ranks=distributed.ranks()
        )
        self.model = build_model(config, seeds)
        self.held_out = draw_held_out(config, len(seeds), next(self.model.parameters()))

    def curve(self, logs: Sequence[RunLog], progress: Progress, clock: Timer) -> LearningCurve:
        """What measures the model while it trains."""
        return LearningCurve(
            self.model,
            self.held_out,
            self.seeds,
            self.settings,
            self.config.eval_every,
            logs,
            progress,
            clock,
        )

    def run(self, report: StepCallback, checkpoints: Checkpoints) -> None:
        """Train to the end."""
        config, model = self.config, self.model
        data = draw_batches(config.task, self.seeds, self.settings, next(model.parameters()))
        reference_model = build_reference_model(config, model)
        train(model, build_objective(config), data, self.settings, report, reference_model, checkpoints)

    def evaluated(self) -> dict[str, Tensor]:
        """What is measured at the end, (S,) each."""
        sizes, at_once = self.settings.sizes_at(self.settings.steps - 1), self.settings.eval_chunk
        return evaluate(self.model, self.held_out, self.seeds, sizes, full=True, at_once=at_once)

    def weights(self) -> dict[str, Tensor]:
        """Return all weights (S, ...) by name."""
        return {name: weight.detach().cpu() for name, weight in self.model.named_parameters()}


def draw_held_out(config: RunConfig, num_seeds: int, like: Tensor) -> Batch:
    """The held-out sequences, the same for every seed and every run of the task, (S, B, T)."""
    available = config.task.held_out_size(config.seq_len)
    size = min(config.eval_sequences, available or config.eval_sequences)
    drawn = config.task.sample(stream(0, "held-out data"), max(2, size), config.seq_len, "held_out")
    held_out = stack([drawn] * num_seeds, like, config.think_at == "all")
    if not build_training_params(config).adaptive_len:
        return held_out
    return held_out._replace(thought_length=config.task.thought_length(held_out.inputs))


def _started(metrics: dict[str, float]) -> bool | None:
    """Whether thoughts are used: another sequence's cost more. None where no symbol was sampled."""
    if "nll_shuffled" not in metrics:
        return None
    return metrics["nll_shuffled"] - metrics["nll"] >= STARTED
