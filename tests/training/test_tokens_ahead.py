"""Several tokens ahead through the whole house: what predictions know, evaluation, training, the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import tiny
from tests.objectives.test_ahead import BACKBONES, MODES, STARTS, config, everywhere
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.objectives import rewards
from toyqs.positions import thinking_positions
from toyqs.rng import ThoughtSizes
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.training.batches import draw_batches, prepare
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.loop import accumulate
from toyqs.types import Batch, Trace


@pytest.mark.parametrize("ahead", MODES)
@STARTS
@BACKBONES
def test_a_prediction_knows_the_tokens_up_to_its_own(start: str, ahead: str) -> None:
    """Check that the thought at t depends on x_≤t, and the prediction of the token after t + j on x_≤t+j."""
    settings = config(3, interpreter_start=start, ahead=ahead, mixing="gate")
    model, batch, _ = tiny.sampled(settings)
    noise = tiny.noise((1, 3, 4, 2, 2))
    before = model(batch.inputs, None, noise)
    for later in (1, 2, 3):
        changed = batch.inputs.clone()
        changed[:, :, later] = (changed[:, :, later] + 1) % tiny.SYMBOLS
        after = model(changed, None, noise)
        assert torch.equal(before.log_prob[:, :, :later], after.log_prob[:, :, :later])
        for t in range(4):
            for j in range(min(3, 4 - t)):
                same = torch.equal(before.logits[:, :, t, :, j], after.logits[:, :, t, :, j])
                assert same == (t + j < later), (t, j)


@pytest.mark.parametrize("extra", [{"use_base_lm": False}, {}, {"mixing": "gate"}, {"max_reasoning_len": 0}])
@BACKBONES
def test_the_first_token_is_measured_as_if_it_were_alone(extra: dict[str, Any]) -> None:
    ahead = "continue" if "use_base_lm" in extra else "persist"
    one, three = config(1, **extra), config(3, ahead=ahead, **extra)
    models, batch, found = [tiny.model(one), tiny.model(three)], everywhere(5), []
    tiny.lend(models[1], models[0])
    for settings, model in zip((one, three), models, strict=True):
        with torch.no_grad():
            found.append(evaluate(model, batch, [0], ThoughtSizes(3, settings.max_reasoning_len), full=True))
    alone, first = found
    last = first.pop("nll_ahead")
    assert alone.keys() == first.keys()
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-12, msg=name)
    assert bool((last > 0).all()) and bool((last != first["nll"]).all())


def test_nll_ahead_is_the_mean_over_all_tokens() -> None:
    settings, batch = config(3, max_reasoning_len=0), everywhere(5)
    model = tiny.model(settings)
    with torch.no_grad():
        found = evaluate(model, batch, [0], ThoughtSizes(1, 0), full=False)["nll_ahead"]
        trace = model(batch.inputs, None, torch.empty(1, 5, 4, 1, 0))
    total = count = 0.0
    for b in range(5):
        for t in range(4):
            for place in range(t, min(t + 3, 4)):
                if batch.weights[0, b, place] > 0:
                    log_p = trace.logits[0, b, t, 0, place - t].log_softmax(-1)
                    weight = float(batch.weights[0, b, t])
                    total -= weight * float(log_p[batch.targets[0, b, place]])
                    count += weight
    assert float(found[0]) == pytest.approx(total / count, abs=1e-12)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_the_whole_batchs(parts: int) -> None:
    critic = {"baseline": "value", "value_sees": "base_prediction"}
    settings = config(3, ahead_decay=0.9, teacher_forcing_weight=0.5, ahead="continue", **critic)
    model, batch, noise = tiny.sampled(settings, size=4, copies=2)
    drawn, found = prepare(batch, noise, 3), []
    for grad_acc in (1, parts):
        model.zero_grad()
        numbers = replace(build_training_params(settings), grad_acc=grad_acc)
        weights = {"nll": 1.0, "policy": 0.7, "entropy": 0.3, "critic": 0.9}
        accumulate(model, build_objective(settings), drawn, weights, numbers, torch.zeros(2).double())
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    tiny.close(found[1], found[0], tolerance=1e-12)
    assert bool(found[0]["critic.outer.bias"].view(2, 3, -1).any(-1).all()), "a token without a correction"


def test_an_oracle_is_asked_at_each_token() -> None:
    task = HiddenMarkov(positions=5, vocab=4)
    settings = config(2, task=task, reward="log_ratio", reference="oracle", trice_samples=3)
    numbers = build_training_params(settings)
    drawn = next(draw_batches(task, [3], numbers, torch.zeros(1, dtype=torch.float64)))
    whole = task.oracle(drawn.inputs)
    ahead = drawn.counted.ahead
    assert ahead.oracle.shape == (1, 4, 5, 2, 4)
    assert torch.equal(ahead.oracle[:, :, :, 0], whole)
    assert torch.equal(ahead.oracle[:, :, :-1, 1], whole[:, :, 1:])
    model, seen = tiny.model(settings), []

    def watching(trace: Trace, batch: Batch) -> Any:
        seen.append(trace.reference_log_probs)
        return build_objective(settings)(trace, batch)

    weights = {name: 1.0 for name in numbers.weights}
    accumulate(model, watching, drawn, weights, numbers, torch.zeros(1).double())
    assert torch.equal(seen[0], ahead.oracle)


def test_one_token_carries_nothing_extra() -> None:
    settings = config(1)
    model, batch, noise = tiny.sampled(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    assert context.ahead is None and context.following is None
    assert prepare(batch, noise).counted.ahead is None
    assert rewards.discounted(batch, 0.5, 0.5) is batch
