"""All that a training is between two of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from toyqs.training.optimizer import Optimiser
from toyqs.training.reference_model import ReferenceModel

REWARD_DECAY = 0.99  # of the moving mean of rewards behind baseline ema


class TrainState:
    """Weights, moments and moving means; what is drawn next follows from the number of steps done.

    Args:
        model: its parameters have shape (S, ...).
        lr_multipliers: see `Optimiser`.
        kept: a model beside it, which may follow after every step.
    """

    def __init__(
        self, model: nn.Module, lr_multipliers: Mapping[str, float], reference_model: ReferenceModel | None
    ) -> None:
        self.optimiser = Optimiser(model, lr_multipliers)
        self.shapes = [f"{name} {tuple(p.shape[1:])}" for name, p in model.named_parameters()]
        self.model, self.reference_model = model, reference_model
        self.step = 0
        self.reward = torch.zeros(self.optimiser.num_seeds, device=self.optimiser.grads.device)
        self.decay = 1.0  # what a moving mean of the rewards lacks to be one

    @property
    def running_reward(self) -> Tensor:
        """(S,), the moving mean of rewards."""
        return self.reward / (1.0 - self.decay) if self.decay < 1.0 else self.reward

    def advance(self, reward: Tensor | None) -> None:
        """Count a step: the means follow, of the weights and of a reward (S,) where there was one."""
        self.step += 1
        if self.reference_model is not None:
            self.reference_model.update_average(self.model)
        if reward is not None:
            self.reward = REWARD_DECAY * self.reward + (1.0 - REWARD_DECAY) * reward
            self.decay *= REWARD_DECAY

    def seed_state(self, index: int) -> dict[str, Any]:
        """Return the part of one seed, copied, for `restore`."""
        following = (
            self.reference_model.parameters
            if self.reference_model is not None and self.reference_model.decay < 1.0
            else []
        )
        return {
            "step": self.step,
            "shapes": self.shapes,
            "optimiser": self.optimiser.seed_state(index),
            "kept": [parameter[index].clone() for parameter in following],
            "reward": self.reward[index].clone(),
            "decay": self.decay,
        }

    @torch.no_grad()
    def restore(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what `of_seed` gave, seed by seed, all of one step.

        Raises:
            ValueError: it was another model's.
        """
        if any(part["shapes"] != self.shapes for part in parts):
            raise ValueError(
                "checkpoint.pt is of a model with other parameters; remove it from the run's folder"
            )
        self.step, self.decay = parts[0]["step"], parts[0]["decay"]
        self.optimiser.restore([part["optimiser"] for part in parts])
        self.reward = torch.stack([part["reward"] for part in parts]).to(self.reward.device)
        if self.reference_model is None:
            return
        for index, part in enumerate(parts):
            following = self.reference_model.parameters if part["kept"] else []
            for parameter, value in zip(following, part["kept"], strict=True):
                parameter[index] = value
