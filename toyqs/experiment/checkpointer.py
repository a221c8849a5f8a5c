"""When the state of a training is saved, and which runs it resumes."""

from __future__ import annotations

from collections.abc import Sequence

from toyqs.config.run_config import RunConfig
from toyqs.experiment import checkpoint
from toyqs.experiment.learning_curve import LearningCurve
from toyqs.experiment.run_folder import RunFolder
from toyqs.training.state import TrainState


class ResumeOnly:
    """What earlier processes left of a training; another process keeps what this one leaves."""

    def __init__(self, left: Sequence[checkpoint.SavedState | None]) -> None:
        self.left = [state for state in left if state is not None]

    def resume(self, state: TrainState) -> None:
        """Put the training back to where an earlier process left it, if one did."""
        if self.left:
            state.restore([left["training"] for left in self.left])

    def keep(self, state: TrainState) -> None:
        """Keep nothing."""


class Checkpointer(ResumeOnly):
    """Keeps a stack's training in its runs' folders, a file per seed."""

    def __init__(
        self,
        config: RunConfig,
        records: Sequence[RunFolder],
        curve: LearningCurve,
        left: Sequence[checkpoint.SavedState | None],
    ) -> None:
        super().__init__(left)
        self.every, self.steps = config.checkpoint_every, config.max_steps
        self.records, self.curve = records, curve
        self.first = 0

    def resume(self, state: TrainState) -> None:
        """Put the training, its curve and its clock back."""
        super().resume(state)
        clock = self.curve.clock
        if self.left:
            self.curve.restore([left["curve"] for left in self.left])
            clock.go_on(self.left[0]["seconds"])
        self.first, self.left = state.step, []
        clock.start_training()

    def keep(self, state: TrainState) -> None:
        """Write a checkpoint after every so many steps but the last."""
        if not self.every or state.step % self.every or state.step == self.steps:
            return
        clock = self.curve.clock
        with clock.paused():
            for index, record in enumerate(self.records):
                parts = {"training": state.seed_state(index), "curve": self.curve.seed_state(index)}
                kept = {"step": state.step, "log_size": record.log.size, "seconds": clock.seconds}
                checkpoint.write(record.folder, parts | kept)
