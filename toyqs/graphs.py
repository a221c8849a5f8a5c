"""Work on a GPU that is done again and again, as CUDA graphs: captured once, replayed with other inputs.

A training step of a small model is hundreds of kernels, each shorter than its launch; a graph launches all at
once. It holds addresses, shapes and plain numbers as they were when it was captured. So inputs are copied to
where it reads them, and a number that changes from call to call has to be a tensor among them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

Outputs = dict[str, Tensor]
Capture = Callable[[Callable[[], None]], Callable[[], None]]  # records work, undone; returns what does it

REPEATS = 3  # calls of a kind that are left to others first: they choose kernels and fill caches
KINDS = 64  # that are counted at a time; where a plain number changes in every call no kind comes again


def captured(work: Callable[[], None]) -> Callable[[], None]:
    """Capture work as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class Graphs:
    """The graphs of some work, by its kind: whatever its code depends on, and its inputs' shapes."""

    def __init__(self, capture: Capture = captured) -> None:
        self.capture = capture
        self.seen: dict[Hashable, int] = {}
        self.graphs: dict[Hashable, tuple[Any, Outputs, Callable[[], None]]] = {}

    def __call__(self, kind: Hashable, inputs: Any, work: Callable[[Any], Outputs]) -> Outputs | None:
        """Do work as a graph.

        Args:
            kind: everything that the work depends on but tensors.
            inputs: tensors, and tuples of such; None and numbers among them are part of the kind.
            work: inputs -> results by name; what else it changes must lie at the same place in every call.

        Returns:
            The results; None where nothing was done, for work of this kind has no graph so far.
        """
        kind = (kind, _shapes(inputs))
        if kind not in self.graphs:
            if len(self.seen) == KINDS:
                self.seen.clear()
            self.seen[kind] = self.seen.get(kind, 0) + 1
            if self.seen[kind] <= REPEATS:
                return None
            place, outputs = _copied(inputs), Outputs()
            self.graphs[kind] = place, outputs, self.capture(lambda: outputs.update(work(place)))
        place, outputs, replay = self.graphs[kind]
        for there, new in zip(_tensors(place), _tensors(inputs), strict=True):
            there.copy_(new)
        replay()
        return {name: value.clone() for name, value in outputs.items()}


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    for part in value if isinstance(value, tuple) else ():
        yield from _tensors(part)


def _copied(value: Any) -> Any:
    if isinstance(value, tuple):
        parts = map(_copied, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value.clone() if isinstance(value, Tensor) else value


def _shapes(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_shapes, value))
    return (value.shape, value.dtype) if isinstance(value, Tensor) else value
