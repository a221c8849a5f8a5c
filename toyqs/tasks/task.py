"""What every task offers to the training loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol

import torch

from toyqs.types import Batch

SPLITS = ("train", "held_out")


class Task(Protocol):
    """A source of sequences; a task is a dataclass, and its fields are its knobs in the configuration."""

    name: ClassVar[str]

    def check(self, seq_len: int) -> None:
        """Refuse knobs that cannot work, before any other work.

        Args:
            seq_len: length of a training sequence, for tasks without a length of their own.

        Raises:
            ValueError: one line that names the key as typed and the remedy.
        """
        ...

    @property
    def vocab_size(self) -> int:
        """V, the number of token ids."""
        ...

    def length(self, seq_len: int) -> int:
        """T of a sample; tasks with a length of their own ignore `seq_len`."""
        ...

    def steps(self, batch_size: int, seq_len: int, epochs: int) -> int:
        """Number of training steps where none is asked for."""
        ...

    def held_out_size(self, seq_len: int) -> int | None:
        """Number of different held-out sequences; None: more than anyone asks for."""
        ...

    def floor(self) -> float | None:
        """Bayes NLL in nats per counted position; None where unknown."""
        ...

    def sample(self, generator: torch.Generator, batch_size: int, seq_len: int, split: str) -> Batch:
        """Sequences of a split, the same for the same state of the generator.

        Args:
            generator: the only source of randomness.
            batch_size: B.
            seq_len: as in `length`.
            split: "train" or "held_out".

        Returns:
            Batch with S = 1.

        Raises:
            ValueError: an unknown split.
        """
        ...

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Readable names of token ids."""
        ...


def check_split(split: str) -> None:
    """Refuse the name of a split that no task has.

    Raises:
        ValueError: neither "train" nor "held_out".
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: tasks have the splits {' and '.join(SPLITS)}")
