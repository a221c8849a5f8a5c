"""nll_joint: exact over all thoughts, estimated from K of them, of plain models; and what it is of others."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.objectives.test_joint import config
from toyqs.config.builders.training import thought_sizes
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.positions import thinking_positions
from toyqs.rng import stream, thought_noise
from toyqs.training.evaluation import joint
from toyqs.training.evaluation.metrics import evaluate
from toyqs.types import Batch

SIZE, SEED = 5, 4


def ready(**changes: Any) -> tuple[RunConfig, LatentReasoner, Batch]:
    settings = config(3, trice_samples=3, **changes)
    return settings, tiny.model(settings), tiny.batch(SIZE)


def measured(settings: RunConfig, model: LatentReasoner, batch: Batch, full: bool = True) -> dict[str, float]:
    with torch.no_grad():
        found = evaluate(model, batch, [SEED], thought_sizes(settings), full=full)
    return {name: float(value[0]) for name, value in found.items()}


def positions(batch: Batch) -> list[tuple[int, int, int]]:
    """Return sequence, thinking position and its place among the tokens."""
    return [(b, t, int(batch.think[0, b].nonzero()[t, 0])) for b, t in product(range(SIZE), range(2))]


def mean(batch: Batch, values: dict[tuple[int, int, int], Tensor]) -> float:
    weights = [float(batch.weights[0, b, at]) for b, _, at in values]
    return sum(w * float(x) for w, x in zip(weights, values.values(), strict=True)) / sum(weights)


def scored(
    settings: RunConfig, model: LatentReasoner, batch: Batch, b: int, at: int, symbols: Tensor
) -> tuple[Tensor, Tensor]:
    """Return log π of thoughts (H, L) and Σ_j log q(y_j | h), by the plain reference, token by token."""
    read, log_q = batch.inputs[0, b, : at + 1], torch.zeros(len(symbols)).double()
    for place in range(at, min(at + 3, 4)):
        plain = reference.predict(model, settings, read, symbols, place=place - at)
        log_q = log_q + plain.log_q[:, batch.targets[0, b, place]]
    return plain.log_prob.sum(-1), log_q


@pytest.mark.parametrize(
    "changes", [{}, {"mixing": "logits"}, {"interpreter_start": "onward"}, {"random_thoughts": True}]
)
def test_the_sum_over_all_thoughts(changes: dict[str, Any]) -> None:
    settings, model, batch = ready(**changes)
    found, exact, shuffled = measured(settings, model, batch), {}, {}
    with torch.no_grad():
        if "random_thoughts" in changes:
            forced = tiny.THOUGHTS.expand(1, SIZE, 2, 9, 2)
            uniform = model(batch.inputs, thinking_positions(batch), torch.empty(0), forced).log_prob.sum(-1)
            torch.testing.assert_close(uniform, torch.full_like(uniform, -math.log(9)), rtol=0, atol=1e-12)
            return
        for b, t, at in positions(batch):
            log_prob, log_q = scored(settings, model, batch, b, at, tiny.THOUGHTS)
            exact[b, t, at] = -(log_prob + log_q).logsumexp(0)
            other = int(batch.think[0, b - 1].nonzero()[t, 0])
            theirs = scored(settings, model, batch, (b - 1) % SIZE, other, tiny.THOUGHTS)[0]
            shuffled[b, t, at] = -(theirs + log_q).logsumexp(0)
    assert found["nll_joint"] == pytest.approx(mean(batch, exact), abs=1e-12)
    assert found["nll_joint_shuffled"] == pytest.approx(mean(batch, shuffled), abs=1e-12)
    assert found["joint_samples"] == 0
    assert found["nll_joint"] == measured(settings, model, batch, full=False)["nll_joint"]


def test_an_estimate_from_the_thoughts_that_were_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "MOST_SUMMED", 8)  # of nine
    settings, model, batch = ready()
    found, estimated, shuffled = measured(settings, model, batch), {}, {}
    with torch.no_grad():
        noise = thought_noise([stream(SEED, "evaluation noise")], batch.think, thought_sizes(settings))
        drawn = model.think(model.read(batch.inputs, thinking_positions(batch)), noise).symbols[0]
        for b, t, at in positions(batch):
            for values, there in ((estimated, b), (shuffled, b - 1)):
                log_q = scored(settings, model, batch, b, at, drawn[there, t])[1]
                values[b, t, at] = math.log(3) - log_q.logsumexp(0)
    assert found["joint_samples"] == 3
    assert found["nll_joint"] == pytest.approx(mean(batch, estimated), abs=1e-12)
    assert found["nll_joint_shuffled"] == pytest.approx(mean(batch, shuffled), abs=1e-12)


def test_the_estimate_is_too_high_and_comes_closer_with_more_thoughts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, model, batch = ready()
    exact, estimates = measured(settings, model, batch)["nll_joint"], []
    monkeypatch.setattr(joint, "MOST_SUMMED", 8)
    for number in (1, 4, 64):
        sizes = thought_sizes(settings)._replace(number=number)
        with torch.no_grad():
            found = evaluate(model, tiny.batch(400), [SEED], sizes, full=False)
            whole = evaluate(model, tiny.batch(400), [SEED], sizes, full=False)
        assert float(found["joint_samples"][0]) == number and torch.equal(found["nll"], whole["nll"])
        estimates.append(float(found["nll_joint"][0]))
    assert estimates[0] > estimates[1] > estimates[2] and exact > 0


@pytest.mark.parametrize("changes", [{"use_reasoner": False}, {"max_reasoning_len": 0}])
def test_without_thoughts_it_is_the_sum_over_the_tokens(changes: dict[str, Any]) -> None:
    settings, model, batch = ready(**changes)
    found, sizes = measured(settings, model, batch), thought_sizes(settings)
    with torch.no_grad():
        logits = model(batch.inputs, thinking_positions(batch), torch.empty(1, SIZE, 2, 1, 0)).logits
    log_q = logits.log_softmax(-1)[0, :, :, 0]
    wanted = {}
    for b, t, at in positions(batch):
        last = min(at + 3, 4)
        wanted[b, t, at] = -sum(log_q[b, t, p - at, batch.targets[0, b, p]] for p in range(at, last))
    assert found["nll_joint"] == pytest.approx(mean(batch, wanted), abs=1e-12)
    assert found["joint_samples"] == 0 and "nll_joint_shuffled" not in found and sizes.number == 1


KINDS = {
    "gaussian": ({"thoughts": "gaussian"}, 3),
    "deterministic": ({"thoughts": "deterministic", "objective": "pathwise"}, 0),
    "gumbel": ({"thoughts": "gumbel", "objective": "pathwise"}, 3),
    "ends": ({"variable_len": True}, 3),
    "tokens": ({}, 0),
    "one symbol": ({"thought_vocab": 1, "policy_loss_beta": 0.0}, 0),
    "many symbols": ({"thought_vocab": 17}, 3),  # 17² = 289
    "just not too many": ({"thought_vocab": 16}, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_which_losses_are_summed_and_which_estimated(kind: str) -> None:
    changes, samples = KINDS[kind]
    settings, model, batch = ready(**changes)
    found = measured(settings, model, batch)
    assert found["joint_samples"] == samples
    assert all(math.isfinite(found[name]) for name in ("nll_joint", "nll_joint_shuffled"))


def test_no_thought_is_measured_over_all_tokens() -> None:
    settings, model, batch = ready()
    with torch.no_grad():
        context = model.read(batch.inputs, thinking_positions(batch))
        log_q = model.talk(context, None).logits.log_softmax(-1)[0, :, :, 0]
    wanted = {}
    for b, t, at in positions(batch):
        last = min(at + 3, 4)
        wanted[b, t, at] = -sum(log_q[b, t, p - at, batch.targets[0, b, p]] for p in range(at, last))
    found = measured(settings, model, batch)["nll_joint_no_thought"]
    assert found == pytest.approx(mean(batch, wanted), abs=1e-12)


def unweighed(model: Any, context: Any, batch: Any, every: Any, at_once: int) -> tuple[Tensor, Tensor]:
    log_prob, log_q = right(model, context, batch, every, at_once)
    return torch.full_like(log_prob, -math.log(log_prob.shape[-1])), log_q


right = joint._scored


def test_a_sum_that_forgets_the_policy_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "_scored", unweighed)
    with pytest.raises(AssertionError):
        test_the_sum_over_all_thoughts({})
