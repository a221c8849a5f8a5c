"""The held-out NLL of a stack of runs during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from toyqs.experiment.timer import Timer
from toyqs.experiment.tracking import RunLog
from toyqs.positions import rows
from toyqs.training.batches import stride
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.evaluation.recording import Recording
from toyqs.training.params import TrainingParams
from toyqs.types import Batch, Model

NUM_EVALUATIONS = 20  # during training, where eval_every = 0
CURVE_POSITIONS = 1024  # about so many thinking positions are evaluated at each

Progress = Callable[[int, float | None], None]


class LearningCurve:
    """Callback of a training that logs its losses and the held-out NLL, and reports progress."""

    def __init__(
        self,
        model: Model,
        held_out: Batch,
        seeds: Sequence[int],
        params: TrainingParams,
        every: int,
        logs: Sequence[RunLog],
        progress: Progress,
        timer: Timer,
    ) -> None:
        """Select the held-out sequences and the steps at which they are evaluated.

        Args:
            model: the one in training.
            held_out: (S, B, T), of which some sequences are used.
            seeds: S of them.
            params: of the training.
            every: steps from one evaluation to the next; 0: twenty evaluations in all.
            logs: one per seed.
            progress: called after every step with its number, and with the mean held-out NLL where it was
                measured.
            timer: paused during an evaluation.
        """
        size, every_nth = held_out.inputs.shape[1], stride(held_out, CURVE_POSITIONS)
        self.held_out = rows(held_out, slice(0, size // every_nth * every_nth, every_nth))
        self.model, self.seeds, self.params = model, seeds, params
        self.logs, self.progress, self.timer = logs, progress, timer
        self.recording: Recording | None = None  # of thoughts, which is made along with the curve
        steps, parts = params.steps, range(1, NUM_EVALUATIONS + 1)
        regular = (
            range(every, steps + 1, every) if every else (math.ceil(i * steps / len(parts)) for i in parts)
        )
        self.due = {*regular, steps}
        self.sums: dict[str, Tensor] = {}  # since the last evaluation
        self.counts: dict[str, int] = {}  # how many values are in each of the sums
        self.snr: list[Tensor] = []  # (S,) each: the policy gradient's signal-to-noise ratios

    def __call__(self, step: int, values: dict[str, Tensor]) -> None:
        """Take in the values (S,) of a training step; evaluate where it is due."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        if "policy_snr" in values:
            self.snr.append(values["policy_snr"])
        if self.recording is not None and self.recording.is_due(step):
            with self.timer.paused():
                self.recording.evaluate_along(step)
        if step in self.due:
            self._evaluate(step)
        else:
            self.progress(step, None)

    def end(self, step: int) -> None:
        """Evaluate after the last step, which is an early one where all seeds diverged."""
        if step not in self.due:
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        with self.timer.paused():
            sizes, chunk = self.params.eval_sizes_at(step - 1), self.params.eval_chunk
            measured = evaluate(self.model, self.held_out, self.seeds, sizes, full=False, at_once=chunk)
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        for index, log in enumerate(self.logs):
            for kind, metrics in (("train", means), ("held_out", measured)):
                log.write(step, kind, {name: float(value[index]) for name, value in metrics.items()})
        self.sums, self.counts = {}, {}
        self.progress(step, float(measured.get("nll_joint", measured["nll"]).mean()))

    def seed_state(self, index: int) -> dict[str, Any]:
        """Return one seed's part of what has been taken in since the last evaluation."""
        sums = {name: value[index].clone() for name, value in self.sums.items()}
        thoughts = [] if self.recording is None else self.recording.seed_state(index)
        snr = [snr[index].clone() for snr in self.snr]
        return {"sums": sums, "counts": dict(self.counts), "snr": snr, "thoughts": thoughts}

    def restore(self, parts: Sequence[dict[str, Any]]) -> None:
        """Continue from the results of `seed_state`, one per seed."""
        device, self.counts = self.held_out.inputs.device, dict(parts[0]["counts"])
        names = parts[0]["sums"]
        self.sums = {name: torch.stack([part["sums"][name] for part in parts]).to(device) for name in names}
        snr = zip(*(part["snr"] for part in parts), strict=True)
        self.snr = [torch.stack(each).to(device) for each in snr]
        if self.recording is not None:
            self.recording.restore([part.get("thoughts", []) for part in parts])  # older files have none
