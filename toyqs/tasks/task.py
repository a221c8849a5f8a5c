"""What every task offers to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from toyqs.types import Batch

SPLITS = ("train", "held_out")
LONGEST = 10_000  # positions; a step of the default model, counted once for each arm, takes seconds by then
MOST_NUMBERS = 10**6  # that a task draws or computes before the first sequence


NO_YES = ("no", "yes")  # names of the classes of what is or is not


class Feature(NamedTuple):
    """A value that a task computes on the way to its answer, or the answer, at every position."""

    values: Tensor  # (S, B, T) long, 0 … classes − 1; −1 where there is no such value
    classes: int
    names: Sequence[str] | None = None  # of the classes; None: their numbers


class GoldSizes(NamedTuple):
    """What the gold thoughts of a task need."""

    symbols: int  # ids run from 0 to symbols − 1
    shortest: int  # steps of the shortest one
    longest: int


class Task(ABC):
    """A source of sequences; a subclass is a dataclass, whose fields are the keys task.x of a run.

    A subclass gives `name`, `summary`, `vocab_size`, `length` and `sample`; the rest has defaults.
    """

    name: ClassVar[str] = ""  # the word after task=; "": a base class, which cannot be chosen
    summary: ClassVar[str] = ""  # one line of --help
    num_steps: ClassVar[int] = 500  # training steps where none are asked for

    group_name: ClassVar[str] = "sequences"  # what `probe_group` returns, in words
    more_groups: ClassVar[str] = "task"  # the keys that give more of them

    think_every: int = 1  # above 1: only every think_every-th position thinks

    # What only some tasks have, None in the others; a task that has it defines a method of this name.
    oracle: Callable[[Tensor], Tensor] | None = None
    """inputs (S, B, T) -> true log p(target | prefix), (S, B, T, V)"""
    depth: Callable[[Tensor], Tensor] | None = None
    """inputs (S, B, T) -> the depth of what is asked at each position, (S, B, T) long; 0: nothing is"""
    thought_length: Callable[[Tensor], Tensor] | None = None
    """inputs (S, B, T) -> how many symbols a thought needs at each position, (S, B, T) long"""
    problem_length: Callable[[Tensor], Tensor] | None = None
    """inputs (S, B, T) -> how many tokens the problem has that is asked at each position, as far as it has
    been read there, (S, B, T) long"""
    features: Callable[[Batch], dict[str, Feature]] | None = None
    """sequences at all positions -> what can be looked for in a model's states there, by name"""
    gold: Callable[[Tensor], Tensor] | None = None
    """inputs (S, B, T) -> the right steps of a thought at each position that thinks, the answer last:
    (S, B, T, L) long, symbols from 0, −1 after its `thought_length` and where nothing thinks"""
    gold_sizes: Callable[[], GoldSizes] | None = None
    """() -> how many symbols these are and how many steps; a task that has `gold` has it too"""
    hint: Callable[[Batch, str], Tensor] | None = None
    """sequences of a split, at all positions -> what helps to predict them, to be read before each:
    (S, B, H) long, token ids, in training and held out as many as `hint_length` says"""
    hint_length: Callable[[int], int] | None = None
    """seq_len -> H, 0 where a sequence has no hint; a task that has `hint` has it too"""
    identity: Callable[[], dict[str, str | float]] | None = None
    """() -> what the data depend on; the run's key is computed from it instead of from the task's keys"""
    vocabulary: Callable[[], str] | None = None
    """() -> what token ids stand for, where a file says that: an alphabet, or the hash of a tokeniser"""
    references: Callable[[Batch], dict[str, float]] | None = None
    """held-out sequences -> NLL of models of counts there, in nats per counted position, by name"""
    joint_floor: Callable[[int, int | None, bool], float | None] | None = None
    """N, number of different thoughts (None: without end), whether the model weighs them -> least NLL of
    N tokens predicted together from what was read before them (ahead=joint), None where it is not known"""
    encode: Callable[[str], Tensor] | None = None
    """text -> token ids (n,) long; a task that has it also has `decode(ids) -> text`"""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Return V, the number of token ids."""

    def thinking(self, seq_len: int) -> int:
        """Return how many positions of a sample think; by default every think_every-th of T."""
        return self.length(seq_len) // max(1, self.think_every)

    @property
    def added_tokens(self) -> int:
        """Return how many ids, the last ones, a checkpoint's table has no rows for; by default none."""
        return 0

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the ids that each end a document; the first stands after each. By default there are none."""
        return ()

    @abstractmethod
    def length(self, seq_len: int) -> int:
        """Return T of a sample; tasks with a length of their own ignore `seq_len`."""

    def held_out_length(self, seq_len: int) -> int:
        """Return T of a held-out sample, which may be longer than in training; by default it is the same."""
        return self.length(seq_len)

    @property
    def trained_depth(self) -> int | None:
        """Return the largest depth in training; None: training has all depths, or there are none."""
        return None

    @abstractmethod
    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw sequences of a split, the same for the same state of the generator and the same progress.

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

    def probe_group(self, inputs: Tensor) -> Tensor:
        """Return what decides the features of sequences, next to the token at a position.

        Probes are scored on groups that they were not fitted on. By default it is the whole sequence.

        Args:
            inputs: (…, T) long.

        Returns:
            (…, any) long, alike for sequences of one group.
        """
        return inputs

    def check(self, seq_len: int) -> None:
        """Refuse settings of the task that cannot work, before any other work.

        Args:
            seq_len: length of a training sequence, for tasks without a length of their own.

        Raises:
            ValueError: one line that names the key as typed and the remedy.
        """
        return None

    def with_tokenizer(self, checkpoint: str) -> Task:
        """Return the task with a checkpoint's tokeniser, where it cuts text by one and has none yet."""
        return self

    def with_vocabulary(self, vocabulary: str) -> Task:
        """Return the task of a finished run, whose tokens are known without its text.

        Args:
            vocabulary: what `vocabulary()` returned when the run was trained.

        Raises:
            ValueError: one line, where it is none, or differs from that of the files there are now.
        """
        return self

    @property
    def given(self) -> str:
        """Return the setting that names the data, as typed."""
        return f"task={self.name}"

    def steps(self, batch_size: int, seq_len: int, epochs: int) -> int:
        """Return the number of training steps where none is asked for."""
        return self.num_steps

    def held_out_size(self, seq_len: int) -> int | None:
        """Return the number of different held-out sequences; None: sequences are drawn without end."""
        return None

    def floor(self) -> float | None:
        """Return the Bayes NLL in nats per counted position; None where unknown."""
        return None

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids; by default their numbers."""
        return [str(i) for i in ids]


def counted_from(first: int, inputs: Tensor, targets: Tensor) -> Batch:
    """Return a batch whose positions from `first` on count and think.

    Args:
        first: -1 for the last position alone.
        inputs: (S, B, T) long.
        targets: (S, B, T) long; where a position does not count they become a filler 0.
    """
    think = torch.zeros(inputs.shape, dtype=torch.bool)
    think[..., first:] = True
    return counted_at(think, inputs, targets)


def counted_at(think: Tensor, inputs: Tensor, targets: Tensor) -> Batch:
    """Return a batch whose positions count and think where `think`, (S, B, T) bool, says.

    Args:
        think: at equally many positions of every sequence.
        inputs: (S, B, T) long.
        targets: (S, B, T) long; where a position does not count they become a filler 0.
    """
    return Batch(inputs, targets * think, think.float(), think)


def scatter(digits: Sequence[Tensor], seed: int) -> Tensor:
    """Compute a number for each row of digits, fixed by the digits and the seed, otherwise as by chance.

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
        number.mul_(1103515245).add_(12345).add_(digit, alpha=2654435761).bitwise_and_(2**31 - 1)
        number.bitwise_xor_(number >> 15)
    return number >> 3


def check_length(given: str, length: int) -> None:
    """Refuse sequences that no training here would come to an end with.

    Args:
        given: the setting that makes them so long, as typed.
        length: T.

    Raises:
        ValueError: one line with the setting, and the most positions that there may be.
    """
    if length > LONGEST:
        raise ValueError(
            f"{given}: makes sequences of {length} positions, and there may be {LONGEST}; give less"
        )


def check_amount(given: str, count: int) -> None:
    """Refuse settings for which a task would draw or compute numbers for minutes; see `check_length`."""
    if count > MOST_NUMBERS:
        raise ValueError(
            f"{given}: the task has to compute {count} numbers first, and there may be {MOST_NUMBERS}; "
            "give less"
        )


def check_split(split: str) -> None:
    """Refuse the name of a split that no task has.

    Raises:
        ValueError: neither "train" nor "held_out".
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: tasks have the splits {' and '.join(SPLITS)}")
