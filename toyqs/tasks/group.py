"""Group: the word problem of a finite group."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.difficulty import Depths, at_place
from toyqs.tasks.task import Feature, GoldSizes, check_length, check_split, counted_at, scatter
from toyqs.types import Batch

# name -> number of points that are permuted, and whether only by even permutations
GROUPS = {"s3": (3, False), "a4": (4, True), "s4": (4, False), "a5": (5, True), "s5": (5, False)}
ASKED = ("every", "end")
DRAWN_FROM = ("all", "swaps")
MOST_FEATURES = 32  # products of first elements that are features: those of 500 would fill the memory


@dataclass
class Group(Depths):
    """Multiply permutations as they come: the running product of group elements (a group's word problem).

        y_t = g_t ∘ … ∘ g_2 ∘ g_1,   y_t(i) = g_t(y_{t−1}(i)): the element read first acts first

    The group is named: S_n are all permutations of n points, A_n the even ones. S_3 (6 elements), A_4 (12)
    and S_4 (24) are solvable; A_5 (60) and S_5 (120) are not, so that their word problem is beyond what a
    model of constant depth can do for every length, unless TC⁰ = NC¹. An element is one token, read as well
    as answered: ids count the permutations in lexicographic order, 0 is the identity, V is the group's order.
    A sequence is T = positions elements. asked=every: every position counts and thinks. asked=end: only the
    last does, and the targets before it are a filler 0. drawn_from=swaps: only elements that exchange two
    points are read, 10 of S_5's and 3 of S_3's. They generate S_n, and one step is then soon learnt, so that
    the difficulty is the length.

    Worked examples, in S_3, whose element i takes 0, 1, 2 to

    >>> task = Group(group="s3", positions=3)
    >>> task.elements.tolist()
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]

    elements       inputs    products       targets
    021 102 210    1 2 5     021 120 102    1 3 2
    102 021 210    2 1 5     102 201 021    2 4 1

    >>> task.products(torch.tensor([[1, 2, 5], [2, 1, 5]])).tolist()
    [[1, 3, 2], [2, 4, 1]]

    The depth at a position is the number of elements up to it. With task.reach above 1 held-out sequences
    are reach · positions long. A curriculum counts only the first positions at first. With asked=end and
    either of the two, lengths are mixed, from 2 up to the largest depth, pads (id V − 1) follow, and V is one
    more than the order.

    >>> mixed = Group(group="s3", positions=3, asked="end", reach=2, curriculum=0.0)
    >>> mixed.depth(torch.tensor([[5, 3, 6, 6, 6, 6], [1, 2, 5, 3, 6, 6]])).tolist()
    [[0, 2, 0, 0, 0, 0], [0, 0, 0, 4, 0, 0]]

    Splits, each drawn uniformly and disjoint by construction: after each beginning of a sequence of up to
    `positions` elements one value of the last element, scattered as by chance, is held out. So a held-out
    sequence is never trained on as a whole; a short beginning of it, which asked=every asks about too, may
    be. A longer sequence begins with a held-out one of `positions` elements. Of mixed lengths all products of
    two elements are trained on, for they are so few that a model would learn which are missing.
    """

    name: ClassVar[str] = "group"
    summary: ClassVar[str] = "the running product of a finite group's elements: its word problem"
    more_groups: ClassVar[str] = "task.positions"
    num_steps: ClassVar[int] = 1000

    group: str = "s3"  # s3, a4, s4 (solvable), a5 or s5 (not)
    positions: int = 8  # elements per sequence in training, at most
    asked: str = "every"  # where the product so far is asked: every (position) or end
    drawn_from: str = "all"  # elements that are read: all, or swaps (of two points)
    reach: int = 2  # held-out sequences are so many times as long
    curriculum: float = 0.5  # share of training over which the largest depth rises; 0: off

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
        if GROUPS[self.group][1] and self.drawn_from == "swaps":
            raise ValueError(
                f"task.drawn_from=swaps: task.group={self.group} has only even permutations, and a swap is "
                "odd; give task.drawn_from=all"
            )
        self.check_depths()
        given = f"task.positions={self.positions}" + (
            f" and task.reach={self.reach}" if self.reach > 1 else ""
        )
        check_length(given, self.held_out_length(seq_len))

    @property
    def mixes_lengths(self) -> bool:
        """Tell whether sequences of one batch differ in length."""
        return self.asked == "end" and (self.reach > 1 or self.curriculum > 0)

    @property
    def order(self) -> int:
        """Return the number of the group's elements."""
        return len(_elements(self.group))

    @property
    def vocab_size(self) -> int:
        """Return V, the order of the group; one more where there are pads."""
        return self.order + self.mixes_lengths

    @property
    def least_depth(self) -> int:
        """Return 1, or of sequences that are asked about at their end 2."""
        return 2 if self.asked == "end" else 1

    @property
    def least_held_out(self) -> int:
        """Return 3 of mixed lengths, where there are such, else the smallest depth."""
        return min(3, self.deepest) if self.mixes_lengths else self.least_depth

    @property
    def trained_depth(self) -> int:
        """Return `positions`."""
        return self.positions

    def length(self, seq_len: int) -> int:
        """Return T = positions, whatever `seq_len`."""
        return self.positions

    def held_out_length(self, seq_len: int) -> int:
        """Return T of held-out sequences: reach · positions."""
        return self.deepest

    def thinking(self, seq_len: int) -> int:
        """Return the positions that are asked for."""
        return 1 if self.asked == "end" else self.positions

    def floor(self) -> float:
        """Return the Bayes NLL: 0, as the elements read determine their product."""
        return 0.0

    @cached_property
    def elements(self) -> Tensor:
        """List all elements in lexicographic order, each by its points' images, (order, points) long."""
        return torch.tensor(_elements(self.group))

    @cached_property
    def letters(self) -> Tensor:
        """List the ids that sequences are drawn from, (A,) long."""
        if self.drawn_from == "all":
            return torch.arange(self.order)
        moved = (self.elements != torch.arange(self.elements.shape[1])).sum(-1)
        return (moved == 2).nonzero().squeeze(-1)

    @cached_property
    def table(self) -> Tensor:
        """Compute the id of "first row's element, then column's", (order, order) long."""
        composed = self.elements[:, self.elements].transpose(0, 1)  # [a, b, i] = b(a(i))
        points = self.elements.shape[1]
        place = points ** torch.arange(points - 1, -1, -1)
        # read as a number, a permutation grows with its id
        return torch.searchsorted((self.elements * place).sum(-1), (composed * place).sum(-1))

    def products(self, inputs: Tensor) -> Tensor:
        """Compute the running products.

        Args:
            inputs: (…, T) long.

        Returns:
            (…, T) long, at each position the product of all elements up to it; pads change nothing.
        """
        inputs = inputs.masked_fill(inputs == self.order, 0)  # the identity
        products = [inputs[..., 0]]
        for element in inputs.unbind(-1)[1:]:
            products.append(self.table[products[-1], element])
        return torch.stack(products, dim=-1)

    def _asked(self, inputs: Tensor) -> Tensor:
        """Return which positions are asked for, (…, T) bool."""
        if self.asked == "every":
            return torch.ones_like(inputs, dtype=torch.bool)
        return at_place((inputs < self.order).sum(-1) - 1, inputs.shape[-1])

    def depth(self, inputs: Tensor) -> Tensor:
        """Return the number of elements up to each position that is asked for; see `Depths.depth`."""
        return torch.arange(1, inputs.shape[-1] + 1) * self._asked(inputs)

    def problem_length(self, inputs: Tensor) -> Tensor:
        """Return the number of elements up to each position that is asked for."""
        return self.depth(inputs)

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return the products before a position's own, and its own, the answer, where it is asked for.

        "product of j" is that of the first j elements, at the positions after the j-th; j is 32 at most.
        """
        products, asked = self.products(batch.inputs), self._asked(batch.inputs)
        places = torch.arange(products.shape[-1])
        found = {
            f"product of {j}": products[..., j - 1 : j].where(asked & (places >= j), -1)
            for j in range(1, min(products.shape[-1], MOST_FEATURES + 1))
        }
        found["answer"] = products.where(asked, -1)
        names = self.symbols(range(self.order))
        return {name: Feature(values, self.order, names) for name, values in found.items()}

    def gold(self, inputs: Tensor) -> Tensor:
        """Return the products of the first elements, one, two, …, (S, B, T, positions); see `Task.gold`."""
        return self.as_deep(self.products(inputs)[..., : self.positions].unsqueeze(-2), inputs)

    def gold_sizes(self) -> GoldSizes:
        """Return as many symbols as elements; as many steps as elements are read."""
        one_length = self.asked == "end" and not self.mixes_lengths
        return GoldSizes(self.order, self.positions if one_length else self.least_depth, self.positions)

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw sequences uniformly from a split; see `Task.sample`."""
        check_split(split)
        longest = self.length(seq_len) if split == "train" else self.held_out_length(seq_len)
        count = len(self.letters)
        inputs = torch.randint(count, (batch_size, longest), generator=generator)
        length = torch.full((batch_size,), longest)
        if self.mixes_lengths:
            length = self.draw_depths(generator, (batch_size,), split, progress)
        last = length.clamp(max=self.positions).unsqueeze(1) - 1
        places = torch.arange(self.positions)
        # a 0 takes the last place, where a digit would be mixed in less than the others
        beginning = inputs[:, : self.positions].where(places < last, 0)
        chosen = scatter(beginning.unbind(1), 0) % count
        if split == "train":
            chosen = (chosen + torch.randint(1, count, (batch_size,), generator=generator)) % count
            free = length < self.least_held_out
            chosen = torch.where(free, inputs.gather(1, last).squeeze(1), chosen)
        inputs = self.letters[inputs.scatter(1, last, chosen.unsqueeze(1))]
        if self.mixes_lengths:
            inputs = inputs.where(torch.arange(longest) < length.unsqueeze(1), self.order)
        inputs = inputs.unsqueeze(0)
        batch = counted_at(self._asked(inputs), inputs, self.products(inputs))
        if split == "held_out" or self.asked == "end":
            return batch
        return batch._replace(weights=batch.weights * (self.depth(inputs) <= self.largest_depth(progress)))

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids: the images of 0, 1, 2, …, such as "021"; "-" for a pad."""
        elements = _elements(self.group)
        return ["".join(map(str, elements[i])) if i < len(elements) else "-" for i in ids]


@dataclass
class S5(Group):
    """Multiply permutations as `Group` does, by the name and the defaults of earlier runs.

    >>> S5().order, S5(group="s3", asked="end").vocab_size, S5().deepest
    (120, 6, 4)
    """

    name: ClassVar[str] = "s5"
    summary: ClassVar[str] = "the running product of permutations: group, by the defaults of earlier runs"

    group: str = "s5"
    positions: int = 4
    reach: int = 1
    curriculum: float = 0.0


@functools.cache
def _elements(group: str) -> list[tuple[int, ...]]:
    """List a group's permutations in lexicographic order."""
    points, even = GROUPS[group]
    every = itertools.permutations(range(points))
    return [x for x in every if not even or _inversions(x) % 2 == 0]


def _inversions(permutation: tuple[int, ...]) -> int:
    return sum(a > b for a, b in itertools.combinations(permutation, 2))
