"""RevProg: a program of permutations, then the symbols that it is applied to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.difficulty import HintedDepths, joined
from toyqs.tasks.label_noise import noise_entropy, observe, observed_log_probs
from toyqs.tasks.operators import Operators
from toyqs.tasks.programs import Programs
from toyqs.tasks.task import Feature, GoldSizes, check_amount, check_length, check_split, counted_at, scatter
from toyqs.types import Batch


@dataclass
class RevProg(HintedDepths):
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

    With task.reach above 1, or a curriculum, programs are of mixed length: from 1 to k operators in training,
    2 to reach · k of held-out sequences, each length equally often. Queries follow a program at once, and
    pads (id p + m) follow these; V = p + m + 1. A longer program is read as a shorter one is, so every model
    can read depths that it was not trained on.

    >>> deeper = RevProg(p=4, m=2, k=1, queries=1, reach=2)
    >>> deeper.depth(torch.tensor([[4, 5, 2], [5, 3, 6]])).tolist()
    [[0, 0, 2], [0, 1, 0]]
    >>> deeper.answers(torch.tensor([[4, 5, 2], [5, 3, 6]])).tolist()
    [[1], [2]]

    Splits, each drawn uniformly and disjoint by construction; of mixed lengths every program of one operator
    is trained on, with every query:
    - held_out_programs = 0: after each program and first queries one value of the last query, scattered
      as by chance, is held out. Every program is then seen in training (and, with two or more queries,
      every program with every query): held-out sequences are new, what they ask is not.
    - held_out_programs > 0: round(held_out_programs · m^k) programs, fixed by the task's seed, are never
      trained on, and held-out sequences use those alone. Of mixed lengths that share of each length from 2 to
      k is held out, one at least, and every program beyond k.
      To hold programs out means little where there are few of them: 27 at the defaults, 340 with m=4 k=4.

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
    reach: int = 1  # held-out programs have up to so many times k operators
    curriculum: float = 0.0  # share of training over which the largest length rises from 1; 0: off

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        for key in ("m", "k", "queries"):
            value = getattr(self, key)
            if value < 1:
                raise ValueError(f"task.{key}={value}: needs at least 1; give task.{key}=1 or more")
        self._operators.check()
        if not 0 <= self.label_noise < 1:
            raise ValueError(
                f"task.label_noise={self.label_noise}: is a probability; give 0 or more and less than 1"
            )
        self.check_depths()
        self._programs.check()
        given = f"task.k={self.k} and task.queries={self.queries}"
        check_length(given, self.held_out_length(seq_len))
        check_amount(f"task.p={self.p} and task.m={self.m}", self.p * self.m)

    @property
    def mixes_lengths(self) -> bool:
        """Tell whether programs of one batch differ in length."""
        return self.reach > 1 or self.curriculum > 0

    @property
    def least_held_out(self) -> int:
        """Return 2: programs of one operator are all trained on, unless no others are asked for."""
        return min(2, self.deepest)

    @property
    def trained_depth(self) -> int:
        """Return k."""
        return self.k

    @property
    def vocab_size(self) -> int:
        """Return V = p + m, one more where there are pads."""
        return self.p + self.m + self.mixes_lengths

    def length(self, seq_len: int) -> int:
        """Return T = k + queries, whatever `seq_len`."""
        return self.k + self.queries

    def held_out_length(self, seq_len: int) -> int:
        """Return T of held-out sequences: reach · k + queries."""
        return self.deepest + self.queries

    def thinking(self, seq_len: int) -> int:
        """Return the number of queries."""
        return self.queries

    def floor(self) -> float:
        """Compute the Bayes NLL in nats per query: the entropy of the label noise.

        The same at every query and in both splits, as the prefix determines the true answer.
        """
        return noise_entropy(self.p, self.label_noise)

    @property
    def permutations(self) -> Tensor:
        """Return the operators, (m, p) long."""
        return self._operators.permutations

    @cached_property
    def _operators(self) -> Operators:
        return Operators(self.p, self.m, self.seed)

    @property
    def programs(self) -> dict[str, Tensor]:
        """Return the numbers of each split's programs of k operators, if some are held out."""
        return self._programs.numbers(self.k)

    @cached_property
    def _programs(self) -> Programs:
        return Programs(self.m, self.k, self.held_out_programs, self.seed, self.mixes_lengths)

    def _read(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the program and where it has operators, (…, D), and the queries' places (…, queries)."""
        program = inputs[..., : inputs.shape[-1] - self.queries] - self.p
        there = (program >= 0) & (program < self.m)
        return program, there, there.sum(-1, keepdim=True) + torch.arange(self.queries)

    def answers(self, inputs: Tensor) -> Tensor:
        """Compute the true answers, before label noise, (…, queries) long.

        Args:
            inputs: (…, T) long, operators, then queries, then pads.
        """
        return self._intermediates(inputs)[-1]

    def _intermediates(self, inputs: Tensor) -> list[Tensor]:
        """Compute op_1(x), op_2(op_1(x)), … up to the answer, each (…, queries) long.

        A program that ends before changes nothing further.
        """
        program, there, places = self._read(inputs)
        return self._operators.applied(program.where(there, self.m), inputs.gather(-1, places))

    def depth(self, inputs: Tensor) -> Tensor:
        """Return the program's number of operators at the queries, 0 elsewhere; see `Depths.depth`."""
        _, there, places = self._read(inputs)
        length = there.sum(-1, keepdim=True).expand(places.shape)
        return torch.zeros_like(inputs).scatter(-1, places, length)

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return the operators, the values between a query and its answer, and the answer, at the queries."""
        inputs = batch.inputs
        program, there, places = self._read(inputs)
        values_of, operators_of = self.symbols(range(self.p)), self.symbols(range(self.p, self.p + self.m))
        found = {
            f"operator {i}": (operator.where(now, -1).unsqueeze(-1).expand(places.shape), operators_of)
            for i, (operator, now) in enumerate(zip(program.unbind(-1), there.unbind(-1), strict=True), 1)
        }
        name, steps = "x", self._intermediates(inputs)
        for i, values in enumerate(steps[:-1], 1):
            name = f"value {i}" if self.mixes_lengths else f"op{i}({name})"
            found[name] = values.where(there[..., i : i + 1], -1), values_of
        found["answer"] = steps[-1], values_of
        nowhere = torch.full_like(inputs, -1)
        return {
            name: Feature(nowhere.scatter(-1, places, x), len(names), names)
            for name, (x, names) in found.items()
        }

    def gold(self, inputs: Tensor) -> Tensor:
        """Return op_1(x), op_2(op_1(x)), … and the answer, (S, B, T, k), at the queries; see `Task.gold`."""
        steps = torch.stack(self._intermediates(inputs)[: self.k], -1)
        return self.placed(steps, self._read(inputs)[2], inputs)

    def gold_sizes(self) -> GoldSizes:
        """Return p symbols, up to k steps."""
        return GoldSizes(self.p, self.least_depth if self.mixes_lengths else self.k, self.k)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Compute the true log-probabilities of the observed answers.

        −inf marks what cannot be observed; take exponentials, or gather possible targets, before multiplying.
        Operator positions do not count and hold the uniform −ln V as a filler.

        Args:
            inputs: (S, B, T) long.

        Returns:
            (S, B, T, V) log p(target | prefix), normalised at every position.
        """
        oracle = torch.full((*inputs.shape, self.vocab_size), -math.log(self.vocab_size))
        answers, places = self.answers(inputs), self._read(inputs)[2].unsqueeze(-1)
        observed = observed_log_probs(answers, self.p, self.label_noise, self.vocab_size)
        return oracle.scatter(-2, places.expand(observed.shape), observed)

    def probe_group(self, inputs: Tensor) -> Tensor:
        """Return the program, (…, D), −1 behind it: features follow from it and the symbol asked about."""
        program, there, _ = self._read(inputs)
        return (program + self.p).where(there, -1)

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw sequences uniformly from a split, without the oracle; see `Task.sample`."""
        check_split(split)
        query = torch.randint(self.p, (batch_size, self.queries), generator=generator)
        length = None
        if self.mixes_lengths:
            length = self.draw_depths(generator, (batch_size,), split, progress)
        width = self.k if split == "train" else self.deepest
        program = self._programs.draw(generator, batch_size, length, split, width)
        if self.held_out_programs == 0:
            last = self._held_out_query(program, query)
            if split == "train":
                last = (last + torch.randint(1, self.p, (batch_size,), generator=generator)) % self.p
            if length is not None:  # all of the least are trained on, and none that is too long to be
                free = length < self.least_held_out if split == "train" else length > self.k
                last = torch.where(free, query[:, -1], last)
            query[:, -1] = last
        return self._batch(generator, program, length, query)

    def _held_out_query(self, program: Tensor, query: Tensor) -> Tensor:
        """Compute the one value of the last query that is held out after each beginning, (B,) long."""
        program = program[:, : self.k]  # of both splits alike
        return scatter([*program.unbind(1), *query[:, :-1].unbind(1)], self.seed) % self.p

    def _batch(
        self, generator: torch.Generator, program: Tensor, length: Tensor | None, query: Tensor
    ) -> Batch:
        """Return sequences of programs (B, D) and their queries, with what is observed at these."""
        places = torch.arange(program.shape[1] + self.queries)
        if length is None:
            inputs, asked = torch.cat([program + self.p, query], 1), places >= self.k
        else:
            inputs, behind = joined(program + self.p, length, query, self.p + self.m), length.unsqueeze(1)
            asked = (places >= behind) & (places < behind + self.queries)
            program = program.where(places[: program.shape[1]] < behind, self.m)
        answers = self._operators.applied(program, query)[-1]
        observed = observe(generator, answers, self.p, self.label_noise)
        targets = torch.zeros_like(inputs).masked_scatter(asked, observed)
        return counted_at(asked.expand(inputs.shape).unsqueeze(0), inputs.unsqueeze(0), targets.unsqueeze(0))

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids: "3" for a symbol, "op0" for an operator, "-" for a pad."""
        names = [*map(str, range(self.p)), *(f"op{i}" for i in range(self.m)), "-"]
        return [names[i] for i in ids]
