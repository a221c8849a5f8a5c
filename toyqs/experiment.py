"""One stack of runs, equal but for their seeds: build, train, evaluate, write the rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from toyqs import checkpoint, config_key, parallel
from toyqs.build import build_model, build_objective, build_settings
from toyqs.build_kept import build_kept
from toyqs.clock import Clock
from toyqs.config import RunConfig
from toyqs.cost import Cost
from toyqs.drawn import stack
from toyqs.evaluate import evaluate
from toyqs.numerics import mean_of_steps
from toyqs.results import write_json
from toyqs.settings import Settings
from toyqs.state import State
from toyqs.streams import stream
from toyqs.tracking import RunLog, environment
from toyqs.train import draws, train
from toyqs.types import Batch, Model, rows

NUM_EVALUATIONS = 20  # while training, where eval_every leaves it open
CURVE_POSITIONS = 1024  # about so many thinking positions are evaluated while training
STARTED = 0.01  # nats that another sequence's thoughts must cost before a seed counts as thinking

Progress = Callable[[int, float | None], None]

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
    torch.set_num_threads(1)
    clock = Clock(config.device)
    model, settings = build_model(config, seeds), _settings(config)
    like = next(model.parameters())
    held_out = draw_held_out(config, len(seeds), like)
    records = [_Records(config, seed) for seed in seeds]
    left = [checkpoint.read(record.folder) for record in records]
    for record, state in zip(records, left, strict=True):
        record.begin(len(seeds), state["log_size"] if state else 0)
    curve = _Curve(model, held_out, seeds, settings, config.eval_every, records, progress, clock)
    checkpoints = _Checkpoints(config, records, curve, left)
    try:
        data, kept = draws(config.task, seeds, settings, like), build_kept(config, model)
        train(model, build_objective(config), data, settings, curve, kept, checkpoints)
        tokens = (settings.steps - checkpoints.first) * held_out.inputs.shape[2] * settings.batch_size
        speed = clock.speed(tokens * len(seeds))
        sizes, at_once = settings.sizes_at(settings.steps - 1), settings.evaluated_at_once
        final = evaluate(model, held_out, seeds, sizes, full=True, at_once=at_once)
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
        record.end(model, index, common | metrics | {"started": _started(metrics)})


def train_along(config: RunConfig, seeds: Sequence[int]) -> None:
    """What `run_stack` trains, beside the process that does all the rest."""
    torch.set_num_threads(1)
    model, settings = build_model(config, seeds), _settings(config)
    folders = [Path(config.runs_dir) / config_key.run_key(config, seed) for seed in seeds]
    data = draws(config.task, seeds, settings, next(model.parameters()))
    objective, kept = build_objective(config), build_kept(config, model)
    left = _Left(config, [checkpoint.read(folder) for folder in folders])
    train(model, objective, data, settings, lambda step, values: None, kept, left)


def _settings(config: RunConfig) -> Settings:
    """Of the loop in this process."""
    sharded = config.shard_optimiser and parallel.ranks() > 1
    settings = build_settings(config)
    return replace(settings, rank=parallel.rank(), ranks=parallel.ranks(), shard_optimiser=sharded)


def draw_held_out(config: RunConfig, num_seeds: int, like: Tensor) -> Batch:
    """The held-out sequences, the same for every seed and every run of the task, (S, B, T)."""
    available = config.task.held_out_size(config.seq_len)
    size = min(config.eval_sequences, available or config.eval_sequences)
    drawn = config.task.sample(stream(0, "held-out data"), max(2, size), config.seq_len, "held_out")
    held_out = stack([drawn] * num_seeds, like, config.think_at == "all")
    if not build_settings(config).adaptive_len:
        return held_out
    return held_out._replace(thought_length=config.task.thought_length(held_out.inputs))


class _Curve:
    """Measures held-out NLL now and then while training, and says how far it is."""

    def __init__(
        self,
        model: Model,
        held_out: Batch,
        seeds: Sequence[int],
        settings: Settings,
        every: int,
        records: Sequence[_Records],
        progress: Progress,
        clock: Clock,
    ) -> None:
        positions = int(held_out.think[0, 0].sum())
        size = held_out.inputs.shape[1]
        # Spread over the held-out sequences: those of a text stand in its order.
        stride = max(1, min(size // 2, size * positions // CURVE_POSITIONS))
        self.held_out = rows(held_out, slice(0, size // stride * stride, stride))
        self.model, self.seeds, self.settings = model, seeds, settings
        self.records, self.progress, self.clock = records, progress, clock
        steps = settings.steps
        due = range(every, steps + 1, every) if every else range(1, NUM_EVALUATIONS + 1)
        self.due = {*due, steps} if every else {math.ceil(i * steps / NUM_EVALUATIONS) for i in due}
        self.sums: dict[str, Tensor] = {}  # since the last evaluation
        self.counts: dict[str, int] = {}  # of the values in them
        self.snr: list[Tensor] = []  # of the policy, (S,) each

    def __call__(self, step: int, values: dict[str, Tensor]) -> None:
        """Take the values (S,) of a training step."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        if "policy_snr" in values:
            self.snr.append(values["policy_snr"])
        if step not in self.due:
            self.progress(step, None)
            return
        with self.clock.aside():
            sizes, at_once = self.settings.sizes_at(step - 1), self.settings.evaluated_at_once
            measured = evaluate(self.model, self.held_out, self.seeds, sizes, full=False, at_once=at_once)
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        for index, record in enumerate(self.records):
            for kind, metrics in (("train", means), ("held_out", measured)):
                record.log.write(step, kind, {name: float(value[index]) for name, value in metrics.items()})
        self.sums, self.counts = {}, {}
        self.progress(step, float(measured["nll"].mean()))

    def of_seed(self, index: int) -> dict[str, Any]:
        """What was taken since the last evaluation, of one seed."""
        sums = {name: value[index].clone() for name, value in self.sums.items()}
        return {"sums": sums, "counts": dict(self.counts), "snr": [snr[index].clone() for snr in self.snr]}

    def restore(self, parts: Sequence[dict[str, Any]]) -> None:
        """Go on from what `of_seed` gave, one part per seed."""
        device, self.counts = self.held_out.inputs.device, dict(parts[0]["counts"])
        names = parts[0]["sums"]
        self.sums = {name: torch.stack([part["sums"][name] for part in parts]).to(device) for name in names}
        snr = zip(*(part["snr"] for part in parts), strict=True)
        self.snr = [torch.stack(each).to(device) for each in snr]


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
        """Give the other its part of the moments, if need be."""
        if state.sharing and self.is_due(state):
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
        curve: _Curve,
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

    def end(self, model: nn.Module, index: int, values: dict[str, Any]) -> None:
        """Write one seed's weights, then the row."""
        weights = {
            name: p.detach()[index : index + 1].contiguous().cpu() for name, p in model.named_parameters()
        }
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
