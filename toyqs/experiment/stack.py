"""Run one stack, runs that differ only in the seed: build, train, evaluate, write the rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toyqs.config import identity
from toyqs.config.builders.cost import gold_head_cost
from toyqs.config.builders.held_out import draw_held_out, known_losses
from toyqs.config.builders.model import build_model
from toyqs.config.builders.recording import build_recorded
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.starts import take_over
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.key_table import RESULTS_VERSION
from toyqs.config.run_config import RunConfig
from toyqs.experiment import checkpoint
from toyqs.experiment.checkpointer import Checkpointer, ResumeOnly
from toyqs.experiment.learning_curve import LearningCurve, Progress
from toyqs.experiment.run_folder import RunFolder
from toyqs.experiment.timer import Timer
from toyqs.experiment.trackers import NOWHERE, Place
from toyqs.experiment.tracking import RunLog
from toyqs.numerics import mean_of_steps
from toyqs.thought_record import Record
from toyqs.training import distributed
from toyqs.training.batches import draw_batches
from toyqs.training.divergence import Divergence
from toyqs.training.evaluation.by_depth import by_depth
from toyqs.training.evaluation.hinted import with_hints
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.evaluation.recording import Recording
from toyqs.training.flops import Cost
from toyqs.training.loop import StepCallback, train
from toyqs.training.reference_model import ReferenceModel
from toyqs.training.shortage import OnShortage
from toyqs.training.state import Checkpoints

STARTED = 0.01  # nats that other thoughts, and none, must cost before a seed counts as started


def run_stack(
    config: RunConfig,
    seeds: Sequence[int],
    cost: Cost,
    progress: Progress,
    say: checkpoint.Say = checkpoint.say_on_stderr,
    place: Place = NOWHERE,
) -> None:
    """Train one model per seed, side by side, and write each one's run folder.

    The training continues from the checkpoints in the folders, where there are any that can be used. The row,
    summary.json, is written last and whole: a folder without it is an unfinished run.

    Args:
        config: resolved, with max_steps.
        seeds: S of them, all at the same step; their folders are overwritten.
        cost: of a training step; becomes columns of the row.
        progress: called after every step with the number of steps done, and with the mean held-out
            NLL where it was just measured.
        say: prints a line for the user.
        place: of the stack in its command, for a tracker.
    """
    folders = [RunFolder(config, seed, place, say) for seed in seeds]
    saved = [checkpoint.read(folder.folder, say) for folder in folders]
    try:
        return _run(config, seeds, cost, progress, folders, saved, say)
    except checkpoint.Unusable as error:
        checkpoint.begin_anew([folder.folder for folder in folders], error, say)
    _run(config, seeds, cost, progress, folders, [None] * len(seeds), say)


def _run(
    config: RunConfig,
    seeds: Sequence[int],
    cost: Cost,
    progress: Progress,
    folders: Sequence[RunFolder],
    saved: Sequence[checkpoint.SavedState | None],
    say: checkpoint.Say,
) -> None:
    timer = Timer(config.device)
    training = Training(config, seeds)
    for folder, state in zip(folders, saved, strict=True):
        folder.begin(len(seeds), state["log_size"] if state else 0, training.started_from)
    curve = training.curve([folder.log for folder in folders], progress, timer)
    checkpointer = Checkpointer(config, folders, curve, saved)
    try:
        diverged = training.run(curve, checkpointer, _on_shortage(config, folders, say))
        steps = [diverged[i].step if i in diverged else training.params.steps for i in range(len(seeds))]
        curve.end(max(steps))
        speed = timer.speed(training.num_tokens(max(steps) - checkpointer.first_step))
        final, weights = training.evaluate(), training.weights()
    except BaseException:
        for folder in folders:
            folder.log.close()
        raise
    if curve.snr:
        final |= {"policy_snr": mean_of_steps(curve.snr)}
    wall_seconds, cpu_seconds = timer.seconds
    common = {
        "results_version": RESULTS_VERSION,
        **training.references(),
        **_costs(config, cost),
        "cpu_seconds": cpu_seconds / len(seeds),
        "wall_seconds": wall_seconds,
        "tokens_per_second": speed,
        "peak_memory_bytes": timer.peak_memory(),
    }
    diverged |= _lost_at_the_end(final["nll"], diverged, training.params.steps)
    for index, folder in enumerate(folders):
        metrics, num = {name: float(value[index]) for name, value in final.items()}, steps[index]
        seen = _divergence(diverged.get(index)) | {"started": _started(metrics)}
        training.log_by_depth(folder.log, num, index)
        values = common | metrics | training.done(num) | seen
        folder.end(weights, index, values, training.record(index, diverged))


def _costs(config: RunConfig, cost: Cost) -> dict[str, float]:
    """Return the columns of a training step's cost, and what labels cost where there are some beside it."""
    return cost._asdict() | gold_head_cost(config)


def _on_shortage(config: RunConfig, folders: Sequence[RunFolder], say: checkpoint.Say) -> OnShortage | None:
    """Return what notes that a step did not fit into memory; None where it is not made again.

    Several processes wait for each other in every step, so that one of them cannot make it again alone.
    """
    if not config.auto_find_grad_acc or distributed.ranks() > 1:
        return None

    def note(step: int, sequences: int) -> None:
        for folder in folders:
            folder.note_parts(step, sequences)
        others = f" and {len(folders) - 1} beside it" if len(folders) > 1 else ""
        parts = "1 sequence" if sequences == 1 else f"{sequences} sequences"
        say(f"{folders[0].folder}{others}: step {step} did not fit into memory, goes on with {parts} at once")

    return note


def train_along(config: RunConfig, seeds: Sequence[int]) -> None:
    """Train a stack on a rank other than 0, which does all the rest of `run_stack`."""
    folders = [Path(config.runs_dir) / identity.run_key(config, seed) for seed in seeds]
    saved = [checkpoint.read(folder) for folder in folders]
    try:
        return _run_along(config, seeds, saved)
    except checkpoint.Unusable:  # rank 0 finds the same, says so and removes them
        pass
    _run_along(config, seeds, [])


def _run_along(
    config: RunConfig, seeds: Sequence[int], saved: Sequence[checkpoint.SavedState | None]
) -> None:
    Training(config, seeds).run(lambda step, values: None, ResumeOnly(saved))


class Training:
    """A stack's model, its data and the plain numbers of its training, in this process."""

    def __init__(self, config: RunConfig, seeds: Sequence[int]) -> None:
        torch.set_num_threads(1)
        self.config, self.seeds = config, seeds
        params = build_training_params(config)
        self.params = replace(params, rank=distributed.rank(), ranks=distributed.ranks())
        self.model = build_model(config, seeds)
        self.started_from = take_over(config, self.model)  # for env.json
        self.held_out = draw_held_out(config, len(seeds), next(self.model.parameters()))
        self.by_depth = by_depth(config.task, self.held_out)
        self.reference_model: ReferenceModel | None = None  # of `run`

    def curve(self, logs: Sequence[RunLog], progress: Progress, timer: Timer) -> LearningCurve:
        """Build the callback that evaluates the model during training."""
        every, data = self.config.eval_every, (self.held_out, self.seeds, self.params)
        curve = LearningCurve(self.model, *data, every, logs, progress, timer)
        curve.recording = self.recording
        return curve

    def run(
        self, report: StepCallback, checkpoints: Checkpoints, on_shortage: OnShortage | None = None
    ) -> dict[int, Divergence]:
        """Train to the last step; return the seeds that diverged, by index."""
        config, model = self.config, self.model
        data = draw_batches(config.task, self.seeds, self.params, next(model.parameters()))
        self.reference_model = reference_model = build_reference_model(config, model)
        objective = build_objective(config)
        beside = (reference_model, checkpoints, on_shortage)
        return train(model, objective, data, self.params, report, *beside)

    @cached_property
    def recording(self) -> Recording | None:
        """Return the recording of the thoughts; None where there are none."""
        recorded = build_recorded(self.config)
        return recorded and Recording(self.model, self.held_out, self.seeds, recorded)

    def record(self, index: int, diverged: Collection[int]) -> Record | None:
        """Return the record of one seed's thoughts, after `evaluate`; None without any, or if it diverged."""
        return None if self.recording is None or index in diverged else self.recording.record(index)

    def num_tokens(self, steps: int) -> int:
        """Count the tokens of all seeds in so many steps."""
        length = self.config.task.length(self.config.seq_len)
        return steps * self.params.batch_size * length * len(self.seeds)

    def evaluate(self) -> dict[str, Tensor]:
        """Evaluate the model after the last step; return metrics (S,) by name."""
        if self.recording is not None:
            measured = self.recording.evaluate(self.by_depth)
        else:
            sizes, chunk = self.params.eval_sizes_at(self.params.steps - 1), self.params.eval_chunk
            measured = evaluate(
                self.model, self.held_out, self.seeds, sizes, full=True, at_once=chunk, watcher=self.by_depth
            )
        measured |= {} if self.by_depth is None else self.by_depth.deeper()
        return measured | self._with_hints() if self.config.reads_hints else measured

    def _with_hints(self) -> dict[str, Tensor]:
        """Return the metrics of what reads hints: the model itself, or what it learns from."""
        teacher = None if self.reference_model is None else self.reference_model.model
        return with_hints(self.model, self.held_out, teacher, at_once=self.params.eval_chunk)

    def done(self, steps: int) -> dict[str, int]:
        """Return the columns that say how far a training of so many steps went."""
        length = self.params.eval_sizes_at(steps - 1).length
        seen = steps * self.params.batch_size
        return {"train_steps": steps, "sequences_seen": seen, "final_reasoning_len": length}

    def log_by_depth(self, log: RunLog, steps: int, index: int) -> None:
        """Write what `evaluate` found of one seed by depth, where the task has depths."""
        if self.by_depth is not None:
            log.write_table(steps, "by_depth", self.by_depth.lines(index))

    def references(self) -> dict[str, float | None]:
        """Return the losses that a model's may be compared with, in nats per counted position, by name."""
        return known_losses(self.config, self.held_out)

    def weights(self) -> dict[str, Tensor]:
        """Return all weights (S, ...) by name."""
        return {name: weight.detach().cpu() for name, weight in self.model.named_parameters()}


def _lost_at_the_end(nll: Tensor, diverged: Mapping[int, Divergence], steps: int) -> dict[int, Divergence]:
    """Find the seeds whose weights the last step's update broke: no later loss could show it."""
    lost = [index for index, value in enumerate(nll.tolist()) if not math.isfinite(value)]
    return {index: Divergence(steps, "held-out nll", math.nan) for index in lost if index not in diverged}


def _divergence(divergence: Divergence | None) -> dict[str, Any]:
    """Return the columns that say where a seed's training ended, None where it did not diverge."""
    values = divergence or (None, None, None)
    return dict(zip(("diverged_at", "diverged_parts", "largest_logit"), values, strict=True))


def _started(metrics: dict[str, float]) -> bool | None:
    """Tell whether thoughts are used: another sequence's cost STARTED, and so does having none.

    A model that does not predict without a thought is judged by the first alone.

    Returns:
        None without sampled symbols, and where the seed diverged.
    """
    own = "nll_joint" if "nll_joint" in metrics else "nll"
    if f"{own}_shuffled" not in metrics or math.isnan(metrics[own]):
        return None
    others = [metrics[name] for name in (f"{own}_shuffled", f"{own}_no_thought") if name in metrics]
    return all(nll - metrics[own] >= STARTED for nll in others)
