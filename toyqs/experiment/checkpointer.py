"""Save the state of a training now and then, and resume from it."""

from __future__ import annotations

from collections.abc import Sequence

from toyqs.config.run_config import RunConfig
from toyqs.experiment import checkpoint
from toyqs.experiment.learning_curve import LearningCurve
from toyqs.experiment.run_folder import RunFolder
from toyqs.training.state import TrainState


class ResumeOnly:
    """Resumes a training and saves nothing: for the ranks other than 0, which saves for all.

    Args:
        saved: the last checkpoint of each seed, all at the same step; None where a seed has none.
    """

    def __init__(self, saved: Sequence[checkpoint.SavedState | None]) -> None:
        self.saved = [state for state in saved if state is not None]

    def resume(self, state: TrainState) -> None:
        """Restore the training where there are checkpoints.

        Raises:
            Unusable: they do not fit the training, which has to begin anew.
        """
        try:
            if self.saved:
                self.restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise checkpoint.Unusable(str(error)) from error

    def restore(self, state: TrainState) -> None:
        """Restore the training from the checkpoints, of which there are some."""
        state.restore([saved["training"] for saved in self.saved])

    def keep(self, state: TrainState) -> None:
        """Save nothing."""


class Checkpointer(ResumeOnly):
    """Resumes a training with its curve and its timer, and saves them in the run folders, a file per seed."""

    def __init__(
        self,
        config: RunConfig,
        folders: Sequence[RunFolder],
        curve: LearningCurve,
        saved: Sequence[checkpoint.SavedState | None],
    ) -> None:
        super().__init__(saved)
        self.every, self.steps = config.checkpoint_every, config.max_steps
        self.folders, self.curve, self.timer = folders, curve, curve.timer
        self.first_step = 0  # steps that an earlier process has done

    def resume(self, state: TrainState) -> None:
        """Restore training, curve and timer where there are checkpoints, and start timing the training."""
        super().resume(state)
        self.first_step, self.saved = state.step, []
        self.timer.start_training()

    def restore(self, state: TrainState) -> None:
        """Restore training, curve and timer."""
        super().restore(state)
        self.curve.restore([saved["curve"] for saved in self.saved])
        self.timer.add_earlier(self.saved[0]["seconds"])

    def keep(self, state: TrainState) -> None:
        """Save the state every `checkpoint_every` steps; not after the last, which the row follows."""
        if not self.every or state.step % self.every or state.step == self.steps:
            return
        with self.timer.paused():
            for index, folder in enumerate(self.folders):
                folder.log.sync()
                saved = {
                    "step": state.step,
                    "log_size": folder.log.size,
                    "seconds": self.timer.seconds,
                    "training": state.seed_state(index),
                    "curve": self.curve.seed_state(index),
                }
                checkpoint.write(folder.folder, saved)
