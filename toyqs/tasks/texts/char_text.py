"""CharText: the next character of a text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from toyqs.assets.text import DATASETS, dataset_text, read_text
from toyqs.tasks.task import NO_YES, Feature
from toyqs.tasks.texts.windows import Windows, is_vowel
from toyqs.types import Batch


@dataclass
class CharText(Windows):
    """Predict each next character of a text file; every position counts and thinks.

    The vocabulary is the sorted set of the whole file's characters, and an id is a rank in it.

    Worked example: the file "hello world" has the characters " dehlorw", ids 0…7, and a window of seq_len 4
    that starts at its first character is

    inputs     h e l l    3 2 4 4
    targets    e l l o    2 4 4 5

    Splits: the last held_out_fraction of the text is held out, the rest is for training; windows are as
    `Windows` says.
    """

    name: ClassVar[str] = "char_text"
    summary: ClassVar[str] = "the next character of a text: task.path=FILE or task.dataset=shake"
    unit: ClassVar[str] = "characters"

    path: str | None = None  # a UTF-8 text file
    dataset: str | None = None  # a known text, downloaded once; "shake" is tiny Shakespeare
    held_out_fraction: float = 0.1  # the part of the text, its end, that is never trained on
    curriculum: float = 0.0  # share of training over which windows of larger loss come in; 0: off
    levels: int = 4  # how many lengths thoughts have with adaptive_len, each at as many positions
    losses: str | None = None  # a base LM's at every token, of `toyqs.answers losses`; None: those of counts

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work; reads the text, and may download it.

        Args:
            seq_len: T, characters per sequence.

        Raises:
            ValueError: one line that names the key as typed and the remedy.
        """
        self.check_fraction()
        self.check_difficulty()
        if len(self.alphabet) < 2:
            raise ValueError(
                f"{self.given}: the text has {len(self.alphabet)} different characters, and at least 2 "
                "are needed; give another text"
            )
        self.check_lengths(seq_len)

    @property
    def given(self) -> str:
        """Return the setting that names the text, as typed."""
        return f"task.dataset={self.dataset}" if self.path is None else f"task.path={self.path}"

    @cached_property
    def _encoded(self) -> tuple[str, Tensor]:
        """Read the text, once: its alphabet, and its ids."""
        if self.path is not None and self.dataset is not None:
            raise ValueError(
                f"task.path={self.path} and task.dataset={self.dataset}: both name a text; give only one "
                "(task.dataset=null undoes a preset's)"
            )
        known = ", ".join(DATASETS)
        if self.path is not None:
            text = read_text(self.path)
        elif self.dataset is None:
            raise ValueError(
                f"task=char_text: no text is given; give task.path=FILE or task.dataset=NAME ({known})"
            )
        elif self.dataset in DATASETS:
            text = dataset_text(self.dataset)
        else:
            raise ValueError(
                f"task.dataset={self.dataset}: is not one of {known}; give task.path=FILE instead"
            )
        # UTF-32 has one number per character, so that NumPy can rank them without a loop
        codes, ids = np.unique(np.frombuffer(text.encode("utf-32-le"), dtype="<u4"), return_inverse=True)
        return "".join(map(chr, codes)), torch.from_numpy(ids.astype(np.int32))

    @cached_property
    def alphabet(self) -> str:
        """Return the characters of the text, sorted; a character's id is its place."""
        return self._encoded[0]

    @property
    def ids(self) -> Tensor:
        """Return the whole text, (number of characters,) int32."""
        return self._encoded[1]

    @property
    def vocab_size(self) -> int:
        """Return V, the number of different characters."""
        return len(self.alphabet)

    @property
    def line_ends(self) -> Tensor:
        """Return which ids are line feeds, (V,) bool."""
        return torch.tensor([x == "\n" for x in self.alphabet])

    def identity(self) -> dict[str, str | float]:
        """Return what the data depend on: the text itself, wherever its file is, and the split."""
        return {"sha256": self._digest, "held_out_fraction": self.held_out_fraction, **self.knobs()}

    @cached_property
    def _digest(self) -> str:
        alphabet, ids = self._encoded
        return hashlib.sha256(ids.numpy().tobytes() + alphabet.encode()).hexdigest()

    def vocabulary(self) -> str:
        """Return the alphabet."""
        return self.alphabet

    def with_vocabulary(self, vocabulary: str) -> CharText:
        """Return the task with an alphabet, for which no text is read.

        Raises:
            ValueError: one line, where it is not different characters in their order.
        """
        if not isinstance(vocabulary, str) or "".join(sorted(set(vocabulary))) != vocabulary:
            raise ValueError(
                "task.vocabulary: is no alphabet, which is different characters in their order; give the "
                "folder of another run"
            )
        task = replace(self)
        task.alphabet = vocabulary
        return task

    def encode(self, text: str) -> Tensor:
        """Return the ids (n,) long of a text's characters.

        Raises:
            ValueError: a character that the file does not have.
        """
        rank = {character: place for place, character in enumerate(self.alphabet)}
        if unknown := sorted(set(text) - rank.keys()):
            raise ValueError(f"{self.given}: has no character {unknown[0]!r}; ask without it")
        return torch.tensor([rank[character] for character in text], dtype=torch.long)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids."""
        return "".join(self.alphabet[i] for i in ids)

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return the next character, whether it is a vowel (with any accent), and whether it is a space."""
        vowels = torch.tensor([is_vowel(x) for x in self.alphabet]).long()
        spaces = torch.tensor([x.isspace() for x in self.alphabet]).long()
        return {
            "next character": Feature(batch.targets, self.vocab_size, self.symbols(range(self.vocab_size))),
            "vowel": Feature(vowels[batch.targets], 2, NO_YES),
            "space": Feature(spaces[batch.targets], 2, NO_YES),
        }

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the characters of token ids; those that cannot be printed as Python escapes them."""
        return [repr(self.alphabet[i])[1:-1] for i in ids]
