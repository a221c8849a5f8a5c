"""The operators of RevProg, and which of its programs are never trained on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

MAX_PROGRAMS = 10**6


@dataclass
class Programs:
    """Programs of operators 0…m−1 that are drawn, all or those of a split."""

    m: int  # how many operators there are
    k: int  # operators of a program of training, at most
    held_out: float  # share of the programs that are never trained on; 0: none is
    seed: int
    mixed: bool  # whether programs differ in length; then of each length from 2 one is held out at least

    def check(self) -> None:
        """Refuse to hold out what there is not; see `Task.check`."""
        given = f"task.held_out_programs={self.held_out}"
        if not 0 <= self.held_out < 1:
            raise ValueError(f"{given}: is a fraction of the programs; give 0 or more and less than 1")
        if self.held_out == 0:
            return
        # 2^20 is above the limit already, and a capped exponent keeps the number small
        if self.m ** min(self.k, 20) > MAX_PROGRAMS:
            raise ValueError(
                f"{given}: task.m={self.m} and task.k={self.k} make more than {MAX_PROGRAMS} programs to "
                "choose from; give a smaller task.m or task.k, or task.held_out_programs=0"
            )
        length = 2 if self.mixed else self.k
        total, number = self.m**length, self._num_held_out(length)
        if length > self.k or not 1 <= number < total:
            raise ValueError(
                f"{given}: holds out {number} of {total} programs, and both splits need at least 1; "
                "give another fraction, a larger task.m or task.k, or task.held_out_programs=0"
            )

    def _num_held_out(self, length: int) -> int:
        number = round(self.held_out * self.m**length)
        return max(1, number) if self.mixed else number

    def numbers(self, length: int) -> dict[str, Tensor]:
        """Draw which programs of a length are in which split; op_1 is the highest of a number's digits.

        Returns:
            Split -> numbers, (N,) long, ascending. Of mixed lengths every single operator is trained on.
        """
        mask = torch.zeros(self.m**length, dtype=torch.bool)
        if not (self.mixed and length == 1):
            source = random.Random(
                f"held-out programs/{self.seed}" + ("" if length == self.k else f"/{length}")
            )
            mask[source.sample(range(len(mask)), self._num_held_out(length))] = True
        return {"train": (~mask).nonzero().squeeze(1), "held_out": mask.nonzero().squeeze(1)}

    @cached_property
    def _numbers(self) -> list[dict[str, Tensor]]:
        return [self.numbers(length) for length in range(1 if self.mixed else self.k, self.k + 1)]

    def draw(
        self, generator: torch.Generator, count: int, length: Tensor | None, split: str, width: int
    ) -> Tensor:
        """Draw programs of a split uniformly; those longer than k are all held out.

        Args:
            generator: the only source of randomness.
            count: B, how many.
            length: (B,) long, operators of each; None: k, all.
            split: "train" or "held_out".
            width: D, the most there are.

        Returns:
            (B, D) long, 0 behind a program's end.
        """
        if length is None:
            if self.held_out == 0:
                return torch.randint(self.m, (count, width), generator=generator)
            chosen = self._numbers[-1][split]
            return self._digits(chosen[torch.randint(len(chosen), (count,), generator=generator)], width)
        program = torch.randint(self.m, (count, width), generator=generator)
        program = program * (torch.arange(width) < length.unsqueeze(1))
        if self.held_out == 0:
            return program
        numbers = [each[split] for each in self._numbers]
        counts = torch.tensor([len(each) for each in numbers])
        which, share = length.clamp(max=self.k) - 1, torch.rand(count, generator=generator)
        places = (counts.cumsum(0) - counts)[which] + (share.double() * counts[which]).long()
        known = self._digits(torch.cat(numbers)[places], width, length.clamp(max=self.k))
        return torch.where((length <= self.k).unsqueeze(1), known, program)

    def _digits(self, numbers: Tensor, width: int, length: Tensor | None = None) -> Tensor:
        """Return the operators of programs by their numbers (B,), (B, width) long."""
        last = torch.tensor(self.k) if length is None else length.unsqueeze(1)
        power = last - 1 - torch.arange(width)
        return (numbers.unsqueeze(1) // self.m ** power.clamp(min=0) % self.m) * (power >= 0)
