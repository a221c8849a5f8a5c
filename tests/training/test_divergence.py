"""A seed whose loss is no longer a number ends there, and the seeds next to it go on as if it were absent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.training.test_loop import quick
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.training.batches import draw_batches
from toyqs.training.divergence import Divergence, lost_parts
from toyqs.training.evaluation.metrics import Meter
from toyqs.training.loop import train
from toyqs.training.state import TrainState
from toyqs.types import Model

Found = tuple[dict[int, Divergence], list[int], Model]


def trained(seeds: list[int], spoilt: list[int], settings=None) -> Found:
    """Train six steps; after the third, the head of some seeds becomes too large for float32."""
    settings = settings or quick(max_steps=6)
    model, numbers = build_model(settings, seeds), build_training_params(settings)
    steps: list[int] = []

    def spoil(step: int, values: dict[str, Tensor]) -> None:
        steps.append(step)
        if step == 3:
            with torch.no_grad():
                for index in spoilt:
                    model.head.bias[index] = math.inf

    data = draw_batches(settings.task, seeds, numbers, next(model.parameters()))
    return train(model, build_objective(settings), data, numbers, spoil), steps, model


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd"}, {"optimizer": "muon_grokfast"}, {"optimizer": "adam", "reasoner_lr": 0.5}],
)
def test_a_seed_ends_at_its_first_loss_that_is_not_finite_and_changes_no_other(changes):
    settings = quick(max_steps=6, weight_decay=0.1, **changes)
    diverged, steps, model = trained([4, 5, 6], [1], settings)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert {index: (end.step, end.parts) for index, end in diverged.items()} == {1: (4, "nll, policy")}
    assert not math.isfinite(diverged[1].largest_logit)
    without = trained([4, 6], [], settings)[2]
    for (name, ours), other in zip(model.named_parameters(), without.parameters(), strict=True):
        assert ours[1].isnan().all(), name
        assert torch.equal(ours[[0, 2]], other), name


@pytest.mark.parametrize("changes", [{}, {"think_at": "hard"}, {"grad_acc": 3}, {"use_reasoner": False}])
def test_the_training_ends_once_no_seed_is_left(changes):
    diverged, steps, _ = trained([4, 5], [0, 1], quick(max_steps=6, **changes))
    assert steps == [1, 2, 3, 4] and [end.step for end in diverged.values()] == [4, 4]


def test_the_largest_logit_of_a_loss_that_is_not_finite_is_a_number_where_it_has_one():
    settings = quick(max_steps=6, use_reasoner=False)
    model, numbers = build_model(settings, [5]), build_training_params(settings)
    with torch.no_grad():
        model.head.bias[0, ..., 0] = 3e38
    batches = draw_batches(settings.task, [5], numbers, next(model.parameters()))
    data = (
        batch._replace(counted=batch.counted._replace(weights=batch.counted.weights * 1e38))
        for batch in batches
    )
    diverged = train(model, build_objective(settings), data, numbers, lambda step, values: None)
    assert diverged[0].parts == "nll" and diverged[0].largest_logit == pytest.approx(3e38)


def test_parts_without_weight_and_meters_do_not_count():
    nan, one = torch.tensor([math.nan, 1.0]), torch.ones(2)
    values = {"nll": one, "policy": nan, "entropy": nan, "reward": nan}
    assert lost_parts(values, {"nll": 1.0, "policy": 0.0, "length": 1.0}) == {}
    assert lost_parts(values, {"nll": 1.0, "policy": 0.5, "entropy": 1.0}) == {0: "policy, entropy"}
    assert lost_parts({"nll": one / 0}, {"nll": 1.0}) == {0: "nll", 1: "nll"}


def test_a_checkpoint_remembers_which_seed_has_ended():
    model = build_model(quick(), [4, 5])
    state = TrainState(model, {}, None)
    state.stop(1, Divergence(4, "nll", 2.5))
    parts = [state.seed_state(index) for index in range(2)]
    again = TrainState(build_model(quick(), [4, 5]), {}, None)
    again.restore(parts)
    assert again.diverged == {1: Divergence(4, "nll", 2.5)} and not again.all_diverged
    alone = TrainState(build_model(quick(), [5]), {}, None)
    alone.restore(parts[1:])
    assert alone.all_diverged


def test_no_metric_is_given_where_the_loss_is_not_finite():
    meter, weights = Meter(), torch.ones(2, 3, 1)
    for name, values in {"nll": [1.0, math.inf], "accuracy": [0.5, 0.25]}.items():
        meter.add(name, torch.tensor(values).view(2, 1, 1).expand(2, 3, 1), weights)
    assert meter.means({})["accuracy"].tolist()[0] == 0.5
    assert meter.means({})["accuracy"].isnan().tolist() == [False, True]
