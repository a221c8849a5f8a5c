"""The state of a training between two of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from toyqs.graphs import Graphs
from toyqs.training.divergence import Divergence
from toyqs.training.optimizers.grokfast import Grokfast
from toyqs.training.optimizers.muon import ADJUSTMENTS
from toyqs.training.optimizers.optimizer import Native, Optimiser
from toyqs.training.reference_model import ReferenceModel
from toyqs.types import QKClip

REWARD_DECAY = 0.99  # of the moving mean of rewards behind baseline ema


class Checkpoints(Protocol):
    """The place where the states of a training are saved."""

    def resume(self, state: TrainState) -> None:
        """Put the state back to where an earlier process left it, if one did."""
        ...

    def keep(self, state: TrainState) -> None:
        """Save the state after a step, if that is due."""
        ...


class TrainState:
    """Weights, moments and moving means; the next batch follows from the number of steps done.

    Args:
        model: its parameters have shape (S, ...).
        lr_multipliers: see `Optimiser`.
        reference_model: updated after every step where it is a moving average.
        method: of the optimiser, see there.
        native: likewise.
        adjust_lr_fn: likewise.
        grokfast: likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        lr_multipliers: Mapping[str, float],
        reference_model: ReferenceModel | None,
        method: str = "adamw",
        native: Native | None = None,
        *,
        adjust_lr_fn: str = next(iter(ADJUSTMENTS)),
        grokfast: Grokfast | None = None,
    ) -> None:
        self.optimiser = Optimiser(
            model, lr_multipliers, method, native, adjust_lr_fn=adjust_lr_fn, grokfast=grokfast
        )
        found = (getattr(module, "qk_clip", None) for module in model.modules())
        self.qk_clips: list[QKClip] = [clip for clip in found if clip is not None]
        self.shapes = [f"{name} {tuple(p.shape[1:])}" for name, p in model.named_parameters()]
        self.model, self.reference_model = model, reference_model
        self.graphs: Graphs | None = None  # of its steps; None: they are made without
        self.step = 0
        self.diverged: dict[int, Divergence] = {}  # by the seed's index
        self.reward = torch.zeros(self.optimiser.num_seeds, device=self.optimiser.grads.device)
        self.decay = 1.0  # weight that the moving mean still gives to its start, 0

    @property
    def running_reward(self) -> Tensor:
        """Return the moving mean of rewards, (S,)."""
        return self.reward / (1.0 - self.decay) if self.decay < 1.0 else self.reward

    @property
    def all_diverged(self) -> bool:
        """Tell whether no seed is left to train."""
        return len(self.diverged) == self.optimiser.num_seeds

    def stop(self, index: int, divergence: Divergence) -> None:
        """End the training of a diverged seed: its weights become NaN, and stay so."""
        self.diverged[index] = divergence
        self.optimiser.blank(index)

    def advance(self, reward: Tensor | None) -> None:
        """Count a step and update the moving means, of the weights and of a reward (S,) if there is one."""
        self.step += 1
        if self.reference_model is not None:
            self.reference_model.update_average(self.model)
        if reward is not None:
            self.reward = REWARD_DECAY * self.reward + (1.0 - REWARD_DECAY) * reward
            self.decay *= REWARD_DECAY

    def seed_state(self, index: int) -> dict[str, Any]:
        """Return a copy of one seed's state, for `restore`."""
        reference = self.reference_model
        averages = [] if reference is None or reference.decay == 1.0 else reference.parameters
        return {
            "step": self.step,
            "diverged": tuple(self.diverged.get(index, ())),
            "shapes": self.shapes,
            "optimiser": self.optimiser.seed_state(index),
            "reference_model": [parameter[index].clone() for parameter in averages],
            "reward": self.reward[index].clone(),
            "decay": self.decay,
        }

    @torch.no_grad()
    def restore(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Restore what `seed_state` returned, seed by seed, all after the same step.

        Raises:
            ValueError: it is the state of another model.
        """
        if any(part["shapes"] != self.shapes for part in parts):
            raise ValueError("checkpoint.pt is of a model with other parameters")
        self.step, self.decay = parts[0]["step"], parts[0]["decay"]
        lost = {index: part["diverged"] for index, part in enumerate(parts) if part["diverged"]}
        self.diverged = {index: Divergence(*values) for index, values in lost.items()}
        self.optimiser.restore([part["optimiser"] for part in parts])
        self.reward = torch.stack([part["reward"] for part in parts]).to(self.reward.device)
        if self.reference_model is None:
            return
        for index, part in enumerate(parts):
            averages = self.reference_model.parameters if part["reference_model"] else []
            for parameter, value in zip(averages, part["reference_model"], strict=True):
                parameter[index] = value
