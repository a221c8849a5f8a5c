"""Windows of one long row of ids: the base of tasks over a text."""

from __future__ import annotations

import unicodedata
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.task import Task, check_length, check_split, counted_from
from toyqs.tasks.texts.counts import count_nll
from toyqs.types import Batch


class Windows(Task):
    """Windows of a text; none, its last target included, crosses the border to the held-out text.

    Training windows start anywhere, uniformly. Held-out windows are spread evenly over the held-out text, in
    its order and without the generator, so they are the same for every run; they overlap only where it is
    shorter than batch_size · seq_len + 1 ids.
    """

    held_out_fraction: float
    unit: ClassVar[str] = "tokens"  # what an id stands for

    @property
    @abstractmethod
    def ids(self) -> Tensor:
        """Return the whole text, (number of ids,) int32."""

    @property
    def border(self) -> int:
        """Return how many ids are for training; the others are held out."""
        return len(self.ids) - round(self.held_out_fraction * len(self.ids))

    def check_fraction(self) -> None:
        """Refuse a held_out_fraction that is not between 0 and 1.

        Raises:
            ValueError: one line that names the key as typed and the remedy.
        """
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(
                f"task.held_out_fraction={self.held_out_fraction}: is a fraction of the text; "
                "give more than 0 and less than 1"
            )

    def check_lengths(self, seq_len: int) -> None:
        """Refuse windows that are too long, and a text that is too short for one.

        Args:
            seq_len: T.

        Raises:
            ValueError: one line that names the key as typed and the remedy.
        """
        check_length(f"seq_len={seq_len}", seq_len)
        for split in ("train", "held_out"):
            length = len(self._part(split))
            if length < seq_len + 1:
                raise ValueError(
                    f"{self.given}: its {len(self.ids)} {self.unit} leave {length} for the {split} split, "
                    f"and seq_len={seq_len} needs {seq_len + 1}; give a longer text, a smaller seq_len or "
                    "another task.held_out_fraction"
                )

    def _part(self, split: str) -> Tensor:
        return self.ids[: self.border] if split == "train" else self.ids[self.border :]

    def length(self, seq_len: int) -> int:
        """Return T = seq_len."""
        return seq_len

    def steps(self, batch_size: int, seq_len: int, epochs: int) -> int:
        """Return the steps that draw as many ids as `epochs` passes through the training text."""
        return epochs * max(1, len(self._part("train")) // (batch_size * seq_len))

    def held_out_size(self, seq_len: int) -> int:
        """Return the number of windows that the held-out text holds side by side."""
        return max(1, (len(self._part("held_out")) - 1) // seq_len)

    def references(self, batch: Batch) -> dict[str, float]:
        """Return `unigram_nll` and `bigram_nll` of the training text's counts, see `count_nll`."""
        training = self._part("train")
        return count_nll(training, batch.inputs, batch.targets, batch.weights, self.vocab_size)

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw windows of the text.

        Args:
            generator: decides where training windows start; held-out windows do not use it.
            batch_size: B.
            seq_len: T.
            split: "train" or "held_out".
            progress: ignored.

        Returns:
            Batch with S = 1, all weights 1, thinking everywhere.

        Raises:
            ValueError: an unknown split.
        """
        check_split(split)
        part = self._part(split)
        last = len(part) - seq_len - 1
        if split == "train":
            starts = torch.randint(last + 1, (batch_size,), generator=generator)
        else:
            starts = torch.arange(batch_size) * last // max(1, batch_size - 1)
        windows = part[starts.unsqueeze(1) + torch.arange(seq_len + 1)].long().unsqueeze(0)
        inputs, targets = windows[..., :-1].contiguous(), windows[..., 1:].contiguous()
        return counted_from(0, inputs, targets)


def is_vowel(text: str) -> bool:
    """Tell whether a text begins with a, e, i, o or u, with or without an accent."""
    return unicodedata.normalize("NFD", text)[:1].lower() in tuple("aeiou")
