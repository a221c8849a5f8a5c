"""The time that one prediction takes after a context that has been read, part by part."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from toyqs.answers.loaded import memory
from toyqs.answers.loaded.memory import ContextCache
from toyqs.answers.loaded.predictor import Predictor

PARTS = {  # in the order of a prediction
    "context": "the new token is read into the memory of the context",
    "thoughts": "the start marker and all symbols but the last are drawn and read",
    "reading": "the interpreter reads the thoughts",
    "head": "base state and readings become probabilities",
}


class Prediction(NamedTuple):
    """One prediction, and how long its parts took."""

    log_probs: Tensor  # (V,) nats, the mixture over thoughts
    seconds: dict[str, float]  # part -> wall time; those of PARTS that there are
    cpu: float  # seconds of CPU time of all threads


class Latency(NamedTuple):
    """Milliseconds of several predictions."""

    median: float
    quartiles: tuple[float, float]
    cpu: float  # the median CPU time, of all threads
    parts: dict[str, float]  # part -> median
    shares: dict[str, float]  # part -> its share of the time of all predictions


class Clock:
    """The time that each part takes, in laps."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.last, self.cpu = self._now(), time.process_time()

    def lap(self, part: str) -> None:
        """Count the time since the last lap as this part's."""
        now = self._now()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else what was asked for is timed, not what was done
        return time.perf_counter()


def predict(predictor: Predictor, cache: ContextCache, token: Tensor) -> Prediction:
    """Predict what follows one more token, as `Predictor.steps` does, and time the parts.

    Args:
        predictor: of the model.
        cache: the memory of one text.
        token: (1, 1) long, which is read.
    """
    model, clock = predictor.model, Clock(token.device)
    with torch.no_grad(), _reading(model.interpreter, clock):
        cache = memory.extend(model, cache, token)
        context = memory.context_of(model, cache)
        clock.lap("context")
        thoughts = predictor.think(context, 1, 1)
        if thoughts is not None:
            clock.lap("thoughts")
        log_probs = predictor.mixture(context, thoughts)[0, 0, 0]
        clock.lap("head")
    return Prediction(log_probs, clock.seconds, time.process_time() - clock.cpu)


@contextmanager
def _reading(interpreter: nn.Module | None, clock: Clock) -> Iterator[None]:
    """Count what an interpreter does, within a `with` block, as reading, and what comes before it as head."""
    if interpreter is None:
        yield
        return
    hooks = [
        interpreter.register_forward_pre_hook(lambda *_: clock.lap("head")),
        interpreter.register_forward_hook(lambda *_: clock.lap("reading")),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def summary(predictions: Sequence[Prediction]) -> Latency:
    """Return median, quartiles and parts of some predictions' times, in milliseconds."""
    totals = [1e3 * sum(x.seconds.values()) for x in predictions]
    low, middle, high = _quartiles(totals)
    names = [name for name in PARTS if name in predictions[0].seconds]
    parts = {name: [1e3 * x.seconds[name] for x in predictions] for name in names}
    return Latency(
        middle,
        (low, high),
        1e3 * statistics.median(x.cpu for x in predictions),
        {name: statistics.median(each) for name, each in parts.items()},
        {name: sum(each) / sum(totals) for name, each in parts.items()},
    )


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles, between the values of an ascending list as numpy's percentiles are."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
