"""RevProg: a program of permutations, then the symbols that it is applied to."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.task import (
    Feature,
    GoldSizes,
    Task,
    check_amount,
    check_length,
    check_split,
    counted_from,
    scatter,
)
from toyqs.types import Batch

MAX_PROGRAMS = 10**6


@dataclass
class RevProg(Task):
    """Apply a program of k operators to each of the query symbols that follow it.

        y = op_k(… op_2(op_1(x)))

    Operators are fixed permutations of Z_p. A sequence is the k operators, then the queries: T = k + queries.
    The argument x comes last, so no symbol can be carried through the program token by token. Ids 0…p−1 are
    the symbols, p…p+m−1 the operators: V = p + m. Only query positions count and think (weights 1, think
    True); at operator positions weights are 0, think False and the targets a filler 0.

    Worked examples, of a task whose operators are

    >>> task = RevProg(p=4, m=2, k=3, queries=2)
    >>> task.permutations.tolist()
    [[3, 1, 2, 0], [0, 3, 1, 2]]

    program        queries    inputs            targets (- does not count)
    op0 op1 op1    2 3        4 5 5 2 3         - - - 3 0
    op1 op1 op0    2 3        5 5 4 2 3         - - - 0 1
    op0 op1 op0    0 1        4 5 4 0 1         - - - 2 0

    >>> task.answers(torch.tensor([[4, 5, 5, 2, 3], [5, 5, 4, 2, 3], [4, 5, 4, 0, 1]])).tolist()
    [[3, 0], [0, 1], [2, 0]]

    Splits, each drawn uniformly and disjoint by construction:
    - held_out_programs = 0: after each program and first queries one value of the last query, scattered
      as by chance, is held out. Every program is then seen in training (and, with two or more queries,
      every program with every query): held-out sequences are new, what they ask is not.
    - held_out_programs > 0: round(held_out_programs · m^k) programs, fixed by the task's seed, are never
      trained on, and held-out sequences use those alone.

    Label noise: with probability label_noise the observed answer is replaced by a symbol drawn uniformly from
    Z_p, which may be the true one again; so the true answer is observed with probability
    1 − label_noise + label_noise / p, and each other symbol with label_noise / p. Both splits are noisy.
    """

    name: ClassVar[str] = "rev_prog"
    summary: ClassVar[str] = "a program of operators, then the symbols to apply it to"
    group_name: ClassVar[str] = "programs"
    more_groups: ClassVar[str] = "task.m or task.k"
    num_steps: ClassVar[int] = 450

    p: int = 6  # number of symbols
    m: int = 3  # number of operators
    k: int = 3  # operators per program: the depth
    queries: int = 4  # query symbols per sequence
    label_noise: float = 0.0  # probability that an observed answer is replaced by a uniformly drawn symbol
    held_out_programs: float = 0.0  # fraction of the m^k programs never trained on; 0 holds out sequences
    seed: int = 0  # fixes the operators and the held-out programs

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        if self.p < 3:
            raise ValueError(
                f"task.p={self.p}: fewer than 3 symbols leave no two operators whose order matters; "
                "give task.p=3 or more"
            )
        for key in ("m", "k", "queries"):
            value = getattr(self, key)
            if value < 1:
                raise ValueError(f"task.{key}={value}: needs at least 1; give task.{key}=1 or more")
        available = math.factorial(min(self.p, 12)) - 1
        if self.m > available:
            raise ValueError(
                f"task.m={self.m}: only {available} permutations of {self.p} symbols are not the identity; "
                f"give task.m={available} or fewer, or a larger task.p"
            )
        if not 0 <= self.label_noise < 1:
            raise ValueError(
                f"task.label_noise={self.label_noise}: is a probability; give 0 or more and less than 1"
            )
        self._check_held_out_programs()
        check_length(f"task.k={self.k} and task.queries={self.queries}", self.length(seq_len))
        check_amount(f"task.p={self.p} and task.m={self.m}", self.p * self.m)

    def _check_held_out_programs(self) -> None:
        given = f"task.held_out_programs={self.held_out_programs}"
        if not 0 <= self.held_out_programs < 1:
            raise ValueError(f"{given}: is a fraction of the programs; give 0 or more and less than 1")
        if self.held_out_programs == 0:
            return
        # 2^20 is above the limit already, and a capped exponent keeps the number small
        if self.m ** min(self.k, 20) > MAX_PROGRAMS:
            raise ValueError(
                f"{given}: task.m={self.m} and task.k={self.k} make more than {MAX_PROGRAMS} programs to "
                "choose from; give a smaller task.m or task.k, or task.held_out_programs=0"
            )
        total = self.m**self.k
        held_out = self._num_held_out_programs
        if not 1 <= held_out < total:
            raise ValueError(
                f"{given}: holds out {held_out} of {total} programs, and both splits need at least 1; "
                "give another fraction, a larger task.m or task.k, or task.held_out_programs=0"
            )

    @property
    def vocab_size(self) -> int:
        """Return V = p + m."""
        return self.p + self.m

    def length(self, seq_len: int) -> int:
        """Return T = k + queries, whatever `seq_len`."""
        return self.k + self.queries

    def thinking(self, seq_len: int) -> int:
        """Return the number of queries."""
        return self.queries

    def floor(self) -> float:
        """Compute the Bayes NLL in nats per query: the entropy of the label noise.

            −c ln c − (p − 1) (ε/p) ln(ε/p),   c = 1 − ε + ε/p

        The same at every query and in both splits, as the prefix determines the true answer.
        """
        other = self.label_noise / self.p
        correct = 1 - self.label_noise + other
        if other == 0:
            return 0.0
        return -correct * math.log(correct) - (self.p - 1) * other * math.log(other)

    @cached_property
    def permutations(self) -> Tensor:
        """Draw the operators, (m, p) long: distinct, none the identity, and if m ≥ 2 not all commute."""
        source = random.Random(f"operators/{self.seed}")
        rows: list[tuple[int, ...]] = []
        while not rows or (self.m > 1 and _all_commute(rows)):
            seen = {tuple(range(self.p))}
            rows = []
            while len(rows) < self.m:
                row = tuple(source.sample(range(self.p), self.p))
                if row not in seen:
                    seen.add(row)
                    rows.append(row)
        return torch.tensor(rows)

    @property
    def _num_held_out_programs(self) -> int:
        return round(self.held_out_programs * self.m**self.k)

    @cached_property
    def programs(self) -> dict[str, Tensor]:
        """Draw the numbers of each split's programs if some are held out; op_1 is the highest digit."""
        total = self.m**self.k
        source = random.Random(f"held-out programs/{self.seed}")
        mask = torch.zeros(total, dtype=torch.bool)
        mask[source.sample(range(total), self._num_held_out_programs)] = True
        return {"train": (~mask).nonzero().squeeze(1), "held_out": mask.nonzero().squeeze(1)}

    def answers(self, inputs: Tensor) -> Tensor:
        """Compute the true answers, before label noise.

        Args:
            inputs: (…, T) long, operators then queries.

        Returns:
            (…, queries) long.
        """
        return self._intermediates(inputs)[-1]

    def _intermediates(self, inputs: Tensor) -> list[Tensor]:
        """Compute op_1(x), op_2(op_1(x)), … up to the answer, each (…, queries) long."""
        program, values = inputs[..., : self.k] - self.p, [inputs[..., self.k :]]
        table, rows = self.permutations.flatten(), self.p * program
        for i in range(self.k):
            places = rows[..., i : i + 1] + values[-1]
            values.append(table.index_select(0, places.flatten()).view(places.shape))
        return values[1:]

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return the operators, the values between a query and its answer, and the answer, at the queries."""
        inputs = batch.inputs
        at_queries = (*inputs.shape[:-1], self.queries)
        operators = (inputs[..., i : i + 1].expand(at_queries) - self.p for i in range(self.k))
        values_of, operators_of = self.symbols(range(self.p)), self.symbols(range(self.p, self.vocab_size))
        found = {f"operator {i}": (x, operators_of) for i, x in enumerate(operators, 1)}
        name = "x"
        for i, values in enumerate(self._intermediates(inputs), 1):
            name = f"op{i}({name})"
            found["answer" if i == self.k else name] = values, values_of
        before = torch.full((*inputs.shape[:-1], self.k), -1)
        return {
            name: Feature(torch.cat([before, x], -1), len(names), names) for name, (x, names) in found.items()
        }

    def gold(self, inputs: Tensor) -> Tensor:
        """Return op_1(x), op_2(op_1(x)), … and the answer, (S, B, T, k), at the queries; see `Task.gold`."""
        steps = torch.stack(self._intermediates(inputs), -1)
        before = torch.full((*inputs.shape[:-1], self.k, self.k), -1)
        return torch.cat([before, steps], -2)

    def gold_sizes(self) -> GoldSizes:
        """Return p symbols, k steps."""
        return GoldSizes(self.p, self.k, self.k)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Compute the true log-probabilities of the observed answers.

        −inf marks what cannot be observed; take exponentials, or gather possible targets, before multiplying.
        Operator positions do not count and hold the uniform −ln V as a filler.

        Args:
            inputs: (S, B, T) long.

        Returns:
            (S, B, T, V) log p(target | prefix), normalised at every position.
        """
        other = self.label_noise / self.p
        oracle = torch.full((*inputs.shape, self.vocab_size), -math.log(self.vocab_size))
        observed = oracle[..., self.k :, :]
        observed[..., : self.p] = math.log(other) if other > 0 else -math.inf
        observed[..., self.p :] = -math.inf
        observed.scatter_(-1, self.answers(inputs).unsqueeze(-1), math.log(1 - self.label_noise + other))
        return oracle

    def probe_group(self, inputs: Tensor) -> Tensor:
        """Return the program, (…, k): the features follow from it and the symbol asked about."""
        return inputs[..., : self.k]

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw sequences uniformly from a split, without the oracle; see `Task.sample`."""
        check_split(split)
        query = torch.randint(self.p, (batch_size, self.queries), generator=generator)
        if self.held_out_programs > 0:
            numbers = self.programs[split]
            chosen = numbers[torch.randint(len(numbers), (batch_size, 1), generator=generator)]
            program = chosen // self.m ** torch.arange(self.k - 1, -1, -1) % self.m
        else:
            program = torch.randint(self.m, (batch_size, self.k), generator=generator)
            query[:, -1] = self._held_out_query(program, query)
            if split == "train":
                shift = torch.randint(1, self.p, (batch_size,), generator=generator)
                query[:, -1] = (query[:, -1] + shift) % self.p
        inputs = torch.cat([program + self.p, query], dim=1).unsqueeze(0)
        observed = self.answers(inputs)
        if self.label_noise > 0:
            replaced = torch.rand(observed.shape, generator=generator) < self.label_noise
            drawn = torch.randint(self.p, observed.shape, generator=generator)
            observed = torch.where(replaced, drawn, observed)
        targets = torch.zeros_like(inputs)
        targets[..., self.k :] = observed
        return counted_from(self.k, inputs, targets)

    def _held_out_query(self, program: Tensor, query: Tensor) -> Tensor:
        """Compute the one value of the last query that is held out after each beginning, (B,) long."""
        return scatter([*program.unbind(1), *query[:, :-1].unbind(1)], self.seed) % self.p

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids: "3" for a symbol, "op0" for an operator."""
        return [str(i) if i < self.p else f"op{i - self.p}" for i in ids]


def _all_commute(rows: list[tuple[int, ...]]) -> bool:
    return all([a[i] for i in b] == [b[i] for i in a] for n, a in enumerate(rows) for b in rows[:n])
