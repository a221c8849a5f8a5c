"""Right thoughts in the first steps: the loss by hand, and which sequences have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.controls.arms import run
from tests.training.test_loop import quick
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import Training
from toyqs.objectives import losses
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import GoldSizes
from toyqs.training import batches
from toyqs.training.batches import at_step, draw_batches, prepare
from toyqs.training.loop import accumulate

PROGRAMS = {"task": RevProg(p=5, m=2, k=2, queries=2), "thought_vocab": 5, "warm_start": 4}


@dataclass
class Told(tiny.Toy):
    """The toy task, whose right thoughts are two symbols: of the token before a position, and of its own."""

    def gold(self, inputs: Tensor) -> Tensor:
        return torch.stack([inputs.roll(1, -1), inputs], -1)

    def gold_sizes(self) -> GoldSizes:
        return GoldSizes(tiny.SYMBOLS, tiny.LENGTH, tiny.LENGTH)


def told(**changes: Any) -> RunConfig:
    return run(**{"task": Told(), "thought_vocab": None, "warm_start": 4} | changes)


def two_sequences(settings: RunConfig, copies: int = 1) -> batches.TrainingBatch:
    """Make a batch whose first sequence has right thoughts; of the second one position counts."""
    one = tiny.one_position()
    weights = one.weights.clone()
    weights[0, 0] = torch.tensor([0.9, 0.4, 1.1, 0.6])
    gold = settings.task.gold(one.inputs)
    gold[0, 1] = -1
    many = tiny.repeated(one._replace(weights=weights), copies)._replace(gold=gold.expand(copies, -1, -1, -1))
    noise = torch.zeros(copies, 2, 2, settings.trice_samples, settings.max_reasoning_len).double()
    return prepare(many, noise)


def step_of(settings: RunConfig, built: torch.nn.Module, batch: batches.TrainingBatch) -> dict[str, Tensor]:
    """Return the gradients (S, ...) of one step, all parts of the loss as they are weighted."""
    params = build_training_params(settings)
    weights = {name: weight.at(0.0) for name, weight in params.weights.items()}
    for parameter in built.parameters():
        parameter.grad = torch.zeros_like(parameter)
    accumulate(built, build_objective(settings), batch, weights, params, torch.zeros(1).double())
    return {name: parameter.grad for name, parameter in built.named_parameters()}


def by_hand(settings: RunConfig, built: torch.nn.Module, batch: batches.TrainingBatch) -> Tensor:
    """Compute Σ w (−log q(y | gold) − log π(gold | x)) over the first sequence, by the reference."""
    total = torch.zeros((), dtype=torch.float64)
    for place, position in enumerate(batch.positions[0, 0].tolist()):
        gold = batch.counted.gold[0, 0, place].unsqueeze(0)
        found = reference.predict(built, settings, batch.inputs[0, 0, : position + 1], gold)
        target = batch.counted.targets[0, 0, place]
        loss = -found.log_q[0, target] - found.log_prob.sum()
        total = total + batch.counted.weights[0, 0, place] * loss
    return total


def check_expected_step(**changes: Any) -> None:
    """Check the gradient of one step, in expectation over all pairs of thoughts where some are sampled."""
    settings = told(**changes)
    pairs = torch.cartesian_prod(*[torch.arange(len(tiny.THOUGHTS))] * 2)
    built = tiny.model(settings, len(pairs))
    batch = two_sequences(settings, len(pairs))
    forced = tiny.forced_everywhere(tiny.THOUGHTS[pairs])
    grads = step_of(settings, built, batch._replace(forced=forced))
    truth = tiny.exact(settings)
    probability = truth.log_prob.sum(-1).detach().exp()[pairs].prod(-1)
    got = {name: torch.einsum("s,s...->...", probability, grad) for name, grad in grads.items()}
    weight = batch.counted.weights[0, 1].sum()
    sampled = -weight * (truth.probability * truth.log_q).sum()
    total = (by_hand(settings, truth.built, batch) + sampled) / batch.counted.weights[0].sum()
    tiny.close(got, truth.gradient(total))


@pytest.mark.parametrize("changes", [{}, {"weight_groups": "AAAA", "interpreter_start": "onward"}])
def test_a_step_expects_the_loss_by_hand(changes: dict[str, Any]) -> None:
    check_expected_step(**changes)


def times_k(trace: Any, batch: Any) -> Tensor:
    return 2 * losses.position_mean(-trace.gold_log_prob, batch.weights)


def of_the_sampled(batch: batches.TrainingBatch) -> list[batches.TrainingBatch]:
    """Give the right thoughts to the wrong sequences."""
    parts = RIGHT(batch)
    first, second = parts[0].counted, parts[1].counted
    return [
        parts[1]._replace(counted=second._replace(gold=first.gold)),
        parts[0]._replace(counted=first._replace(gold=None)),
    ]


RIGHT = batches._gold_apart


@pytest.mark.parametrize("mutant", ["once for each thought", "the wrong sequences", "no policy"])
def test_mutants_are_caught(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    from toyqs.config.builders import training

    if mutant == "the wrong sequences":
        monkeypatch.setattr(batches, "_gold_apart", of_the_sampled)
    elif mutant == "once for each thought":
        monkeypatch.setattr(training, "gold_nll", times_k)
    else:
        monkeypatch.setattr(training, "gold_nll", lambda trace, batch: losses.gold_nll(trace, batch).detach())
    with pytest.raises(AssertionError, match="off by"):
        check_expected_step()


@pytest.mark.parametrize("count", [3, 5])
def test_a_right_thought_counts_once_whatever_the_number_of_thoughts(count: int) -> None:
    found = []
    for settings in (told(), told(trice_samples=count)):
        batch = two_sequences(settings)
        batch.counted.weights[0, 1] = 0.0  # of the sampled thoughts nothing counts
        found.append(step_of(settings, tiny.model(settings), batch))
    assert max(float(x.abs().max()) for x in found[0].values()) > 1e-3
    tiny.close(*found, 1e-12)


def test_the_share_falls_linearly_to_none() -> None:
    params = build_training_params(
        quick(warm_start=4, max_steps=10, task=RevProg(k=2), data_loader_batch_size=8)
    )
    assert [params.gold_at(step) for step in range(6)] == [8, 6, 4, 2, 0, 0]
    halves = replace(params, grad_acc=2)
    assert [halves.gold_at(step) for step in range(6)] == [4, 3, 2, 1, 0, 0]
    assert replace(params, warm_start=0).gold_at(0) == 0


def test_the_first_sequences_of_each_micro_batch_have_the_tasks_steps() -> None:
    settings = quick(**PROGRAMS, max_steps=40, data_loader_batch_size=8, grad_acc=2)
    params = build_training_params(settings)
    drawn = draw_batches(settings.task, [3, 4], params, torch.zeros(1))
    for step in range(36):
        batch, number = at_step(next(drawn), params, step), params.gold_at(step)
        gold = batch.counted.gold
        assert (gold is None) == (number == 0) == (step >= 4)
        if gold is None:
            continue
        has = torch.tensor([i % 4 < number for i in range(8)])
        wanted = settings.task.gold(batch.inputs)[:, :, 2:]
        assert torch.equal(gold[:, has], wanted[:, has]) and (gold[:, ~has] == -1).all()
        parts = [part for part, _ in batches.micro_batches(batch, 2)]
        sizes = [size for size in (number, 4 - number) if size] * 2
        assert [part.inputs.shape[1] for part in parts] == sizes


def test_rewards_are_of_the_sampled_positions_and_nothing_of_the_warm_start_lasts() -> None:
    settings = quick(**PROGRAMS, baseline="ema", max_steps=9, dtype="float64")
    seen: list[dict[str, Tensor]] = []
    training = Training(settings, [3])
    training.run(lambda step, values: seen.append(values), None)
    assert ["gold" in values for values in seen] == [True] * 4 + [False] * 5
    assert ["reward" in values for values in seen] == [False] + [True] * 8
    worst = max(float(values["reward"].abs().max()) for values in seen[1:])
    least = min(float(values["reward"].abs().min()) for values in seen[1:])
    assert least > worst / 3, "means of log q over the positions that have one, not shares of it"
