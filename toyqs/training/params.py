"""The numbers of a training, and their schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from toyqs.rng import ThoughtSizes, number_of_step
from toyqs.training.optimizers.grokfast import Grokfast
from toyqs.training.optimizers.muon import ADJUSTMENTS
from toyqs.training.optimizers.optimizer import Native

WARM_UP = 0.1  # share of the steps over which the learning rate rises
COSINE_END = 0.05  # share of the peak at which the cosine ends
STAGED = 0.75  # share of the steps over which the stages of a length schedule are equally long
GATE_WARM_UP = 0.25  # share of the training over which the floor of a gate falls to 0


@dataclass(frozen=True)
class LossWeight:
    """A loss weight or a cost: constant, falling linearly to 0 over the training, or rising from 0."""

    value: float
    linear: bool = False
    rises: bool = False

    def at(self, progress: float) -> float:
        """Return the weight at a progress of the training from 0 to 1."""
        if self.rises:
            return self.value * progress
        return self.value * (1.0 - progress) if self.linear else self.value


class StepNumbers(NamedTuple):
    """The scheduled numbers of one step."""

    rate: float  # the learning rate
    weights: dict[str, float]  # of the loss's parts, and `rewards.COSTS`
    gate_floor: float  # least weight of a thought in the prediction


@dataclass(frozen=True)
class TrainingParams:
    """The plain numbers that the loop needs."""

    steps: int
    batch_size: int  # B
    seq_len: int
    thoughts: ThoughtSizes
    lr: float  # peak learning rate
    schedule: str = "constant"  # constant, linear, cosine
    max_norm: float = 0.0  # of a seed's gradient; 0: no clipping
    optimizer: str = "adamw"  # one of optimizer.METHODS
    adjust_lr_fn: str = next(iter(ADJUSTMENTS))  # of muon
    grokfast: Grokfast | None = None  # the filter of the gradients; None: there is none
    native_adam: Native | None = None  # see Optimiser; None: torch's operations
    cuda_graphs: bool = False  # steps are replayed as CUDA graphs
    weight_decay: float = 0.0  # on every parameter
    grad_acc: int = 1
    chunk_positions: int = 0  # thinking positions whose thoughts are made at a time; 0: all
    sequences: int | None = None  # of a micro-batch taken at a time, where memory ran short; None: all
    think_everywhere: bool = False
    reference: str | None = (
        None  # where trace.reference_log_probs come from: oracle, no_thought; None: elsewhere
    )
    inner_steps: int = (
        0  # steps on the same thoughts, sampled before the first; 0: one, which samples its own
    )
    num_ahead: int = 1  # N, tokens that each thinking position predicts
    stages: tuple[int, ...] = ()  # successive lengths of the thoughts; none: always thoughts.length
    random_lengths: bool = False  # each step draws one of these lengths; evaluated at thoughts.length
    offsets: int = 1  # number of positions, from 0, at which sequences begin in training
    fitting_offsets: int = 1  # of these the first ones, which leave room for this run's thoughts
    gate_floor: float = 0.0  # least weight of a thought in the prediction when training begins
    lr_multipliers: dict[str, float] = field(default_factory=dict)  # pattern of names, see Optimiser
    weights: dict[str, LossWeight] = field(default_factory=lambda: {"nll": LossWeight(1.0)})
    adaptive_len: bool = False  # the task sets each thought's length
    tokens_per_symbol: int | None = None  # of a problem, whose length then sets its thought's; None: not so
    warm_start: int = 0  # steps in which a share of the sequences has the task's gold thoughts
    shuffle_rewards: bool = False  # the counted positions of a batch exchange their rewards
    hint_share: float = 0.0  # share of the sequences that the model reads with a hint before them
    reference_reads_hints: bool = False  # the reference model reads all with it, the model none
    eval_chunk: int = 8192  # thoughts evaluated at once, per seed
    rank: int = 0  # this process's number among those that train together
    ranks: int = 1  # the number of these processes; each takes its slice of every batch

    def length_at(self, step: int) -> int:
        """Return the symbols of a thought in a step, from 0; the last stage lasts to the end."""
        if not self.stages:
            return self.thoughts.length
        if self.random_lengths:
            return self.stages[int(len(self.stages) * number_of_step(step, "thought length"))]
        passed = int(len(self.stages) * step / (STAGED * self.steps))
        return self.stages[min(passed, len(self.stages) - 1)]

    def eval_sizes_at(self, step: int) -> ThoughtSizes:
        """Return the sizes of the thoughts in an evaluation after a step, from 0."""
        return self.thoughts if self.random_lengths else self.thoughts._replace(length=self.length_at(step))

    def first_position_at(self, step: int) -> int:
        """Return the position at which the sequences of a step, from 0, begin.

        It is the same in all arms: drawn from the positions that leave room for a sequence alone. Where a
        thought would not fit behind it, it is counted round from 0.
        """
        if self.offsets == 1:
            return 0
        drawn = int(self.offsets * number_of_step(step, "first position"))
        return drawn % self.fitting_offsets

    def gold_at(self, step: int) -> int:
        """Return how many sequences of each micro-batch have gold thoughts in a step, from 0.

        All in the first step, then a share that falls linearly to none in the step `warm_start`.
        """
        share = max(0.0, 1.0 - step / self.warm_start) if self.warm_start else 0.0
        return round(share * (self.batch_size // self.grad_acc))

    def gate_floor_at(self, progress: float) -> float:
        """Return the least weight of a thought at a progress of the training from 0 to 1."""
        return self.gate_floor * max(0.0, 1.0 - progress / GATE_WARM_UP)


def numbers_at(step: int, settings: TrainingParams) -> StepNumbers:
    """Return the numbers of a step, from 0."""
    progress = step / settings.steps
    weights = {name: weight.at(progress) for name, weight in settings.weights.items()}
    return StepNumbers(learning_rate(step, settings), weights, settings.gate_floor_at(progress))


def learning_rate(step: int, settings: TrainingParams) -> float:
    """Return a step's rate: constant; or after a linear warm-up linear to 0, or a cosine to a twentieth."""
    warm_up = max(1, round(WARM_UP * settings.steps))
    if settings.schedule == "constant":
        return settings.lr
    if step < warm_up:
        return settings.lr * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, settings.steps - warm_up)
    if settings.schedule == "linear":
        return settings.lr * (1.0 - progress)
    return settings.lr * (COSINE_END + (1.0 - COSINE_END) * 0.5 * (1.0 + math.cos(math.pi * progress)))
