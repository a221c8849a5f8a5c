"""Windows of one long row of ids: the base of tasks over a text."""

from __future__ import annotations

import hashlib
import unicodedata
from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from toyqs.tasks.difficulty import check_curriculum, quantile_of, risen
from toyqs.tasks.task import Task, check_length, check_split, counted_from
from toyqs.tasks.texts.counts import Counts, count_nll
from toyqs.types import Batch

EASIEST = 0.25  # share of a text's windows with which a curriculum begins


class Windows(Task):
    """Windows of a text; none, its last target included, crosses the border to the held-out text.

    Training windows start anywhere, uniformly. Held-out windows are spread evenly over the held-out text, in
    its order and without the generator, so they are the same for every run; they overlap only where it is
    shorter than batch_size · seq_len + 1 ids.

    The difficulty of an id is its loss under a base model that is the same for all arms: the training text's
    counts (`Counts`), or a finished run that left its losses in a file (`losses`). A curriculum draws the
    windows of least mean difficulty at first, a quarter of them, and more and more of the others. A thought
    after an id is the longer the larger the loss is to be expected there: not the loss itself, which would
    tell the reader what comes.
    """

    held_out_fraction: float
    curriculum: float  # share of training over which windows of larger loss come in; 0: off
    levels: int  # how many lengths thoughts have with adaptive_len, each at as many positions
    losses: str | None  # a file with the loss at every id and that to expect after it; None: those of counts
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

    def check_difficulty(self) -> None:
        """Refuse a curriculum or a number of levels out of range; see `check_fraction`."""
        check_curriculum(self.curriculum)
        if self.levels < 1:
            raise ValueError(f"task.levels={self.levels}: is a number of lengths; give task.levels=1 or more")
        _ = self.base_losses  # raises where they are not this text's

    def knobs(self) -> dict[str, str | float]:
        """Return what `identity` adds of these settings, where they are not those of earlier versions."""
        given: dict[str, tuple[str | float | None, str | float | None]] = {
            "curriculum": (self.curriculum, 0.0),
            "levels": (self.levels, 4),
            "losses": (self.losses and hashlib.sha256(self._file.numpy().tobytes()).hexdigest(), None),
        }
        return {name: value for name, (value, before) in given.items() if value not in (None, before)}

    @cached_property
    def _file(self) -> Tensor:
        """Return the losses of a file, (2, number of ids) float32."""
        try:
            found = np.load(str(self.losses), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            why = f"cannot be read ({str(error).splitlines()[0]})"
            raise ValueError(
                f"task.losses={self.losses}: {why}; give a file of toyqs.answers losses"
            ) from error
        return torch.from_numpy(np.array(found, dtype=np.float32))

    @cached_property
    def base_losses(self) -> Tensor | None:
        """Return a base LM's losses and those to expect, (2, number of ids); None where counts have them.

        Raises:
            ValueError: one line; the file cannot be read, or is of another text.
        """
        if self.losses is None:
            return None
        if tuple(self._file.shape) != (2, len(self.ids)) or not bool(self._file.isfinite().all()):
            raise ValueError(
                f"task.losses={self.losses}: holds {tuple(self._file.shape)} numbers, and {self.given} has "
                f"{len(self.ids)} {self.unit}; give the losses of a run on this text"
            )
        return self._file

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

    @cached_property
    def counts(self) -> Counts:
        """Return the counts of the training text."""
        return Counts(self._part("train"), self.vocab_size)

    def difficulty(self) -> Tensor:
        """Return how difficult each id of the training text is, (number of ids,) float64."""
        if self.base_losses is not None:
            return self.base_losses[0, : self.border].double()
        part = self._part("train").long()
        loss = -self.counts.prob(part[:-1], part[1:]).log()
        return torch.cat([loss[:1], loss])  # the first has none before it

    @cached_property
    def _level_of(self) -> Tensor:
        """Return how long a thought after each token is, (V,) long, 1 to `levels`."""
        expected = self.counts.entropy()
        return 1 + quantile_of(expected, expected[self._part("train").long()], self.levels)

    def thought_length(self, inputs: Tensor) -> Tensor:
        """Return how long thoughts are after tokens (S, B, T), by the loss that counts expect there.

        Returns:
            (S, B, T) long, from 1 to `levels`: quantiles of the training text.
        """
        return self._level_of.to(inputs.device)[inputs]

    @cached_property
    def _by_difficulty(self) -> dict[int, Tensor]:
        return {}

    def _easiest(self, seq_len: int, progress: float) -> Tensor:
        """Return where the training windows begin that a curriculum draws from, the easiest first."""
        if seq_len not in self._by_difficulty:
            total = self.difficulty().cumsum(0)
            self._by_difficulty[seq_len] = (total[seq_len:] - total[:-seq_len]).argsort(stable=True)
        order = self._by_difficulty[seq_len]
        share = EASIEST + risen(1 - EASIEST, progress, self.curriculum)
        return order[: max(1, round(share * len(order)))]

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw windows of the text.

        Args:
            generator: decides where training windows start; held-out windows do not use it.
            batch_size: B.
            seq_len: T.
            split: "train" or "held_out".
            progress: as for `Task.sample`; ignored without a curriculum.

        Returns:
            Batch with S = 1, all weights 1, thinking everywhere.

        Raises:
            ValueError: an unknown split.
        """
        check_split(split)
        part = self._part(split)
        last = len(part) - seq_len - 1
        if split == "train":
            drawn_from = self._easiest(seq_len, progress) if progress < self.curriculum else None
            count = last + 1 if drawn_from is None else len(drawn_from)
            starts = torch.randint(count, (batch_size,), generator=generator)
            starts = starts if drawn_from is None else drawn_from[starts]
        else:
            starts = torch.arange(batch_size) * last // max(1, batch_size - 1)
        windows = part[starts.unsqueeze(1) + torch.arange(seq_len + 1)].long().unsqueeze(0)
        inputs, targets = windows[..., :-1].contiguous(), windows[..., 1:].contiguous()
        places = starts.unsqueeze(1) + torch.arange(seq_len)
        own, problem = self.given_lengths(split, places), self.given_problems(split, places)
        batch = counted_from(0, inputs, targets)._replace(start=starts.unsqueeze(0))
        return batch._replace(thought_length=own, problem_length=problem)

    @property
    @abstractmethod
    def line_ends(self) -> Tensor:
        """Return which ids end a line, (V,) bool."""

    def hint(self, batch: Batch, split: str) -> Tensor:
        """Return the line before, and what of its own line stands before a window.

        That is the text from the beginning of the line before up to the window, of which the last seq_len ids
        are taken. Several ends of lines in a row are one. What is shorter has an end of a line (the first id
        where there is none) in front, as often as it takes.

        Args:
            batch: windows, with their `start`.
            split: of them.

        Returns:
            (S, B, seq_len) long.
        """
        assert batch.start is not None
        part, length, ends = self._part(split), batch.inputs.shape[-1], self.line_ends
        places = batch.start.unsqueeze(-1) + torch.arange(-length, 1)  # the last one is the window's first
        ids = part[places.clamp(min=0)].long()
        ended = (ends[ids[..., :-1]] & ~ends[ids[..., 1:]]).flip(-1).cumsum(-1).flip(-1)
        known = (ended <= 1) & (places[..., :-1] >= 0)
        return ids[..., :-1].where(known, int(ends.long().argmax()))

    def hint_length(self, seq_len: int) -> int:
        """Return seq_len."""
        return seq_len

    def problem_length(self, inputs: Tensor) -> Tensor:
        """Return how much of a window has been read at each position of (S, B, T): 1 to T, long."""
        return torch.arange(1, inputs.shape[-1] + 1, device=inputs.device).expand(inputs.shape)

    def given_problems(self, split: str, places: Tensor) -> Tensor | None:
        """Return how long problems are at places (B, T) of a split; None: by `problem_length`."""
        return None

    def given_lengths(self, split: str, places: Tensor) -> Tensor | None:
        """Return how long thoughts are at places (B, T) of a split, (1, B, T); None: by `thought_length`."""
        if self.base_losses is None:
            return None
        expected = self.base_losses[1]
        places = places if split == "train" else places + self.border
        return 1 + quantile_of(expected[places], expected[: self.border], self.levels).unsqueeze(0)


def is_vowel(text: str) -> bool:
    """Tell whether a text begins with a, e, i, o or u, with or without an accent."""
    return unicodedata.normalize("NFD", text)[:1].lower() in tuple("aeiou")
