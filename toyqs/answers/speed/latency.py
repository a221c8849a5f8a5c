"""How long one next-token prediction takes, with thoughts and without, and where the time goes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from toyqs.answers.command import add_command
from toyqs.answers.heading import heading
from toyqs.answers.loaded import memory
from toyqs.answers.loaded.load import LoadedRun, load_run
from toyqs.answers.loaded.predictor import Predictor
from toyqs.answers.speed.timing import PARTS, Latency, predict, summary
from toyqs.command_line import positive, whole
from toyqs.config.errors import Refusal
from toyqs.evidence.tables.thoughts import wrapped_line
from toyqs.evidence.text import aligned
from toyqs.rng import stream

CONTEXT = 128  # tokens that were read before, by default
WARM = 3  # first predictions, which do not count


def add_to(measures: Any) -> None:
    """Add the command to the command line."""
    part = add_command(measures, "latency", _latency, "milliseconds of a prediction, and where they go")
    part.add_argument("run", metavar="RUN", help="folder of a finished run, runs/KEY")
    help_ = f"tokens that were read before ({CONTEXT}, fewer where a transformer has no room)"
    part.add_argument("--context", type=whole, metavar="N", help=help_)
    part.add_argument("--tokens", type=whole, default=50, metavar="N", help="predictions to be timed (50)")
    help_ = "thoughts before a prediction (as many as in training)"
    part.add_argument("--thoughts", type=whole, metavar="K", help=help_)
    help_ = "exit code 1 if the median is above it, with thoughts where the run has any"
    part.add_argument("--target", type=positive, metavar="MS", help=help_)
    part.add_argument("--seed", type=int, default=0, help="seed of thoughts and of the context (0)")
    part.set_defaults(code=lambda given, result: int(result["met"] is False))


def _latency(given: argparse.Namespace) -> Any:
    run = load_run(given.run, given.device, given.seed)
    run.check_one_by_one()
    predictors = _predictors(run, given.thoughts)
    tokens = _tokens(run, 1 + _room(given, predictors))
    found, read = {}, []
    for name, predictor in predictors.items():
        start = time.perf_counter()
        with torch.no_grad():
            cache = memory.read(run.model, tokens[..., :-1])
        read.append(1e3 * (time.perf_counter() - start))
        found[name] = summary(
            [predict(predictor, cache, tokens[..., -1]) for _ in range(WARM + given.tokens)][WARM:]
        )
    (name, last), count = list(found.items())[-1], tokens.shape[-1] - 1
    met = None if given.target is None else last.median <= given.target
    print(
        *_head(run, predictors[name], count, given.tokens),
        "",
        *_table(found),
        "",
        *_parts(name, last),
        sep="\n",
    )
    print(f"\nBefore that, once: {count} token{'s' * (count > 1)} read in {min(read):.1f} ms")
    if met is not None:
        print(f"Target {given.target:g} ms: {'met' if met else 'missed'} by the median, {last.median:.1f} ms")
    return {"context": count, "read": min(read), "met": met, **{x: y._asdict() for x, y in found.items()}}


def _predictors(run: LoadedRun, number: int | None) -> dict[str, Predictor]:
    predictors = {}
    if run.predicts_without_thought:
        predictors["without thoughts"] = run.predictor(thinking=False)
    if run.thinks:
        sizes = run.sizes._replace(number=number or run.sizes.number)
        predictors["with thoughts"] = Predictor(run.model, sizes, seed=run.seed)
    return predictors


def _room(given: argparse.Namespace, predictors: Mapping[str, Predictor]) -> int:
    """Return how many tokens are read before the one after which the prediction is timed.

    Raises:
        Refusal: the model has no room for them.
    """
    rooms = [predictor.room for predictor in predictors.values() if predictor.room is not None]
    most = min(rooms, default=10**9) - 1
    if most < 1:
        raise Refusal(f"{given.run}: has no room for a token after another; give a run of a larger seq_len")
    if given.context is not None and given.context > most:
        raise Refusal(
            f"--context {given.context}: {given.run} has room for {most} tokens before the one that follows "
            "them; give fewer"
        )
    return given.context or min(CONTEXT, most)


def _tokens(run: LoadedRun, count: int) -> Tensor:
    """Return random tokens (1, 1, count) long: the time does not depend on which they are."""
    drawn = torch.randint(
        run.config.task.vocab_size, (1, 1, count), generator=stream(run.seed, "answers/context")
    )
    return drawn.to(next(run.model.parameters()).device)


def _head(run: LoadedRun, predictor: Predictor, count: int, times: int) -> list[str]:
    """Return the lines that say which run it is and what is timed."""
    what = f"after a context of {count} + 1 tokens, of which the last one is read anew"
    if predictor.thinking:
        number, length, *_ = predictor.sizes
        upto = "up to " if run.config.lengths_vary else ""
        what += f", {number} thought{'s' * (number > 1)} of {upto}{length} symbol{'s' * (length != 1)}"
    threads = torch.get_num_threads()
    words = f"One prediction {what}; {times} times, on {threads} thread{'s' * (threads > 1)}"
    return [*heading([run.folder]), *wrapped_line(words)]


def _table(found: Mapping[str, Latency]) -> list[str]:
    rows = [("ms of a prediction", "median", "quartiles", "CPU time")]
    for name, x in found.items():
        low, high = x.quartiles
        rows.append((name, f"{x.median:.2f}", f"{low:.2f} to {high:.2f}", f"{x.cpu:.2f}"))
    return aligned(list(zip(*rows, strict=True)), left=[0])


def _parts(name: str, found: Latency) -> list[str]:
    rows = [(f"{name}, by part", "median", "share", "")]
    for part, median in found.parts.items():
        rows.append((part, f"{median:.2f}", f"{100 * found.shares[part]:.0f} %", PARTS[part]))
    return aligned(list(zip(*rows, strict=True)), left=[0, 3])
