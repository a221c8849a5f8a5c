"""Iterate: a fixed function applied k times, k given last."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.task import Feature, GoldSizes, Task, check_amount, check_split, counted_from
from toyqs.types import Batch

KINDS = ("cycle", "map")
MAX_DRAWS = 100  # of a map, until one fits


@dataclass
class Iterate(Task):
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

    Splits: every (x, 1) is trained on. At each k ≥ 2 a share of the answers is held out, and with an answer
    every pair that leads to it, provided that it is new to each of their x: not x itself, nor where another
    k ≤ task.k leads from x. So none can be read off a training pair, neither one of the same x (f loops) nor
    one of the same k (f merges): it has to be composed. What remains is elimination: the answers that k
    never has in training are likely held out. They are at least 2 for each k.

    Training pairs are drawn uniformly from those whose k is not yet too large (`largest_k`), held-out pairs
    equally often, give or take one, as many as are asked for: thoughts are sampled anew each time. A model
    that learns the training pairs by heart is confidently wrong on the others: compare accuracies, as the
    NLL then tells how confidently.
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
        check_amount(f"task.n={self.n} and task.k={self.k}", self.n * self.k)
        if not 0 < self.held_out < 1:
            raise ValueError(
                f"task.held_out={self.held_out}: is a share of the answers; give more than 0 and less than 1"
            )
        if not 0 <= self.curriculum <= 1:
            raise ValueError(
                f"task.curriculum={self.curriculum}: is a share of the training; give 0 to 1 (0: off)"
            )
        _ = self._drawn  # raises where no function fits

    @property
    def vocab_size(self) -> int:
        """Return V = n + task.k."""
        return self.n + self.k

    def length(self, seq_len: int) -> int:
        """Return T = 2, whatever `seq_len`."""
        return 2

    def thinking(self, seq_len: int) -> int:
        """Return 1: the last position."""
        return 1

    def floor(self) -> float:
        """Return the Bayes NLL: 0, as x and k determine the answer."""
        return 0.0

    @property
    def powers(self) -> Tensor:
        """Return the iterates of f, (task.k + 1, n) long: row j is f^j, row 0 the identity."""
        return self._drawn[0]

    @cached_property
    def _drawn(self) -> tuple[Tensor, dict[int, set[int]]]:
        """Draw the iterates of the function, and the held-out answers of each k from 2.

        Many maps loop or merge so soon that little can be held out: maps are drawn until one allows enough.
        """
        source = random.Random(f"function/{self.seed}")
        for _ in range(MAX_DRAWS if self.kind == "map" else 1):
            powers = self._iterates(source)
            held_out = self._hold_out(powers, source)
            if held_out:
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
        for _ in range(self.k):
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
        return {split: torch.tensor(each) for split, each in pairs.items()}

    def largest_k(self, progress: float) -> int:
        """Compute the largest k that is trained on: from 1 to task.k, in equal stages of the curriculum.

        Args:
            progress: share of the training that is done, 0 to 1.
        """
        if progress >= self.curriculum:
            return self.k
        return 1 + int((self.k - 1) * progress / self.curriculum)

    def answers(self, inputs: Tensor) -> Tensor:
        """Compute the true answers.

        Args:
            inputs: (…, 2) long, x and the token of k.

        Returns:
            (…) long.
        """
        return self.powers[inputs[..., 1] - self.n + 1, inputs[..., 0]]

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return k, the iterates f(x), f^2(x), … below k, and the answer f^k(x), at the last position."""
        x, k = batch.inputs[..., :1], batch.inputs[..., 1:] - self.n + 1
        found = {"k": Feature(k - 1, self.k, self.symbols(range(self.n, self.n + self.k)))}
        for j in range(1, self.k):
            name = "f(x)" if j == 1 else f"f^{j}(x)"
            found[name] = Feature(torch.where(j < k, self.powers[j][x], -1), self.n)
        found["answer"] = Feature(self.answers(batch.inputs).unsqueeze(-1), self.n)
        before = torch.full_like(x, -1)
        return {name: y._replace(values=torch.cat([before, y.values], -1)) for name, y in found.items()}

    def thought_length(self, inputs: Tensor) -> Tensor:
        """Return one symbol per application of the function: k where it has been read, 0 before.

        Args:
            inputs: (S, B, 2) long, x and the token of k.

        Returns:
            (S, B, 2) long.
        """
        return (inputs - self.n + 1).clamp(min=0)

    def gold(self, inputs: Tensor) -> Tensor:
        """Return the iterates f(x), …, f^k(x) where k has been read, (S, B, 2, task.k); see `Task.gold`."""
        steps = self.powers[1:, inputs[..., 0]].movedim(0, -1)
        beyond = torch.arange(self.k) >= self.thought_length(inputs).unsqueeze(-1)
        return steps.unsqueeze(-2).masked_fill(beyond, -1)

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
            count = int((pairs[:, 1] <= self.largest_k(progress)).sum())
            index = torch.randint(count, (batch_size,), generator=generator)
        else:
            index = torch.randperm(batch_size, generator=generator) % len(pairs)
        inputs = (pairs[index] + torch.tensor([0, self.n - 1])).unsqueeze(0)
        targets = torch.zeros_like(inputs)
        targets[..., 1] = self.answers(inputs)
        return counted_from(1, inputs, targets)

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids: "3" for a symbol, "k2" for two iterations."""
        return [str(i) if i < self.n else f"k{i - self.n + 1}" for i in ids]
