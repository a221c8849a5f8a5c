"""Held-out NLL while a stack of runs trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from toyqs.experiment.timer import Timer
from toyqs.experiment.tracking import RunLog
from toyqs.training.evaluation import evaluate
from toyqs.training.params import TrainingParams
from toyqs.types import Batch, Model, rows

NUM_EVALUATIONS = 20  # while training, where eval_every leaves it open
CURVE_POSITIONS = 1024  # about so many thinking positions are evaluated while training

Progress = Callable[[int, float | None], None]


class LearningCurve:
    """Measures held-out NLL now and then while training, and says how far it is."""

    def __init__(
        self,
        model: Model,
        held_out: Batch,
        seeds: Sequence[int],
        settings: TrainingParams,
        every: int,
        logs: Sequence[RunLog],
        progress: Progress,
        clock: Timer,
    ) -> None:
        """Measure where `every` says.

        Args:
            model: that is trained.
            held_out: (S, B, T), of which some sequences are taken.
            seeds: S of them.
            settings: of the training.
            every: so many steps; 0: twenty times in all.
            logs: of the seeds.
            progress: called after every step with its number, and with the mean held-out NLL where it was
                measured.
            clock: stands still meanwhile.
        """
        positions = int(held_out.think[0, 0].sum())
        size = held_out.inputs.shape[1]
        # Spread over the held-out sequences: those of a text stand in its order.
        stride = max(1, min(size // 2, size * positions // CURVE_POSITIONS))
        self.held_out = rows(held_out, slice(0, size // stride * stride, stride))
        self.model, self.seeds, self.settings = model, seeds, settings
        self.logs, self.progress, self.clock = logs, progress, clock
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
        with self.clock.paused():
            sizes, at_once = self.settings.sizes_at(step - 1), self.settings.eval_chunk
            measured = evaluate(self.model, self.held_out, self.seeds, sizes, full=False, at_once=at_once)
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        for index, log in enumerate(self.logs):
            for kind, metrics in (("train", means), ("held_out", measured)):
                log.write(step, kind, {name: float(value[index]) for name, value in metrics.items()})
        self.sums, self.counts = {}, {}
        self.progress(step, float(measured["nll"].mean()))

    def seed_state(self, index: int) -> dict[str, Any]:
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
