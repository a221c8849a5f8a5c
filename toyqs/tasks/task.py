"""What every task offers to the training loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

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

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Sequences of a split, the same for the same state of the generator and the same progress.

        Args:
            generator: the only source of randomness.
            batch_size: B.
            seq_len: as in `length`.
            split: "train" or "held_out".
            progress: share of the training that is done, 0 to 1, for tasks with a curriculum: a number
                that the loop passes in, as a task has no state.

        Returns:
            Batch with S = 1.

        Raises:
            ValueError: an unknown split.
        """
        ...

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Readable names of token ids."""
        ...


def scatter(digits: Sequence[Tensor], seed: int) -> Tensor:
    """A number for each row of digits, fixed by the digits and the seed, otherwise as by chance.

    It holds out sequences by no rule that a model could learn, such as a checksum, which would let long
    training on the others tell the answers of these apart.

    Args:
        digits: one or more, each (B,) long; the last is mixed in less than those before it.
        seed: any number; another one scatters anew.

    Returns:
        (B,) long, 0 to 2^28 − 1.
    """
    number = torch.full_like(digits[0], seed % 2**31)
    for digit in digits:
        # one round of a 31-bit congruential generator per digit, its high bits folded down.
        number = (number * 1103515245 + 12345 + digit * 2654435761) & (2**31 - 1)
        number = number ^ (number >> 15)
    return number >> 3


def check_split(split: str) -> None:
    """Refuse the name of a split that no task has.

    Raises:
        ValueError: neither "train" nor "held_out".
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: tasks have the splits {' and '.join(SPLITS)}")
