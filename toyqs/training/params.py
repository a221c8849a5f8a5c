"""The numbers of a training, and how they change while it goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from toyqs.rng import ThoughtSizes

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
        """The weight when `progress` of the training, from 0 to 1, is done."""
        if self.rises:
            return self.value * progress
        return self.value * (1.0 - progress) if self.linear else self.value


@dataclass(frozen=True)
class TrainingParams:
    """Plain numbers that the loop needs."""

    steps: int
    batch_size: int  # B
    seq_len: int
    thoughts: ThoughtSizes
    lr: float  # peak learning rate
    schedule: str = "constant"  # constant, linear, cosine
    max_norm: float = 0.0  # of a seed's gradient; 0: no clipping
    grad_acc: int = 1
    think_everywhere: bool = False
    reference: str | None = None  # of trace.reference_log_probs: oracle, no_thought; a kept model has its own
    inner_steps: int = 0  # steps on thoughts drawn before, with their log-density; 0: one, on its own draw
    num_ahead: int = 1  # N, tokens that each thinking position predicts
    stages: tuple[int, ...] = ()  # lengths of the thoughts in turn; none: thoughts.length all along
    gate_floor: float = 0.0  # least weight of a thought in the prediction when training begins
    lr_multipliers: dict[str, float] = field(default_factory=dict)  # end of a parameter's name -> factor
    weights: dict[str, LossWeight] = field(default_factory=lambda: {"nll": LossWeight(1.0)})
    adaptive_len: bool = False  # the task says how long each thought is
    eval_chunk: int = 8192  # thoughts, per seed
    rank: int = 0  # of the processes that train together, which one this is
    ranks: int = 1  # how many there are; each takes its share of every batch

    def length_at(self, step: int) -> int:
        """How many symbols a thought has in a step, from 0; the last stage goes on to the end."""
        if not self.stages:
            return self.thoughts.length
        passed = int(len(self.stages) * step / (STAGED * self.steps))
        return self.stages[min(passed, len(self.stages) - 1)]

    def sizes_at(self, step: int) -> ThoughtSizes:
        """The thoughts of a step, from 0, which may be shorter than the noise that is drawn for them."""
        return self.thoughts._replace(length=self.length_at(step))

    def floor_at(self, progress: float) -> float:
        """The least weight of a thought when `progress` of the training, from 0 to 1, is done."""
        return self.gate_floor * max(0.0, 1.0 - progress / GATE_WARM_UP)


def learning_rate(step: int, settings: TrainingParams) -> float:
    """The rate of a step: a linear warm-up, then constant, linear to 0 or a cosine to a twentieth."""
    warm_up = max(1, round(WARM_UP * settings.steps))
    if settings.schedule == "constant":
        return settings.lr
    if step < warm_up:
        return settings.lr * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, settings.steps - warm_up)
    if settings.schedule == "linear":
        return settings.lr * (1.0 - progress)
    return settings.lr * (COSINE_END + (1.0 - COSINE_END) * 0.5 * (1.0 + math.cos(math.pi * progress)))
