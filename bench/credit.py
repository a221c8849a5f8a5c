"""Noise of the policy's gradient with credit for each symbol, over that with the outcome's, on real models.

    python bench/credit.py -o credit.csv

Both have one expectation (tests/objectives/test_credit.py). Their noise is measured on models of the main
job's task, as they begin and as they end. On one batch of 64 sequences thoughts are drawn again and again;
both estimates of the policy's gradient are made of the same thoughts, without an advantage scale, and the
variance over the draws is added up over all parameters. Below 1 credit=prefix is the less noisy.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, check_file, path_of, run, whole, writing
from toyqs.config.builders.kernels import settled
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params, objective_of
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.judging.gain import interval
from toyqs.files import write_text
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import stream, thought_noise
from toyqs.training.batches import TrainingBatch, draw_batches
from toyqs.training.loop import accumulate, train

# Name -> settings beside the main job's. Where it says so the predictions with prefixes are trained too.
MODELS: dict[str, dict[str, Any]] = {
    "three symbols": {},
    "three symbols, prefixes trained": {"prefix_nll_beta": 0.5},
    "six symbols": {"max_reasoning_len": 6},
    "six symbols, prefixes trained": {"max_reasoning_len": 6, "prefix_nll_beta": 0.5},
    "three Gaussian symbols": {"thoughts": "gaussian"},
    "three symbols, read onward": {"interpreter_start": "onward"},
}
BASELINES = ("leave_one_out", "none")
COLUMNS = ("model", "baseline", "trained", "seed", "ratio", "signal")


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and write it, one row for each seed; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=path_of, default=Path("credit.csv"), help="where the rows go (credit.csv)")
    parser.add_argument("--draws", type=whole, default=64, help="draws of the thoughts of a batch (64)")
    parser.add_argument("--seeds", type=whole, default=4, help="seeds of each model (4)")
    parser.add_argument("--steps", type=whole, default=450, help="steps of its training (450)")
    return run(_measure, parser, words)


def _measure(given: argparse.Namespace) -> None:
    check_file(given.o)
    torch.set_num_threads(1)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    print(f"{'variance with credit=prefix over credit=outcome':54}{'as it begins':>22}{'trained':>22}")
    for name, changes in MODELS.items():
        rows = measured(name, changes, range(given.seeds), given.steps, given.draws)
        table.writerows(rows)
        for baseline in BASELINES:
            words = [_words(row["ratio"] for row in rows if _is(row, baseline, done)) for done in (0, 1)]
            print(f"{name:36}{baseline:18}{words[0]:>22}{words[1]:>22}")
    print("geometric means and 95 % intervals over seeds")
    with writing(given.o):
        write_text(given.o, text.getvalue())
    print(f"\nrows   {given.o}")


def _is(row: dict[str, Any], baseline: str, trained: int) -> bool:
    return row["baseline"] == baseline and row["trained"] == trained


def _words(ratios: Any) -> str:
    """Return the geometric mean of ratios, and its interval where there are several."""
    found = interval(math.log(ratio) for ratio in ratios)
    mean, low, high = (f"{math.exp(x):.2g}" for x in (found.mean, found.lower, found.upper))
    return f"{mean} ({low} to {high})"


def measured(
    name: str, changes: dict[str, Any], seeds: Sequence[int], steps: int, draws: int
) -> list[dict[str, Any]]:
    """Measure a model's seeds as they begin, and after a training with credit=outcome."""
    (config,), _ = settled([resolved(RunConfig(max_steps=steps, **changes))])
    params, model = build_training_params(config), build_model(config, seeds)
    like = next(model.parameters())
    batch = next(draw_batches(config.task, [10**6], params, like))
    rows = []
    for trained in (0, 1):
        if trained:
            data = draw_batches(config.task, seeds, params, like)
            train(model, build_objective(config), data, params, lambda step, values: None)
        for index, seed in enumerate(seeds):
            weights = {name: p.detach()[index : index + 1].clone() for name, p in model.named_parameters()}
            for baseline in BASELINES:
                numbers = compared(config, weights, batch, baseline, draws)
                rows.append(dict(zip(COLUMNS, (name, baseline, trained, seed, *numbers), strict=True)))
    return rows


def compared(
    config: RunConfig, weights: dict[str, Tensor], batch: TrainingBatch, baseline: str, draws: int
) -> tuple[float, float]:
    """Return the ratio of variances; and the squared length of the mean gradient over the outcome's variance.

    Args:
        config: of the model.
        weights: name -> (1, ...).
        batch: of one seed, whose thoughts are drawn again and again.
        baseline: of both estimates.
        draws: their number; each is the seed of a copy of the model.
    """
    found = []
    for credit in ("outcome", "prefix"):
        settings = replace(config, credit=credit, baseline=baseline, advantage_scale="none")
        each = gradients(settings, weights, batch, draws)
        found.append((each.mean(0), each.var(0).sum()))
    (mean, outcome), (_, prefix) = found
    return float(prefix / outcome), float(mean.square().sum() / outcome)


def gradients(config: RunConfig, weights: dict[str, Tensor], batch: TrainingBatch, draws: int) -> Tensor:
    """Compute the policy's gradient from each of several draws of a batch's thoughts, (draws, parameters)."""
    params, model = build_training_params(config), build_model(config, [0] * draws)
    _take(model, weights)
    copies = TrainingBatch(*(_repeated(x, draws) for x in batch))
    noise = thought_noise(
        [stream(draw, "draws") for draw in range(draws)], copies.counted.think, params.thoughts
    )
    parts = dict.fromkeys(params.weights, 0.0) | {"policy": 1.0}
    running = torch.zeros(draws)
    accumulate(model, objective_of(config), copies._replace(noise=noise.to(running)), parts, params, running)
    return torch.cat([p.grad.flatten(1) for p in model.parameters() if p.grad is not None], 1).double()


def _take(model: LatentReasoner, weights: dict[str, Tensor]) -> None:
    """Give every copy of a model the same weights."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name].expand_as(parameter))


def _repeated(field: Any, copies: int) -> Any:
    """Return the fields of a batch for every copy."""
    if isinstance(field, tuple):
        return type(field)(*(_repeated(part, copies) for part in field))
    return field.expand(copies, *field.shape[1:]) if isinstance(field, Tensor) else field


if __name__ == "__main__":
    sys.exit(main())
