"""One stack of runs, equal but for their seeds: build, train, evaluate, write the rows."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from toyqs import checkpoint, config_key, parallel
from toyqs.build import build_model, build_objective, build_settings
from toyqs.build_kept import build_kept
from toyqs.clock import Clock
from toyqs.config import RunConfig
from toyqs.cost import Cost
from toyqs.curve import Curve, Progress
from toyqs.drawn import stack
from toyqs.evaluate import evaluate
from toyqs.model.backbone import Backbone
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.sharding import Place, whole_parameters
from toyqs.numerics import mean_of_steps
from toyqs.results import write_json
from toyqs.state import State
from toyqs.streams import stream
from toyqs.tracking import RunLog, environment
from toyqs.train import Checkpoints, Report, draws, train
from toyqs.types import Batch

STARTED = 0.01  # nats that another sequence's thoughts must cost before a seed counts as thinking

_environment = functools.cache(environment)  # it asks git, and this process goes on with the source it has


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
    clock = Clock(config.device)
    training = Training(config, seeds)
    settings, held_out = training.settings, training.held_out
    records = [_Records(config, seed) for seed in seeds]
    left = [checkpoint.read(record.folder) for record in records]
    for record, state in zip(records, left, strict=True):
        record.begin(len(seeds), state["log_size"] if state else 0)
    curve = training.curve([record.log for record in records], progress, clock)
    checkpoints = _Checkpoints(config, records, curve, left)
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
        "results_version": config_key.RESULTS_VERSION,
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
    """What `run_stack` trains, beside the process that does all the rest.

    With fsdp that one can neither evaluate nor write the weights alone.
    """
    training = Training(config, seeds)
    folders = [Path(config.runs_dir) / config_key.run_key(config, seed) for seed in seeds]
    left = _Left(config, [checkpoint.read(folder) for folder in folders])
    if not config.fsdp:
        training.run(lambda step, values: None, left)
        return
    training.run(training.curve([], lambda step, loss: None, Clock(config.device)), left)
    training.evaluated()
    training.weights()


class Training:
    """A stack's model and what trains it in this process."""

    def __init__(self, config: RunConfig, seeds: Sequence[int]) -> None:
        torch.set_num_threads(1)
        self.config, self.seeds = config, seeds
        shares = (config.shard_optimiser or config.fsdp) and parallel.ranks() > 1
        self.settings = replace(
            build_settings(config), rank=parallel.rank(), ranks=parallel.ranks(), shares_moments=shares
        )
        self.model = _sharded(config, seeds) if config.fsdp and shares else build_model(config, seeds)
        self.held_out = draw_held_out(config, len(seeds), next(self.model.parameters()))

    def curve(self, logs: Sequence[RunLog], progress: Progress, clock: Clock) -> Curve:
        """What measures the model while it trains."""
        return Curve(
            self.model,
            self.held_out,
            self.seeds,
            self.settings,
            self.config.eval_every,
            logs,
            progress,
            clock,
        )

    def run(self, report: Report, checkpoints: Checkpoints) -> None:
        """Train to the end."""
        config, model = self.config, self.model
        data = draws(config.task, self.seeds, self.settings, next(model.parameters()))
        kept = build_kept(config, model)
        train(model, build_objective(config), data, self.settings, report, kept, checkpoints)

    def evaluated(self) -> dict[str, Tensor]:
        """What is measured at the end, (S,) each."""
        sizes, at_once = self.settings.sizes_at(self.settings.steps - 1), self.settings.evaluated_at_once
        return evaluate(self.model, self.held_out, self.seeds, sizes, full=True, at_once=at_once)

    def weights(self) -> dict[str, Tensor]:
        """All weights (S, ...) by name, whole."""
        return {name: weight.cpu() for name, weight in whole_parameters(self.model, parallel.whole)}


def _sharded(config: RunConfig, seeds: Sequence[int]) -> LatentReasoner:
    """A run's model, cut to this process's part before it is on a GPU."""
    model = build_model(replace(config, device="cpu"), seeds)
    place = Place(parallel.rank(), parallel.ranks(), parallel.whole)
    for module in model.modules():
        if isinstance(module, Backbone):
            module.shard(place)
    return model.to(config.device)


def draw_held_out(config: RunConfig, num_seeds: int, like: Tensor) -> Batch:
    """The held-out sequences, the same for every seed and every run of the task, (S, B, T)."""
    available = config.task.held_out_size(config.seq_len)
    size = min(config.eval_sequences, available or config.eval_sequences)
    drawn = config.task.sample(stream(0, "held-out data"), max(2, size), config.seq_len, "held_out")
    held_out = stack([drawn] * num_seeds, like, config.think_at == "all")
    if not build_settings(config).adaptive_len:
        return held_out
    return held_out._replace(thought_length=config.task.thought_length(held_out.inputs))


class _Left:
    """What earlier processes left of a training; another process keeps what this one leaves."""

    def __init__(self, config: RunConfig, left: Sequence[checkpoint.State | None]) -> None:
        self.every, self.steps, self.seeds = config.checkpoint_every, config.max_steps, range(len(left))
        self.left = [state for state in left if state is not None]

    def resume(self, state: State) -> None:
        """Put the training back to where an earlier process left it, if one did."""
        if self.left:
            state.restore([left["training"] for left in self.left])

    def keep(self, state: State) -> None:
        """Give the other its part, if need be."""
        if state.optimiser.layout.sharing and self.is_due(state):
            for index in self.seeds:
                state.of_seed(index)

    def is_due(self, state: State) -> bool:
        """After every so many steps but the last."""
        return bool(self.every) and state.step % self.every == 0 and state.step != self.steps


class _Checkpoints(_Left):
    """Keeps a stack's training in its runs' folders, a file per seed."""

    def __init__(
        self,
        config: RunConfig,
        records: Sequence[_Records],
        curve: Curve,
        left: Sequence[checkpoint.State | None],
    ) -> None:
        super().__init__(config, left)
        self.records, self.curve = records, curve
        self.first = 0

    def resume(self, state: State) -> None:
        """Put the training, its curve and its clock back."""
        super().resume(state)
        clock = self.curve.clock
        if self.left:
            self.curve.restore([left["curve"] for left in self.left])
            clock.go_on(self.left[0]["seconds"])
        self.first, self.left = state.step, []
        clock.start_training()

    def keep(self, state: State) -> None:
        """Write a checkpoint, if one is due."""
        if not self.is_due(state):
            return
        clock = self.curve.clock
        with clock.aside():
            for index, record in enumerate(self.records):
                parts = {"training": state.of_seed(index), "curve": self.curve.of_seed(index)}
                kept = {"step": state.step, "log_size": record.log.size, "seconds": clock.seconds}
                checkpoint.write(record.folder, parts | kept)


class _Records:
    """The folder of one run, named by its key."""

    def __init__(self, config: RunConfig, seed: int) -> None:
        self.settings = config_key.settings(config, seed)
        self.key = config_key.run_key(config, seed)
        self.folder = Path(config.runs_dir) / self.key
        self.wandb_mode = config.wandb_mode

    def begin(self, stack_size: int, log_size: int) -> None:
        """Write config.json and env.json, open metrics.jsonl; an older row goes, and what a kill left.

        Of an older metrics.jsonl the first `log_size` bytes stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (".*.*", ".tmp*", "summary.json"):  # safetensors begins with a .tmp of its own
            for file in self.folder.glob(name):
                file.unlink()
        self.environment = _environment() | {"stack_size": stack_size}
        write_json(self.folder / "config.json", self.settings)
        write_json(self.folder / "env.json", self.environment)
        self.log = RunLog(self.folder, self.settings, self.wandb_mode, keep=log_size)

    def end(self, weights: dict[str, Tensor], index: int, values: dict[str, Any]) -> None:
        """Write one seed's of the weights (S, ...), then the row."""
        weights = {name: weight[index : index + 1].contiguous() for name, weight in weights.items()}
        temporary = self.folder / ".model.safetensors"
        save_file(weights, temporary)
        temporary.replace(self.folder / "model.safetensors")
        row = {"key": self.key, "commit": self.environment["commit"], **self.settings, **values}
        write_json(self.folder / "summary.json", row)
        checkpoint.remove(self.folder)
        self.log.close(row)


def _started(metrics: dict[str, float]) -> bool | None:
    """Whether thoughts are used: another sequence's cost more. None where no symbol was sampled."""
    if "nll_shuffled" not in metrics:
        return None
    return metrics["nll_shuffled"] - metrics["nll"] >= STARTED
