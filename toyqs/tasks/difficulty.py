"""Difficulty: what training begins with, how long thoughts are, and depths that are never trained on.

Of a task whose instances have a depth it is that depth; of a text the loss of its counts, see
`texts/windows.py`. `task.curriculum` is the share of the training over which it rises.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from toyqs.tasks.task import Task
from toyqs.types import Batch


class Depths(Task):
    """A task whose instances have a depth, the steps from what is read to the answer.

    Training draws depths from 1 to `trained_depth`, the largest rising with a curriculum. Held-out sequences
    draw them up to `deepest` = reach · trained_depth, each equally often: those beyond trained_depth were
    never trained on. Instances of different depths may differ in length. Shorter ones are followed by pads,
    on which nothing can depend, as they come after all that counts.
    """

    reach: int  # the largest depth asked, in multiples of the largest trained on
    curriculum: float  # share of training over which the largest depth rises; 0: off

    @property
    def least_depth(self) -> int:
        """Return the smallest depth."""
        return 1

    @property
    def least_held_out(self) -> int:
        """Return the smallest depth of held-out sequences."""
        return self.least_depth

    @property
    @abstractmethod
    def trained_depth(self) -> int:
        """Return the largest depth in training."""

    @property
    def deepest(self) -> int:
        """Return the largest depth that is asked."""
        return self.reach * self.trained_depth

    @abstractmethod
    def depth(self, inputs: Tensor) -> Tensor:
        """Return the depth at each position where something is asked, 0 elsewhere.

        Args:
            inputs: (S, B, T) long.

        Returns:
            (S, B, T) long.
        """

    def thought_length(self, inputs: Tensor) -> Tensor:
        """Return how many symbols a thought needs, one per step: the depth, (S, B, T) long."""
        return self.depth(inputs)

    def problem_length(self, inputs: Tensor) -> Tensor:
        """Return how many tokens the answer at each position follows from, (S, B, T) long; 0: none is asked.

        By default one for each step, and one for what the first is applied to.
        """
        depth = self.depth(inputs)
        return depth + (depth > 0)

    def as_deep(self, steps: Tensor, inputs: Tensor) -> Tensor:
        """Cut steps (S, B, T, k), an axis T of 1 broadcasts, at each position's depth: −1 behind it."""
        return steps.where(torch.arange(steps.shape[-1]) < self.depth(inputs).unsqueeze(-1), -1)

    def placed(self, steps: Tensor, places: Tensor, inputs: Tensor) -> Tensor:
        """Put steps (S, B, Q, k) at places (S, B, Q) of the axis T, cut by `as_deep`; −1 elsewhere."""
        nowhere = inputs.new_full((*inputs.shape, steps.shape[-1]), -1)
        return self.as_deep(nowhere.scatter(-2, places.unsqueeze(-1).expand(steps.shape), steps), inputs)

    def check_depths(self) -> None:
        """Refuse a reach or a curriculum out of range.

        Raises:
            ValueError: one line that names the key as typed and the remedy.
        """
        if self.reach < 1:
            raise ValueError(
                f"task.reach={self.reach}: is a multiple of the largest depth trained on; give 1 (no deeper) "
                "or more"
            )
        check_curriculum(self.curriculum)

    def largest_depth(self, progress: float) -> int:
        """Compute the largest depth that is trained on: it rises in equal stages of the curriculum.

        Args:
            progress: share of the training that is done, 0 to 1.
        """
        stages = self.trained_depth - self.least_depth
        return self.least_depth + int(risen(stages, progress, self.curriculum))

    def draw_depths(
        self, generator: torch.Generator, shape: tuple[int, ...], split: str, progress: float
    ) -> Tensor:
        """Draw depths of a split: uniform in training; of held-out instances each depth equally often.

        Args:
            generator: the only source of randomness.
            shape: of the result.
            split: "train" or "held_out".
            progress: as for `largest_depth`.

        Returns:
            shape, long.
        """
        if split == "train":
            largest = self.largest_depth(progress)
            return torch.randint(self.least_depth, largest + 1, shape, generator=generator)
        count, least = torch.Size(shape).numel(), self.least_held_out
        return (torch.randperm(count, generator=generator) % (self.deepest - least + 1) + least).view(shape)


class HintedDepths(Depths):
    """A task of a depth whose hint tells the steps of each question before its answer.

    Its last id is a pad, where its questions are of several depths.
    """

    queries: int  # questions per sequence

    def hint(self, batch: Batch, split: str) -> Tensor:
        """Return the steps of each question but the last, which is its answer, question by question.

        Args:
            batch: sequences at all positions, which think where something is asked.
            split: of them; in both a hint has the steps up to the largest depth in training.

        Returns:
            (S, B, queries · (trained_depth − 1)) long, pads behind the steps of a question that has fewer.
        """
        assert self.gold is not None
        asked = self.gold(batch.inputs)[batch.think].view(*batch.inputs.shape[:2], -1, self.trained_depth)
        depth = self.depth(batch.inputs)[batch.think].view(*asked.shape[:3], 1)
        known = torch.arange(self.trained_depth - 1) < depth - 1
        return asked[..., :-1].where(known, self.vocab_size - 1).flatten(2)

    def hint_length(self, seq_len: int) -> int:
        """Return queries · (trained_depth − 1), whatever `seq_len`."""
        return self.queries * (self.trained_depth - 1)


def check_curriculum(curriculum: float) -> None:
    """Refuse a curriculum that is no share of the training.

    Raises:
        ValueError: one line that names the key as typed and the remedy.
    """
    if not 0 <= curriculum <= 1:
        raise ValueError(f"task.curriculum={curriculum}: is a share of the training; give 0 to 1 (0: off)")


def risen(most: float, progress: float, curriculum: float) -> float:
    """Compute how far a curriculum has come, from 0 to `most`, which it reaches at its share of training."""
    return most if progress >= curriculum else most * progress / curriculum


def quantile_of(values: Tensor, population: Tensor, levels: int) -> Tensor:
    """Return in which of `levels` equally large parts of a population each value falls, the smallest first.

    Args:
        values: any shape.
        population: (n,) of the same dtype.
        levels: how many parts.

    Returns:
        The shape of `values`, long, 0 to levels − 1.
    """
    order = population.sort().values
    edges = order[[len(order) * part // levels for part in range(1, levels)]]
    return torch.bucketize(values, edges, right=True)


def joined(front: Tensor, length: Tensor, back: Tensor, pad: int) -> Tensor:
    """Put `back` behind the first tokens of `front`, and pads behind that.

    Args:
        front: (B, F) long.
        length: (B,) long, how many tokens of `front` are kept.
        back: (B, R) long.
        pad: the id of a pad.

    Returns:
        (B, F + R) long.
    """
    places = torch.arange(front.shape[1] + back.shape[1])
    behind = places - length.unsqueeze(1)
    kept = places.clamp(max=max(0, front.shape[1] - 1)).expand(len(front), -1)
    tokens = front.gather(1, kept) if front.shape[1] else torch.zeros_like(kept)
    after = back.gather(1, behind.clamp(0, back.shape[1] - 1))
    return torch.where(behind < 0, tokens, torch.where(behind < back.shape[1], after, pad))


def at_place(place: Tensor, length: int) -> Tensor:
    """Return True at one position of each sequence: place (…) long -> (…, length) bool."""
    return torch.arange(length, device=place.device) == place.unsqueeze(-1)
