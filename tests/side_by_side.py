"""Several processes played by threads of one: what they fetch from each other, with its gradient."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

SECONDS = 60  # until one that waits for the others gives up

Result = TypeVar("Result")


class Exchange:
    """What one of them sees of the others."""

    def __init__(self, rank: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.rank, self.ranks, self._barrier, self._slots = rank, len(slots), barrier, slots
        self.calls = 0

    def all_of(self, given: Tensor) -> list[Tensor]:
        """What each of them gives here."""
        self.calls += 1
        self._slots[self.rank] = given.detach().clone()
        self._barrier.wait(SECONDS)
        found = list(self._slots)
        self._barrier.wait(SECONDS)
        return found

    def whole(self, part: Tensor) -> Tensor:
        """As `parallel.whole`."""
        whole: Tensor = _Whole.apply(part, self)
        return whole

    def total(self, values: Tensor) -> Tensor:
        """As `parallel.total`."""
        return torch.stack(self.all_of(values)).sum(0)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        return torch.cat(exchange.all_of(part))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        exchange = ctx.exchange
        return exchange.total(grad).chunk(exchange.ranks)[exchange.rank], None


def side_by_side(ranks: int, work: Callable[[Exchange], Result]) -> list[Result]:
    """What each of so many makes of the work; an error of any of them ends all."""
    barrier, slots = threading.Barrier(ranks), [None] * ranks

    def run(rank: int) -> Result:
        try:
            return work(Exchange(rank, barrier, slots))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))
