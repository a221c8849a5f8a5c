"""S5: the word problem of a permutation group."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.task import Feature, Task, check_length, check_split, counted_from, scatter
from toyqs.types import Batch

GROUPS = {"s3": 3, "s5": 5}  # name -> number of points that are permuted
ASKED = ("every", "end")
DRAWN_FROM = ("all", "swaps")


@dataclass
class S5(Task):
    """Multiply permutations as they come: the running product of group elements.

        y_t = g_t ∘ … ∘ g_2 ∘ g_1,   y_t(i) = g_t(y_{t−1}(i)): the element read first acts first

    The group is S_5, with 120 elements, or S_3, with 6. An element is one token, read as well as answered:
    ids count the permutations in lexicographic order, 0 is the identity, V is the group's order. A sequence
    is T = positions elements. asked=every: every position counts and thinks. asked=end: only the last does,
    and the targets before it are a filler 0. drawn_from=swaps: only elements that exchange two points are
    read, 10 of S_5's and 3 of S_3's. They generate the group, and one step is then soon learnt, so that the
    difficulty is the length.

    Worked examples, in S_3, whose element i takes 0, 1, 2 to

    >>> task = S5(group="s3", positions=3)
    >>> task.elements.tolist()
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]

    elements       inputs    products       targets
    021 102 210    1 2 5     021 120 102    1 3 2
    102 021 210    2 1 5     102 201 021    2 4 1

    >>> task.products(torch.tensor([[1, 2, 5], [2, 1, 5]])).tolist()
    [[1, 3, 2], [2, 4, 1]]

    Splits, each drawn uniformly and disjoint by construction: after each beginning of a sequence one value
    of the last element, scattered as by chance, is held out. So a held-out sequence is never trained on as
    a whole; a short beginning of it, which asked=every asks about too, may be.
    """

    name: ClassVar[str] = "s5"
    summary: ClassVar[str] = "the running product of permutations"
    more_groups: ClassVar[str] = "task.positions"
    num_steps: ClassVar[int] = 1000

    group: str = "s5"  # s5 (120 elements) or s3 (6)
    positions: int = 4  # elements per sequence
    asked: str = "every"  # where the product so far is asked: every (position) or end
    drawn_from: str = "all"  # elements that are read: all, or swaps (of two points)

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        choices_of = {"group": tuple(GROUPS), "asked": ASKED, "drawn_from": DRAWN_FROM}
        for key, choices in choices_of.items():
            value = getattr(self, key)
            if value not in choices:
                raise ValueError(f"task.{key}={value}: is not a choice; give one of {', '.join(choices)}")
        if self.positions < 2:
            raise ValueError(
                f"task.positions={self.positions}: one element is no product; give task.positions=2 or more"
            )
        check_length(f"task.positions={self.positions}", self.positions)

    @property
    def vocab_size(self) -> int:
        """Return V, the order of the group."""
        return math.factorial(GROUPS[self.group])

    def length(self, seq_len: int) -> int:
        """Return T = positions, whatever `seq_len`."""
        return self.positions

    def thinking(self, seq_len: int) -> int:
        """Return the positions that are asked for."""
        return 1 if self.asked == "end" else self.positions

    def floor(self) -> float:
        """Return the Bayes NLL: 0, as the elements read determine their product."""
        return 0.0

    @cached_property
    def elements(self) -> Tensor:
        """List all elements in lexicographic order, each by its points' images, (V, points) long."""
        return torch.tensor(list(itertools.permutations(range(GROUPS[self.group]))))

    @cached_property
    def letters(self) -> Tensor:
        """List the ids that sequences are drawn from, (A,) long."""
        if self.drawn_from == "all":
            return torch.arange(self.vocab_size)
        moved = (self.elements != torch.arange(GROUPS[self.group])).sum(-1)
        return (moved == 2).nonzero().squeeze(-1)

    @cached_property
    def table(self) -> Tensor:
        """Compute the id of "first row's element, then column's", (V, V) long."""
        composed = self.elements[:, self.elements].transpose(0, 1)  # [a, b, i] = b(a(i))
        place = GROUPS[self.group] ** torch.arange(GROUPS[self.group] - 1, -1, -1)
        # read as a number, a permutation grows with its id
        return torch.searchsorted((self.elements * place).sum(-1), (composed * place).sum(-1))

    def products(self, inputs: Tensor) -> Tensor:
        """Compute the running products.

        Args:
            inputs: (…, T) long.

        Returns:
            (…, T) long, at each position the product of all elements up to it.
        """
        products = [inputs[..., 0]]
        for element in inputs.unbind(-1)[1:]:
            products.append(self.table[products[-1], element])
        return torch.stack(products, dim=-1)

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return the products before a position's own, and its own, the answer, where it is asked for.

        "product of j" is that of the first j elements, at the positions after the j-th.
        """
        products = self.products(batch.inputs)
        asked = torch.arange(self.positions) >= (0 if self.asked == "every" else self.positions - 1)
        found = {
            f"product of {j}": products[..., j - 1 : j].where(asked & (torch.arange(self.positions) >= j), -1)
            for j in range(1, self.positions)
        }
        found["answer"] = products.where(asked, -1)
        names = self.symbols(range(self.vocab_size))
        return {name: Feature(values, self.vocab_size, names) for name, values in found.items()}

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw sequences uniformly from a split; see `Task.sample`."""
        check_split(split)
        letters, count = self.letters, len(self.letters)
        inputs = torch.randint(count, (1, batch_size, self.positions), generator=generator)
        # a 0 takes the last place, where a digit would be mixed in less than the others
        beginning = torch.cat([inputs[0, :, :-1], torch.zeros(batch_size, 1, dtype=torch.long)], dim=1)
        last = scatter(beginning.unbind(1), 0) % count
        if split == "train":
            last = (last + torch.randint(1, count, (batch_size,), generator=generator)) % count
        inputs[0, :, -1] = last
        inputs = letters[inputs]
        return counted_from(0 if self.asked == "every" else -1, inputs, self.products(inputs))

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids: the images of 0, 1, 2, …, such as "021"."""
        return ["".join(map(str, self.elements[i].tolist())) for i in ids]
