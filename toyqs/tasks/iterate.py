"""Iterate: a fixed function applied k times, k given last."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.difficulty import Depths, at_place, joined
from toyqs.tasks.task import Feature, GoldSizes, check_amount, check_length, check_split, counted_at
from toyqs.types import Batch

KINDS = ("cycle", "map")
MAX_DRAWS = 100  # of a map, until one fits


@dataclass
class Iterate(Depths):
    """Apply a fixed function k times to a symbol, k given last.

        y = f^k(x) = f(… f(f(x))),   1 ≤ k ≤ task.k

    f is fixed by the task's seed: one cycle through all n symbols (kind=cycle), or any function, which may
    merge symbols (kind=map). A sequence is x, then k: T = 2. Ids 0…n−1 are the symbols and n…n+task.k−1 the
    values of k from 1: V = n + task.k. Only the last position counts and thinks. The model knows f from
    training alone; k comes last, so that f is not iterated while x is read.

    Worked examples, of a task whose function is

    >>> task = Iterate(n=6, k=3, seed=1)
    >>> task.powers[1].tolist()
    [1, 4, 5, 2, 3, 0]

    x k    inputs    targets (- does not count)    split
    2 1    2 6       - 5                           train
    2 2    2 7       - 0                           train
    0 2    0 7       - 4                           held_out
    5 3    5 8       - 4                           held_out

    >>> task.answers(torch.tensor([[2, 6], [2, 7], [0, 7], [5, 8]])).tolist()
    [5, 0, 4, 4]
    >>> task.pairs["held_out"].tolist()
    [[0, 2], [5, 2], [1, 3], [5, 3]]

    With task.reach above 1 held-out pairs go up to k = reach · task.k, and every model must be able to read a
    k that it never saw: k is then written in unary, before x, so that f still cannot be iterated while k is
    read. A sequence is k ticks (id n), x, and pads (id n + 1) up to T = task.k + 1, of held-out ones
    reach · task.k + 1; V = n + 2. x is the position that counts and thinks.

    >>> deeper = Iterate(n=8, k=2, seed=1, reach=2)
    >>> batch = deeper.sample(torch.Generator().manual_seed(0), 20, 0, "held_out")
    >>> [" ".join(deeper.symbols(row)) for row in batch.inputs[0, :3].tolist()]
    ['tick tick tick 1 -', 'tick tick tick 2 -', 'tick tick tick tick 2']
    >>> deeper.depth(batch.inputs)[0, :3].tolist()
    [[0, 0, 0, 3, 0], [0, 0, 0, 3, 0], [0, 0, 0, 0, 4]]

    Splits: every (x, 1) is trained on. At each k ≥ 2 a share of the answers is held out, and with an answer
    every pair that leads to it, provided that it is new to each of their x: not x itself, nor where another
    k ≤ task.k leads from x. So none can be read off a training pair, neither one of the same x (f loops) nor
    one of the same k (f merges): it has to be composed. What remains is elimination: the answers that k
    never has in training are likely held out. They are at least 2 for each k. Beyond task.k every pair is
    held out whose answer is new to its x, at least 2 for each k.

    Training pairs are drawn uniformly from those whose k is not yet too large (`largest_depth`), held-out
    pairs equally often, give or take one, as many as are asked for: thoughts are sampled anew each time. A
    model that learns the training pairs by heart is confidently wrong on the others: compare accuracies, as
    the NLL then tells how confidently.
    """

    name: ClassVar[str] = "iterate"
    summary: ClassVar[str] = "a fixed function applied k times, to pairs of symbol and k held out"
    more_groups: ClassVar[str] = "task.n or task.k"
    num_steps: ClassVar[int] = 500

    n: int = 16  # number of symbols
    k: int = 4  # the largest number of iterations
    kind: str = "cycle"  # of function: cycle (through all symbols) or map (any)
    held_out: float = 0.4  # share of each k's answers, from k = 2 and where possible, that is held out
    curriculum: float = 0.5  # share of training over which the largest k rises from 1; 0: off
    seed: int = 0  # fixes the function and what is held out
    reach: int = 1  # the largest k that is asked, in multiples of task.k; above 1 k is written in unary

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        if self.kind not in KINDS:
            raise ValueError(f"task.kind={self.kind}: is not a choice; give one of {', '.join(KINDS)}")
        if self.n < 3:
            raise ValueError(f"task.n={self.n}: leaves nothing to hold out; give task.n=3 or more")
        if not 2 <= self.k < self.n:
            raise ValueError(
                f"task.k={self.k}: with fewer than 2 iterations nothing is held out, and n or more lead "
                f"back to where others led; give task.k=2 to {self.n - 1}, or a larger task.n"
            )
        self.check_depths()
        if self.deepest >= self.n:
            raise ValueError(
                f"task.reach={self.reach}: with task.k={self.k} it asks for {self.deepest} iterations, and "
                f"task.n={self.n} or more lead back to where others led; give a larger task.n or a smaller "
                "task.reach"
            )
        check_amount(f"task.n={self.n} and task.k={self.k}", self.n * self.deepest)
        check_length(f"task.k={self.k} and task.reach={self.reach}", self.held_out_length(seq_len))
        if not 0 < self.held_out < 1:
            raise ValueError(
                f"task.held_out={self.held_out}: is a share of the answers; give more than 0 and less than 1"
            )
        _ = self._drawn  # raises where no function fits

    @property
    def vocab_size(self) -> int:
        """Return V: n + task.k, or in unary n + 2."""
        return self.n + (2 if self.in_unary else self.k)

    @property
    def in_unary(self) -> bool:
        """Tell whether k is written in ticks before x, and not as one token after it."""
        return self.reach > 1

    @property
    def trained_depth(self) -> int:
        """Return task.k."""
        return self.k

    def length(self, seq_len: int) -> int:
        """Return T, whatever `seq_len`: 2, or in unary task.k + 1."""
        return self.k + 1 if self.in_unary else 2

    def held_out_length(self, seq_len: int) -> int:
        """Return T of held-out sequences: 2, or in unary reach · task.k + 1."""
        return self.deepest + 1 if self.in_unary else 2

    def thinking(self, seq_len: int) -> int:
        """Return 1: the last position."""
        return 1

    def floor(self) -> float:
        """Return the Bayes NLL: 0, as x and k determine the answer."""
        return 0.0

    @property
    def powers(self) -> Tensor:
        """Return the iterates of f, (reach · task.k + 1, n) long: row j is f^j, row 0 the identity."""
        return self._drawn[0]

    @cached_property
    def _drawn(self) -> tuple[Tensor, dict[int, set[int]]]:
        """Draw the iterates of the function, and the held-out answers of each k from 2.

        Many maps loop or merge so soon that little can be held out: maps are drawn until one allows enough.
        """
        source = random.Random(f"function/{self.seed}")
        for _ in range(MAX_DRAWS if self.kind == "map" else 1):
            powers = self._iterates(source)
            held_out = self._hold_out(powers[: self.k + 1], source)
            if held_out and all(len(_new(powers, k)) >= 2 for k in range(self.k + 1, self.deepest + 1)):
                return powers, held_out
        raise ValueError(
            f"task.held_out={self.held_out}: each k from 2 needs 2 answers that are held out and 1 that is "
            f"not, which a {self.kind} with task.n={self.n} and task.k={self.k} does not give; give another "
            "share, a larger task.n or a smaller task.k"
        )

    def _iterates(self, source: random.Random) -> Tensor:
        """Draw a function and compute its iterates, as in `powers`."""
        function = torch.empty(self.n, dtype=torch.long)
        if self.kind == "cycle":
            order = torch.tensor(source.sample(range(self.n), self.n))
            function[order] = order.roll(-1)
        else:
            function[:] = torch.tensor([source.randrange(self.n) for _ in range(self.n)])
        rows = [torch.arange(self.n)]
        for _ in range(self.deepest):
            rows.append(function[rows[-1]])
        return torch.stack(rows)

    def _hold_out(self, powers: Tensor, source: random.Random) -> dict[int, set[int]]:
        """Draw the held-out answers of each k from 2; empty where some k has too few."""
        held_out = {}
        for k in range(self.k, 1, -1):  # the largest first: it is the likeliest to have too few
            others = torch.cat([powers[:k], powers[k + 1 :]])
            known = powers[k, (others == powers[k]).any(0)]
            answers = set(powers[k].tolist())
            new = sorted(answers - set(known.tolist()))
            held_out[k] = set(source.sample(new, round(self.held_out * len(new))))
            if not 2 <= len(held_out[k]) < len(answers):
                return {}
        return held_out

    @cached_property
    def pairs(self) -> dict[str, Tensor]:
        """List the pairs of each split, (number of pairs, 2) long, each x and k, in the order of k."""
        powers, held_out = self._drawn
        pairs: dict[str, list[list[int]]] = {"train": [], "held_out": []}
        for k in range(1, self.k + 1):
            for x, y in enumerate(powers[k].tolist()):
                pairs["held_out" if y in held_out.get(k, ()) else "train"].append([x, k])
        for k in range(self.k + 1, self.deepest + 1):
            pairs["held_out"] += [[x, k] for x in _new(powers, k)]
        return {split: torch.tensor(each) for split, each in pairs.items()}

    def _read(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x and k of sequences, (…) long each, and which position asks, (…, T) bool."""
        if self.in_unary:
            k = (inputs == self.n).sum(-1)
            return inputs.gather(-1, k.unsqueeze(-1)).squeeze(-1), k, at_place(k, inputs.shape[-1])
        k = inputs[..., 1] - self.n + 1
        return inputs[..., 0], k, at_place(torch.ones_like(k), 2)

    def answers(self, inputs: Tensor) -> Tensor:
        """Compute the true answers.

        Args:
            inputs: (…, T) long.

        Returns:
            (…) long.
        """
        x, k, _ = self._read(inputs)
        return self.powers[k, x]

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return k, the iterates f(x), f^2(x), … below k, and the answer f^k(x), where it is asked for."""
        x, k, asked = self._read(batch.inputs)
        found = {"k": Feature(k - 1, self.deepest, [f"k{j}" for j in range(1, self.deepest + 1)])}
        for j in range(1, self.deepest):
            name = "f(x)" if j == 1 else f"f^{j}(x)"
            found[name] = Feature(torch.where(j < k, self.powers[j][x], -1), self.n)
        found["answer"] = Feature(self.answers(batch.inputs), self.n)
        return {name: y._replace(values=y.values.unsqueeze(-1).where(asked, -1)) for name, y in found.items()}

    def depth(self, inputs: Tensor) -> Tensor:
        """Return k where x and k have been read, 0 elsewhere; see `Depths.depth`."""
        _, k, asked = self._read(inputs)
        return k.unsqueeze(-1) * asked

    def problem_length(self, inputs: Tensor) -> Tensor:
        """Return 2 where x and k have been read, or in unary k + 1; see `Depths.problem_length`."""
        return super().problem_length(inputs) if self.in_unary else 2 * (self.depth(inputs) > 0).long()

    def gold(self, inputs: Tensor) -> Tensor:
        """Return the iterates f(x), …, f^k(x) where asked, (S, B, T, task.k); see `Task.gold`."""
        x, _, _ = self._read(inputs)
        steps = self.powers[1 : self.k + 1, x].movedim(0, -1)
        return self.as_deep(steps.unsqueeze(-2), inputs)

    def gold_sizes(self) -> GoldSizes:
        """Return n symbols, 1 to task.k steps."""
        return GoldSizes(self.n, 1, self.k)

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw pairs of a split; see `Task.sample`. The curriculum is of the training split alone."""
        check_split(split)
        pairs = self.pairs[split]
        if split == "train":
            count = int((pairs[:, 1] <= self.largest_depth(progress)).sum())
            index = torch.randint(count, (batch_size,), generator=generator)
        else:
            order = torch.randperm(max(batch_size, len(pairs)), generator=generator)
            index = order[:batch_size] % len(pairs)
        x, k = pairs[index].split(1, 1)
        if self.in_unary:
            ticks = self.length(seq_len) if split == "train" else self.held_out_length(seq_len)
            inputs = joined(torch.full((batch_size, ticks - 1), self.n), k.squeeze(1), x, self.n + 1)
        else:
            inputs = torch.cat([x, k + self.n - 1], 1)
        inputs = inputs.unsqueeze(0)
        asked = self._read(inputs)[2]
        return counted_at(asked, inputs, self.answers(inputs).unsqueeze(-1) * asked)

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids: "3" for a symbol, "k2" for two iterations; or tick and pad."""
        more = ["tick", "-"] if self.in_unary else [f"k{k}" for k in range(1, self.k + 1)]
        return [str(i) if i < self.n else more[i - self.n] for i in ids]


def _new(powers: Tensor, k: int) -> list[int]:
    """List the x to which f^k leads for the first time: not to x, nor where fewer iterations lead."""
    return (powers[:k] != powers[k]).all(0).nonzero().squeeze(1).tolist()
