"""Mano: modular arithmetic on expressions of growing depth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.difficulty import Depths, joined
from toyqs.tasks.task import Feature, GoldSizes, check_amount, check_length, check_split, counted_at, scatter
from toyqs.types import Batch

OPERATORS = "+-*"


@dataclass
class Mano(Depths):
    """Compute an expression of k operators, in prefix notation, modulo p.

    An operator stands before its two operands, each a number or an expression again, so no brackets are
    needed: - + 2 3 4 is (2 + 3) − 4. A sequence is such an expression of k operators, 2k + 1 tokens, then
    "=", which alone counts and thinks. Ids 0…p−1 are the numbers, then come the operators, "=" and a pad:
    V = p + operators + 2. Pads fill a sequence up to T = 2 task.k + 2, of held-out ones 2 reach · task.k + 2.
    A longer expression has no token that a shorter one has not, so every model can read depths that it
    was not trained on.

    Worked examples, modulo 7:

    >>> task = Mano(modulus=7, k=2, reach=1)
    >>> rows = torch.tensor([[8, 7, 2, 3, 4, 10], [9, 5, 3, 10, 11, 11]])
    >>> [" ".join(task.symbols(row)) for row in rows.tolist()]
    ['- + 2 3 4 =', '* 5 3 = pad pad']
    >>> task.answers(rows).tolist(), task.depth(rows).tolist()
    ([1, 1], [[0, 0, 0, 0, 0, 2], [0, 0, 0, 1, 0, 0]])

    Expressions are drawn from the root: one of the operators, uniformly; then how many of the other k − 1 are
    in its first operand, 0 to k − 1, uniformly; and so on. Numbers are uniform.

    Splits: after each beginning of an expression one value of its last number, scattered as by chance, is
    held out. Expressions of one operator are all trained on, for they are so few that a model would learn
    which are missing; unless no others are asked for.

    After Mano of "Physics of Language Models: Part 4" (2512.17351): the law of expressions is the same, with
    modulus=23 and k=10, 13 or 16 there; but a token that says k stands before each of them there, which would
    tell nothing of a k that was never seen, and is left out here.
    """

    name: ClassVar[str] = "mano"
    summary: ClassVar[str] = "modular arithmetic in prefix notation, up to k operators"
    more_groups: ClassVar[str] = "task.modulus or task.k"
    num_steps: ClassVar[int] = 1000

    modulus: int = 7  # p
    k: int = 3  # the most operators in training
    operators: str = OPERATORS  # those there are, some of + - *
    reach: int = 2  # held-out expressions have up to so many times k operators
    curriculum: float = 0.5  # share of training over which the most operators rise from 1; 0: off

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        for key, least in (("modulus", 2), ("k", 1)):
            value = getattr(self, key)
            if value < least:
                raise ValueError(f"task.{key}={value}: is too small; give task.{key}={least} or more")
        given, known = self.operators, set(OPERATORS)
        if not given or not set(given) <= known or len(set(given)) < len(given):
            raise ValueError(
                f"task.operators={given}: is not some of {OPERATORS}, each once; give for example +-"
            )
        self.check_depths()
        check_amount(f"task.modulus={self.modulus}", self.modulus)
        check_length(f"task.k={self.k} and task.reach={self.reach}", self.held_out_length(seq_len))

    @property
    def vocab_size(self) -> int:
        """Return V = p + operators + 2."""
        return self.modulus + len(self.operators) + 2

    @property
    def equals(self) -> int:
        """Return the id of "="; a pad's is one more."""
        return self.modulus + len(self.operators)

    @property
    def trained_depth(self) -> int:
        """Return task.k."""
        return self.k

    @property
    def least_held_out(self) -> int:
        """Return 2, unless expressions of one operator are all that is asked."""
        return min(2, self.deepest)

    def length(self, seq_len: int) -> int:
        """Return T = 2 task.k + 2, whatever `seq_len`."""
        return 2 * self.k + 2

    def held_out_length(self, seq_len: int) -> int:
        """Return T of held-out sequences: 2 reach · task.k + 2."""
        return 2 * self.deepest + 2

    def thinking(self, seq_len: int) -> int:
        """Return 1: "="."""
        return 1

    def floor(self) -> float:
        """Return the Bayes NLL: 0, as an expression determines its value."""
        return 0.0

    def _asked(self, inputs: Tensor) -> Tensor:
        return inputs == self.equals

    def depth(self, inputs: Tensor) -> Tensor:
        """Return the number of operators at "=", 0 elsewhere; see `Depths.depth`."""
        k = ((inputs >= self.modulus) & (inputs < self.equals)).sum(-1, keepdim=True)
        return k * self._asked(inputs)

    def problem_length(self, inputs: Tensor) -> Tensor:
        """Return the length of the expression at "=", 2k + 1, 0 elsewhere; see `Depths.problem_length`."""
        return super().problem_length(inputs) + self.depth(inputs)

    def _values(self, inputs: Tensor) -> Tensor:
        """Compute the values of the parts that begin with an operator, in the order of computation.

        An expression is computed from its end: a number is put on a stack, an operator takes two from it.

        Args:
            inputs: (…, T) long.

        Returns:
            (…, most) long: the first operator's value is the last one's of the sequence; behind the k-th
            there is −1.
        """
        flat = inputs.flatten(0, -2)
        rows, most = torch.arange(len(flat)), max(1, (flat.shape[1] - 2) // 2)
        stack = torch.zeros(len(flat), most + 3, dtype=torch.long)
        values = torch.full((len(flat), most + 1), -1)  # the last column takes what is no value
        height, done = torch.zeros(len(flat), dtype=torch.long), torch.zeros(len(flat), dtype=torch.long)
        for token in flat.unbind(1)[::-1]:
            number, operator = token < self.modulus, (token >= self.modulus) & (token < self.equals)
            a, b = stack[rows, (height - 1).clamp(min=0)], stack[rows, (height - 2).clamp(min=0)]
            result = torch.where(number, token, 0)
            for i, name in enumerate(self.operators):
                value = {"+": a + b, "-": a - b, "*": a * b}[name] % self.modulus
                result = torch.where(token == self.modulus + i, value, result)
            height = height + number.long() - operator.long()
            place = torch.where(number | operator, height - 1, most + 2)  # others go where nothing is read
            stack[rows, place] = result
            values[rows, torch.where(operator, done, most)] = result
            done = done + operator.long()
        values[:, most] = -1
        return values[:, :most].view(*inputs.shape[:-1], most)

    def answers(self, inputs: Tensor) -> Tensor:
        """Compute the true answers: inputs (…, T) long -> (…) long."""
        last = self.depth(inputs).sum(-1, keepdim=True) - 1
        return self._values(inputs).gather(-1, last).squeeze(-1)

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return the values of the parts before the whole, in the order of computation; and the answer."""
        inputs = batch.inputs
        asked, values = self._asked(inputs), self._values(inputs)
        k = self.depth(inputs).sum(-1)
        found = {f"value {j}": values[..., j - 1].where(j < k, -1) for j in range(1, values.shape[-1])}
        found["answer"] = self.answers(inputs)
        return {name: Feature(x.unsqueeze(-1).where(asked, -1), self.modulus) for name, x in found.items()}

    def gold(self, inputs: Tensor) -> Tensor:
        """Return the values in the order of computation, (S, B, T, task.k), at "="; see `Task.gold`."""
        return self.as_deep(self._values(inputs)[..., : self.k].unsqueeze(-2), inputs)

    def gold_sizes(self) -> GoldSizes:
        """Return `modulus` symbols, 1 to task.k steps."""
        return GoldSizes(self.modulus, 1, self.k)

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw expressions of a split; see `Task.sample`."""
        check_split(split)
        most = self.k if split == "train" else self.deepest
        k = self.draw_depths(generator, (batch_size,), split, progress)
        expression = self._draw(generator, k, 2 * most + 1)
        last = (2 * k).unsqueeze(1)
        beginning = expression.where(torch.arange(2 * most + 1) < last, 0)
        # of both splits alike; a 0 takes the last place, where a digit would be mixed in less than the others
        digits = [*beginning[:, : 2 * self.k + 1].unbind(1), torch.zeros_like(k)]
        chosen = scatter(digits, 0) % self.modulus
        if split == "train":
            shift = torch.randint(1, self.modulus, (batch_size,), generator=generator)
            free = k < self.least_held_out
            chosen = torch.where(free, expression.gather(1, last).squeeze(1), (chosen + shift) % self.modulus)
        expression = expression.scatter(1, last, chosen.unsqueeze(1))
        equals = torch.full((batch_size, 1), self.equals)
        inputs = joined(expression, 2 * k + 1, equals, self.equals + 1).unsqueeze(0)
        asked = self._asked(inputs)
        return counted_at(asked, inputs, self.answers(inputs).unsqueeze(-1) * asked)

    def _draw(self, generator: torch.Generator, k: Tensor, width: int) -> Tensor:
        """Draw expressions of k operators, k (B,) long -> (B, width) long; what is behind their ends is any.

        The operators that each expression yet to come has are on a stack, the next one on top.
        """
        count = len(k)
        share = torch.rand(width, count, generator=generator, dtype=torch.float64)
        operator = torch.randint(len(self.operators), (width, count), generator=generator) + self.modulus
        number = torch.randint(self.modulus, (width, count), generator=generator)
        rows, stack = torch.arange(count), torch.zeros(count, width + 2, dtype=torch.long)
        stack[:, 0], height = k, torch.ones(count, dtype=torch.long)
        tokens = []
        for i in range(width):
            place = (height - 1).clamp(min=0)
            inside = stack[rows, place]
            first = (share[i] * inside).long()  # uniform from 0 to inside − 1
            stack[rows, place] = inside - 1 - first  # of the second operand, below the first one's
            stack[rows, place + 1] = first
            tokens.append(torch.where(inside > 0, operator[i], number[i]))
            height = height + torch.where(inside > 0, 1, -1)
        return torch.stack(tokens, 1)

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return readable names of token ids: "3", "+", "=", and "pad"."""
        more = [*self.operators, "=", "pad"]
        return [str(i) if i < self.modulus else more[i - self.modulus] for i in ids]
