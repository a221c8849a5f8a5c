"""The operators of RevProg: permutations, applied one after another."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass
class Operators:
    """m permutations of Z_p, fixed by a seed."""

    p: int
    m: int
    seed: int

    def check(self) -> None:
        """Refuse what there are no such operators of; see `Task.check`."""
        if self.p < 3:
            raise ValueError(
                f"task.p={self.p}: fewer than 3 symbols leave no two operators whose order matters; "
                "give task.p=3 or more"
            )
        available = math.factorial(min(self.p, 12)) - 1
        if self.m > available:
            raise ValueError(
                f"task.m={self.m}: only {available} permutations of {self.p} symbols are not the identity; "
                f"give task.m={available} or fewer, or a larger task.p"
            )

    @cached_property
    def permutations(self) -> Tensor:
        """Draw the operators, (m, p) long; see `draw_operators`."""
        return draw_operators(self.p, self.m, self.seed)

    @cached_property
    def _maps(self) -> Tensor:
        """Return the operators, and as number m the map that changes nothing, ((m + 1) · p,) long."""
        return torch.cat([self.permutations, torch.arange(self.p).unsqueeze(0)]).flatten()

    def applied(self, program: Tensor, values: Tensor) -> list[Tensor]:
        """Apply operators one after another.

        Args:
            program: (…, D) long, their numbers; number m changes nothing.
            values: (…, queries) long, in Z_p.

        Returns:
            The values after each of the D operators.
        """
        steps = []
        for beginning in (self.p * program).unbind(-1):
            entries = beginning.unsqueeze(-1) + values
            values = self._maps.index_select(0, entries.flatten()).view(values.shape)
            steps.append(values)
        return steps


def draw_operators(p: int, m: int, seed: int) -> Tensor:
    """Draw permutations, (m, p) long: distinct, none the identity, and if m ≥ 2 not all commute."""
    source = random.Random(f"operators/{seed}")
    rows: list[tuple[int, ...]] = []
    while not rows or (m > 1 and _all_commute(rows)):
        seen = {tuple(range(p))}
        rows = []
        while len(rows) < m:
            row = tuple(source.sample(range(p), p))
            if row not in seen:
                seen.add(row)
                rows.append(row)
    return torch.tensor(rows)


def _all_commute(rows: list[tuple[int, ...]]) -> bool:
    return all([a[i] for i in b] == [b[i] for i in a] for n, a in enumerate(rows) for b in rows[:n])
