"""Held-out losses by depth: what a model does at depths that it was trained on, and at larger ones."""

from __future__ import annotations

import torch
from torch import Tensor

from toyqs.objectives.rewards import hits, target_log_prob
from toyqs.tasks.task import Task
from toyqs.training.evaluation.reading import places
from toyqs.training.hard_positions import PositionSelection
from toyqs.types import Batch, Trace


class ByDepth:
    """Measures NLL and accuracy of the counted positions of each depth; a `Watcher`."""

    def __init__(self, task: Task, held_out: Batch) -> None:
        """Find the depths; see `by_depth`.

        Args:
            task: which has depths.
            held_out: (S, B, T), all sequences of the evaluation, the same for every seed.
        """
        assert task.depth is not None
        self.depth = task.depth(held_out.inputs[:1].cpu())  # (1, B, T)
        self.trained = task.trained_depth
        self.begin()

    def begin(self) -> None:
        """Forget what was seen."""
        self._sums: dict[str, Tensor] = {}  # (S, depths + 1) each

    def see(
        self, start: int, whole: Batch, batch: Batch, selection: PositionSelection | None, trace: Trace
    ) -> None:
        """Add up the positions of sequences from a number `start` on; see `Watcher`."""
        depth = self.depth[:, start : start + whole.inputs.shape[1]].expand(len(whole.inputs), -1, -1)
        first, targets = trace.logits[..., :1, :], batch.targets.unsqueeze(-1)
        nll, right = -target_log_prob(first, targets).mean(-1), hits(first, targets).squeeze(-1).mean(-1)
        self._add(depth.gather(2, places(whole, selection).cpu()), nll, right, batch.weights)
        if selection is not None:
            others = (selection.nll, selection.accuracy, selection.weights)
            self._add(depth.gather(2, places(whole, None).cpu()), *others)

    def see_other(self, metric: str, trace: Trace) -> None:
        """Leave out other predictions."""

    def _add(self, depth: Tensor, nll: Tensor, right: Tensor, weights: Tensor) -> None:
        """Add values (S, B, T) of positions with these depths and weights."""
        weights = weights.double().cpu()
        for name, values in (("weight", weights), ("nll", nll), ("accuracy", right)):
            added = weights if name == "weight" else values.double().cpu() * weights
            sums = self._sums.setdefault(name, torch.zeros(len(depth), int(self.depth.max()) + 1).double())
            sums.scatter_add_(1, depth.flatten(1), added.flatten(1))

    def lines(self, index: int) -> list[dict[str, float]]:
        """Return one line per depth of the seed at `index`, ascending.

        Returns:
            `depth`; `trained`, 1 where training has it, else 0; `positions`, the weight of those counted;
            `nll` in nats and `accuracy`, means over them.
        """
        weight, nll, right = (self._sums[name][index] for name in ("weight", "nll", "accuracy"))
        return [
            {
                "depth": depth,
                "trained": int(self.trained is None or depth <= self.trained),
                "positions": float(weight[depth]),
                "nll": float(nll[depth] / weight[depth]),
                "accuracy": float(right[depth] / weight[depth]),
            }
            for depth in range(1, len(weight))
            if weight[depth] > 0
        ]

    def deeper(self) -> dict[str, Tensor]:
        """Return `nll_deeper` and `accuracy_deeper`, (S,): the means over all depths beyond training's."""
        if self.trained is None or int(self.depth.max()) <= self.trained:
            return {}
        weight, *sums = (self._sums[name][:, self.trained + 1 :].sum(1) for name in self._sums)
        return {f"{name}_deeper": x / weight for name, x in zip(("nll", "accuracy"), sums, strict=True)}


def by_depth(task: Task, held_out: Batch) -> ByDepth | None:
    """Return what measures a task's losses by depth; None where its held-out sequences have no two depths."""
    if task.depth is None:
        return None
    found = ByDepth(task, held_out)
    return found if len(found.depth[found.depth > 0].unique()) > 1 else None
