"""The record of a run's thoughts, made of evaluations: the last one, and some in training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.rewards import penalty
from toyqs.tasks.task import Task
from toyqs.thought_record import ARRAYS, Array, Evaluation, Feature, Record
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.evaluation.watcher import Watcher, Watchers
from toyqs.training.evaluation.watching import Recorder, Reward, Tensors, sequences_of
from toyqs.training.params import TrainingParams
from toyqs.training.reference_model import with_reference
from toyqs.types import Batch, Model, Trace

SEQUENCES = 120  # of a record, fewer where they would have more BYTES
BYTES = 200_000  # of a file, about
SHRINKS = 0.52  # what of shares and indices a packed file has at most; of other numbers it has all
IN_TRAINING = 24  # sequences of each evaluation in training, fewer where all of them had more BYTES
NAMED = 256  # tokens or symbols that are all named; of more those that occur


class Recorded(NamedTuple):
    """What a record tells of a run beside what its model does."""

    task: Task
    own_symbols: list[str] | None  # names of the thoughts' symbols; None: they are the task's tokens
    objective: ThoughtObjective | None  # whose rewards are recorded; None: there are none
    params: TrainingParams
    every: int = 0  # steps from one evaluation in training to the next; 0: there are none


class Recording:
    """The thoughts of S seeds at some of their held-out sequences, at the end of the training and before."""

    def __init__(self, model: Model, held_out: Batch, seeds: Sequence[int], run: Recorded) -> None:
        """Choose the sequences, evenly spread: those of a text come in its order.

        Args:
            model: S seeds.
            held_out: (S, B, T), all sequences of the last evaluation.
            seeds: S of them.
            run: what else is to be known.
        """
        self.model, self.held_out, self.seeds, self.run = model, held_out, seeds, run
        self._final: Tensors = {}
        self._earlier: list[tuple[int, Tensors]] = []  # steps done, and what was seen then
        steps, most = run.params.steps, BYTES // self._bytes_of_a_sequence()
        self.sequences = _spread(held_out.inputs.shape[1], min(SEQUENCES, most))
        times = max(1, (steps - 1) // run.every) if run.every else 1
        self._rows = _spread(len(self.sequences), min(IN_TRAINING, most // times))

    def evaluate(self, beside: Watcher | None = None) -> dict[str, Tensor]:
        """Evaluate the model after its last step, and record that; see `metrics.evaluate`.

        Args:
            beside: looks at it too; None: nobody does.
        """
        steps = self.run.params.steps
        measured, self._final = self._evaluate(self.held_out, self.sequences, steps, beside)
        return measured

    def is_due(self, step: int) -> bool:
        """Tell whether an evaluation is to be recorded after a step, from 1; the last one is anyway."""
        return bool(self.run.every) and step % self.run.every == 0 and step < self.run.params.steps

    def evaluate_along(self, step: int) -> None:
        """Evaluate the model after a step on some of the sequences, and record that."""
        some = sequences_of(self.held_out, torch.tensor([self.sequences[row] for row in self._rows]))
        self._earlier.append((step, self._evaluate(some, range(len(self._rows)), step)[1]))

    def _evaluate(
        self, held_out: Batch, sequences: Sequence[int], step: int, beside: Watcher | None = None
    ) -> tuple[dict[str, Tensor], Tensors]:
        params = self.run.params
        sizes, recorder = params.eval_sizes_at(step - 1), Recorder(self.model, sequences, self._reward(step))
        kwargs: dict[str, Any] = {
            "full": True,
            "at_once": params.eval_chunk,
            "watcher": Watchers(recorder, beside),
        }
        measured = evaluate(self.model, held_out, self.seeds, sizes, **kwargs)
        return measured, recorder.tensors()

    def _reward(self, step: int) -> Reward | None:
        """Return what a thought earns in a step of the training, from 1."""
        objective, params = self.run.objective, self.run.params
        if objective is None:
            return None
        weights = {name: weight.at((step - 1) / params.steps) for name, weight in params.weights.items()}

        def earned(trace: Trace, batch: Batch) -> Tensor:
            trace = with_reference(trace, batch, params.reference)
            return objective.earned(trace._replace(penalty=penalty(trace, weights)), batch)

        return earned

    def _bytes_of_a_sequence(self) -> int:
        """Return about how many bytes a sequence adds to a file, found on two of them."""
        two = sequences_of(self.held_out, torch.arange(2))
        tensors = self._evaluate(two, range(2), self.run.params.steps)[1]
        index_size = 1 if self.run.task.vocab_size <= NAMED else 2
        size_of = {"token": index_size, "symbol": index_size, "number": 2 / SHRINKS}
        sizes = [x[0, 0].numel() * size_of.get(ARRAYS[name].of, 1) for name, x in tensors.items()]
        features = tensors["truth"][0, 0].numel() * len(self._features(two))
        return math.ceil(SHRINKS * (sum(sizes) + features))

    def _features(self, batch: Batch) -> dict[str, Any]:
        if self.run.task.features is None:
            return {}
        inputs, targets, weights, think = (x[:1].cpu() for x in batch[:4])
        return self.run.task.features(Batch(inputs, targets, weights, think))

    def record(self, index: int) -> Record:
        """Return the record of one seed, which has not diverged, after `evaluate`."""
        task, num_symbols = self.run.task, self.model.num_symbols
        own = {name: x[index] for name, x in self._final.items()}
        earlier = [(step, {name: x[index] for name, x in seen.items()}) for step, seen in self._earlier]
        every = [own, *(seen for _, seen in earlier)]
        tokens = _ids(every, "token", task.vocab_size)
        symbols = _ids(every, "symbol", num_symbols or task.vocab_size)
        ids = {"token": tokens, "symbol": symbols}
        names = self.run.own_symbols if num_symbols is not None else None
        some = sequences_of(self.held_out, torch.tensor(self.sequences))
        return Record(
            task=task.name,
            held_out=self.held_out.inputs.shape[1],
            sequences=self.sequences,
            tokens=task.symbols(tokens.tolist()),
            symbols=names or (task.symbols(symbols.tolist()) if len(symbols) else None),
            arrays=_arrays(own, ids),
            features={
                name: _feature(feature, own["positions"]) for name, feature in self._features(some).items()
            },
            evaluations=[
                Evaluation(step, self._rows, _arrays(seen, ids, without="inputs")) for step, seen in earlier
            ],
        )

    def seed_state(self, index: int) -> list[dict[str, Any]]:
        """Return what was recorded of one seed so far."""
        return [
            {"step": step, "seen": {name: x[index].clone() for name, x in seen.items()}}
            for step, seen in self._earlier
        ]

    def restore(self, parts: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        """Continue from the results of `seed_state`, one per seed."""
        self._earlier = [
            (
                each[0]["step"],
                {name: torch.stack([x["seen"][name] for x in each]) for name in each[0]["seen"]},
            )
            for each in zip(*parts, strict=True)
        ]


def _spread(total: int, count: int) -> list[int]:
    """Return so many of the numbers below a total, evenly spread; two or more, and at most all."""
    count = min(total, max(2, count))
    return [i * total // count for i in range(count)]


def _ids(every: Sequence[Tensors], of: str, size: int) -> Array:
    """Return the ids that have names in a record, ascending: all of a few, of many those that occur."""
    found = [x for seen in every for name, x in seen.items() if ARRAYS[name].of == of]
    if not found or size <= NAMED:
        return np.arange(size if found else 0)
    occurring = np.unique(np.concatenate([x.numpy().ravel() for x in found]))
    return occurring[occurring >= 0]


def _arrays(seen: Tensors, ids: Mapping[str, Array], without: str = "") -> dict[str, Array]:
    """Return arrays of what was seen; ids become places among those that have names, −1 their number."""
    arrays = {}
    for name, x in seen.items():
        named = ids.get(ARRAYS[name].of)
        values = x.numpy()
        if named is not None:
            values = np.where(values < 0, len(named), np.searchsorted(named, values))
        arrays[name] = values
    return {name: values for name, values in arrays.items() if name != without}


def _feature(feature: Any, positions: Tensor) -> Feature:
    """Return a task's feature, its values (1, N, P), at positions (N, T)."""
    values = feature.values[0].gather(1, positions).numpy()
    names = feature.names or [str(i) for i in range(feature.classes)]
    return Feature(np.where(values < 0, feature.classes, values), list(names))
