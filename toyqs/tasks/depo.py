"""Depo: hops in a permutation that is given in the context."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.difficulty import HintedDepths
from toyqs.tasks.task import Feature, GoldSizes, check_length, check_split, counted_at, scatter
from toyqs.types import Batch


@dataclass
class Depo(HintedDepths):
    """Follow a permutation for k hops: it stands in the context, queries come last.

        y = f^k(q) = f(… f(f(q))),   1 ≤ k ≤ task.k

    f is one cycle through all n symbols, drawn anew for each sequence: its n pairs x f(x), in an order drawn
    at random, are the first 2n tokens. Then follow `queries`, each k ticks and a symbol q. So k is written in
    unary, and every model can read one that it never saw; and q comes last, so that its hops cannot be made
    while the sequence is read. Ids 0…n−1 are the symbols, n is a tick, n + 1 a pad: V = n + 2. Each q counts
    and thinks; queries follow one another, without their answers. Pads fill a sequence up to
    T = 2n + queries · (task.k + 1), of held-out ones 2n + queries · (reach · task.k + 1).

    Worked example, whose pairs say 1 → 3 → 0 → 2 → 1: one hop from 3 leads to 0, two from 1 as well.

    >>> task = Depo(n=4, k=3, queries=2, reach=1)
    >>> row = torch.tensor([1, 3, 0, 2, 3, 0, 2, 1, 4, 3, 4, 4, 1, 5, 5, 5])
    >>> " ".join(task.symbols(row.tolist()))
    '1 3 0 2 3 0 2 1 tick 3 tick tick 1 - - -'
    >>> task.depth(row).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0]
    >>> task.answers(row).tolist()
    [0, 0]

    Splits: after each beginning of a sequence one value of the last query's symbol, scattered as by chance,
    is held out.

    After Depo of "Physics of Language Models: Part 4" (2512.17351), which differs: there n is drawn from 3 to
    N with weights 1 / (n + √N); symbols are words of one or more tokens, drawn anew for each sequence; k is
    one token, which tells nothing where that k was never seen; and a query's answer stands behind it.
    """

    name: ClassVar[str] = "depo"
    summary: ClassVar[str] = "k hops in a permutation that the context gives, queries last"
    more_groups: ClassVar[str] = "task.n"
    num_steps: ClassVar[int] = 1000

    n: int = 8  # number of symbols
    k: int = 3  # the most hops in training
    queries: int = 2  # per sequence
    reach: int = 2  # held-out queries ask for up to so many times k hops
    curriculum: float = 0.5  # share of training over which the most hops rise from 1; 0: off

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        for key, least in (("n", 3), ("k", 1), ("queries", 1)):
            value = getattr(self, key)
            if value < least:
                raise ValueError(f"task.{key}={value}: is too small; give task.{key}={least} or more")
        self.check_depths()
        if self.deepest >= self.n:
            raise ValueError(
                f"task.k={self.k} and task.reach={self.reach}: {self.deepest} hops go round a cycle of "
                f"task.n={self.n} symbols; give a larger task.n, or less of the others"
            )
        given = f"task.n={self.n}, task.k={self.k} and task.queries={self.queries}"
        check_length(given, self.held_out_length(seq_len))

    @property
    def vocab_size(self) -> int:
        """Return V = n + 2."""
        return self.n + 2

    @property
    def trained_depth(self) -> int:
        """Return task.k."""
        return self.k

    def length(self, seq_len: int) -> int:
        """Return T, whatever `seq_len`."""
        return 2 * self.n + self.queries * (self.k + 1)

    def held_out_length(self, seq_len: int) -> int:
        """Return T of held-out sequences."""
        return 2 * self.n + self.queries * (self.deepest + 1)

    def thinking(self, seq_len: int) -> int:
        """Return the number of queries."""
        return self.queries

    def floor(self) -> float:
        """Return the Bayes NLL: 0, as the context determines every answer."""
        return 0.0

    def _queries(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the queries' symbols stand, and how many hops each asks for, (…, queries) long."""
        asked = inputs < self.n
        asked = asked & (torch.arange(inputs.shape[-1]) >= 2 * self.n)
        places = asked.nonzero()[:, -1].view(*inputs.shape[:-1], self.queries)
        first = torch.full_like(places[..., :1], 2 * self.n - 1)
        return places, places.diff(dim=-1, prepend=first) - 1

    def _hops(self, inputs: Tensor, most: int) -> list[Tensor]:
        """Return each query's symbol, and where 1 to `most` hops lead from it, (…, queries) long each."""
        pairs = inputs[..., : 2 * self.n]
        after = torch.zeros_like(pairs[..., ::2]).scatter(-1, pairs[..., ::2], pairs[..., 1::2])
        hops = [inputs.gather(-1, self._queries(inputs)[0])]
        for _ in range(most):
            hops.append(after.gather(-1, hops[-1]))
        return hops

    def answers(self, inputs: Tensor) -> Tensor:
        """Compute the true answers: inputs (…, T) long -> (…, queries) long."""
        k = self._queries(inputs)[1]
        hops = torch.stack(self._hops(inputs, int(k.max())), -1)
        return hops.gather(-1, k.unsqueeze(-1)).squeeze(-1)

    def depth(self, inputs: Tensor) -> Tensor:
        """Return the hops that each query asks for, 0 elsewhere; see `Depths.depth`."""
        return torch.zeros_like(inputs).scatter(-1, *self._queries(inputs))

    def problem_length(self, inputs: Tensor) -> Tensor:
        """Return the tokens of the pairs, and of a query's ticks and symbol; see `Depths.problem_length`."""
        return super().problem_length(inputs) + 2 * self.n * (self.depth(inputs) > 0)

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return k, where one hop leads, two, … up to k − 1, and the answer, at the queries' symbols."""
        places, k = self._queries(batch.inputs)
        hops = self._hops(batch.inputs, self.deepest - 1)
        found = {f"hop {j}": hops[j].where(j < k, -1) for j in range(1, self.deepest)}
        found["answer"] = self.answers(batch.inputs)
        nowhere = torch.full_like(batch.inputs, -1)
        names = [f"k{j}" for j in range(1, self.deepest + 1)]
        return {"k": Feature(nowhere.scatter(-1, places, k - 1), self.deepest, names)} | {
            name: Feature(nowhere.scatter(-1, places, values), self.n) for name, values in found.items()
        }

    def gold(self, inputs: Tensor) -> Tensor:
        """Return where one hop leads, two, … k, (S, B, T, task.k), at the queries; see `Task.gold`."""
        steps = torch.stack(self._hops(inputs, self.k)[1:], -1)
        return self.placed(steps, self._queries(inputs)[0], inputs)

    def gold_sizes(self) -> GoldSizes:
        """Return n symbols, 1 to task.k steps."""
        return GoldSizes(self.n, 1, self.k)

    def hint(self, batch: Batch, split: str) -> Tensor:
        """Return where one hop leads, two, … up to k − 1, of each query; pads first, and where k is less."""
        steps = super().hint(batch, split)
        return torch.cat([torch.full_like(steps[..., :1], self.n + 1), steps], -1)

    def hint_length(self, seq_len: int) -> int:
        """Return queries · (task.k − 1), and one for the pad that tells a hint from a sequence's pairs."""
        return super().hint_length(seq_len) + 1 if self.k > 1 else 0

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw sequences of a split; see `Task.sample`."""
        check_split(split)
        # a random order is a uniform cycle: each symbol's successor stands behind it
        cycle = torch.rand(batch_size, self.n, generator=generator, dtype=torch.float64).argsort(-1)
        pairs = torch.stack([cycle, cycle.roll(-1, 1)], -1)
        shuffle = torch.rand(batch_size, self.n, generator=generator, dtype=torch.float64).argsort(-1)
        pairs = pairs.gather(1, shuffle.unsqueeze(-1).expand(-1, -1, 2)).flatten(1)
        k = self.draw_depths(generator, (batch_size, self.queries), split, progress)
        query = torch.randint(self.n, (batch_size, self.queries), generator=generator)
        last = scatter([*pairs.unbind(1), *k.unbind(1), *query[:, :-1].unbind(1)], 0) % self.n
        if split == "train":
            last = (last + torch.randint(1, self.n, (batch_size,), generator=generator)) % self.n
        query[:, -1] = last
        length = self.length(seq_len) if split == "train" else self.held_out_length(seq_len)
        places = 2 * self.n - 1 + (k + 1).cumsum(-1)
        behind = torch.arange(length) > places[:, -1:]
        inputs = torch.where(behind, self.n + 1, torch.full((batch_size, length), self.n))
        inputs = inputs.scatter(1, places, query)
        inputs[:, : 2 * self.n] = pairs
        inputs, places = inputs.unsqueeze(0), places.unsqueeze(0)
        asked = torch.zeros_like(inputs, dtype=torch.bool).scatter(-1, places, True)
        targets = torch.zeros_like(inputs).scatter(-1, places, self.answers(inputs))
        return counted_at(asked, inputs, targets)

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids: "3" for a symbol, tick, and "-" for a pad."""
        more = ["tick", "-"]
        return [str(i) if i < self.n else more[i - self.n] for i in ids]
