"""Held-out metrics against naive loops over the plain reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import thought_sizes
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.positions import focus, thinking_positions
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.training.evaluation.information import information
from toyqs.training.evaluation.metrics import evaluate
from toyqs.types import Batch

SIZE, THOUGHTS = 5, 3
LANGUAGE = {"symbol_zipf", "distinct_thoughts", "homogeneity", "completeness"}
SEEDS = [4, 9]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def ready(**changes: Any) -> tuple[RunConfig, LatentReasoner, Batch]:
    settings = tiny.config(trice_samples=THOUGHTS, **changes)
    return settings, tiny.model(settings, len(SEEDS)), tiny.batch(SIZE, copies=len(SEEDS))


def measured(
    settings: RunConfig, model: LatentReasoner, held_out: Batch, full: bool = True, **more: int
) -> dict[str, Tensor]:
    return evaluate(model, held_out, SEEDS, thought_sizes(settings), full=full, **more)


def thoughts_of(model: LatentReasoner, batch: Batch, start: int = 0, stop: int = SIZE) -> Tensor:
    """Return the symbols (S, B, T, K, L) that evaluation samples in its first chunk."""
    part = Batch(*(x[:, start:stop] for x in batch[:4]))
    sizes = ThoughtSizes(THOUGHTS, tiny.LENGTH)
    noise = thought_noise([stream(s, "evaluation noise") for s in SEEDS], part.think, sizes)
    return model.think(model.read(part.inputs, thinking_positions(part)), noise).symbols


class Naive:
    """Return all that the reference computes for one thought at one position."""

    def __init__(self, settings: RunConfig, model: LatentReasoner, batch: Batch) -> None:
        self.settings, self.model, self.batch = settings, model, batch

    def predict(self, b: int, t: int, symbols: Tensor) -> tuple[reference.Prediction, int, float]:
        """Return prediction, target and weight at sequence b, thinking position t, for any seed."""
        at = int(self.batch.think[0, b].nonzero()[t, 0])
        plain = reference.predict(self.model, self.settings, self.batch.inputs[0, b, : at + 1], symbols)
        return plain, int(self.batch.targets[0, b, at]), float(self.batch.weights[0, b, at])

    def mean(self, value: Any) -> float:
        """Return the weighted mean over sequences and positions of value(b, t)."""
        total = weight = 0.0
        for b in range(SIZE):
            for t in range(2):
                share = self.predict(b, t, tiny.THOUGHTS[:1])[2]
                total, weight = total + share * value(b, t), weight + share
        return total / weight

    def nll(self, symbols: Any) -> float:
        """Return the mean over the thoughts symbols(b, t) (K, L)."""

        def value(b: int, t: int) -> float:
            plain, target, _ = self.predict(b, t, symbols(b, t))
            return float(-plain.log_q[:, target].mean())

        return self.mean(value)


@pytest.mark.parametrize("start", tiny.STARTS)
def test_every_metric_against_a_naive_loop(start: str) -> None:
    settings, model, batch = ready(interpreter_start=start, mixing="gate")
    got, drawn = measured(settings, model, batch), thoughts_of(model, batch)
    for s in range(len(SEEDS)):  # both seeds hold the same weights; their noise differs
        own, naive = drawn[s], Naive(settings, model, batch)
        wanted = {
            "nll": naive.nll(lambda b, t, own=own: own[b, t]),
            "nll_shuffled": naive.nll(lambda b, t, own=own: own[b - 1, t]),
            "nll_constant": naive.nll(lambda b, t, own=own: own[0, 0, :1]),
        }

        def marginal(b: int, t: int, own: Tensor = own, naive: Naive = naive) -> float:
            plain, target, _ = naive.predict(b, t, own[b, t])
            return -math.log(sum(math.exp(x) for x in plain.log_q[:, target].tolist()) / THOUGHTS)

        def accuracy(b: int, t: int, own: Tensor = own, naive: Naive = naive) -> float:
            plain, target, _ = naive.predict(b, t, own[b, t])
            return sum(int(row.argmax()) == target for row in plain.log_q) / THOUGHTS

        def passes(b: int, t: int, own: Tensor = own, naive: Naive = naive) -> float:
            plain, target, _ = naive.predict(b, t, own[b, t])
            return float(any(int(row.argmax()) == target for row in plain.log_q))

        def entropy(b: int, t: int, own: Tensor = own, naive: Naive = naive) -> float:
            return float(naive.predict(b, t, own[b, t])[0].entropy.sum(-1).mean())

        wanted |= {"nll_marginal": naive.mean(marginal), "accuracy": naive.mean(accuracy)}
        wanted |= {"thought_entropy": naive.mean(entropy), "pass_at_k": naive.mean(passes)}
        wanted["marginal_gap"] = wanted["nll"] - wanted["nll_marginal"]
        for name, value in wanted.items():
            assert float(got[name][s]) == pytest.approx(value, abs=1e-12), name
    assert bool((got["nll_marginal"] < got["nll"]).all()), "Jensen"
    assert bool((got["gate"] > 0).all()) and bool((got["gate"] < 1).all())
    assert float((got["nll_shuffled"] - got["nll"]).abs().max()) > 1e-4
    assert got["nll"].dtype == torch.float64


def test_the_prediction_without_a_thought() -> None:
    settings, model, batch = ready(mixing="concat")
    base = model.read(batch.inputs, thinking_positions(batch)).base[0]
    log_q = torch.log_softmax(base @ model.head.weight_0[0] + model.head.bias[0], -1)
    naive = Naive(settings, model, batch)

    def value(b: int, t: int) -> float:
        return -float(log_q[b, t, naive.predict(b, t, tiny.THOUGHTS[:1])[1]])

    assert float(measured(settings, model, batch)["nll_no_thought"][0]) == pytest.approx(
        naive.mean(value), abs=1e-12
    )


def test_what_is_reported_where() -> None:
    always = {"nll", "accuracy"}
    cheap = {"nll_marginal", "marginal_gap", "pass_at_k", "thought_entropy", *LANGUAGE}
    cheap |= DENSE
    thinking = cheap | {"nll_shuffled", "nll_constant"}
    for changes, wanted in (
        ({}, always | thinking | {"nll_no_thought"}),
        ({"mixing": "gate"}, always | thinking | {"nll_no_thought", "gate"}),
        ({"use_base_lm": False}, always | thinking),
        ({"max_reasoning_len": 0}, always | {"nll_no_thought"}),
        ({"use_reasoner": False}, always),
    ):
        assert measured(*ready(**changes)).keys() == wanted
    assert measured(*ready(), full=False).keys() == always | cheap


DENSE = {"information", "information_shuffled"}
PATH = {"objective": "pathwise"}


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"thoughts": "gaussian"}, LANGUAGE),
        ({"thoughts": "state", **PATH}, LANGUAGE),
        ({"thoughts": "gumbel", **PATH}, DENSE),
        ({"thoughts": "deterministic", **PATH}, DENSE | LANGUAGE | {"thought_entropy"}),
    ],
    ids=lambda x: x.get("thoughts") if isinstance(x, dict) else "",
)
@pytest.mark.parametrize("start", tiny.STARTS)
def test_what_is_reported_of_other_symbols(changes: dict[str, str], lacking: set[str], start: str) -> None:
    """Check that metrics that need a density or a distribution are absent without one."""
    settings, model, batch = ready(interpreter_start=start, **changes)
    got, tokens = measured(settings, model, batch), measured(*ready(interpreter_start=start))
    assert got.keys() == tokens.keys() - lacking
    positions, sizes = thinking_positions(batch), thought_sizes(settings)
    noise = thought_noise([stream(s, "evaluation noise") for s in SEEDS], batch.think, sizes)
    context = model.read(batch.inputs, positions)
    symbols = model.think(context, noise).symbols
    counted = focus(batch, positions)
    for name, given in {
        "nll": symbols,
        "nll_shuffled": symbols[:, [4, 0, 1, 2, 3]],
        "nll_constant": symbols[:, :1, :1, :1].expand_as(symbols),
    }.items():
        logits = model.talk(context, model.think(context, noise, given)).logits.squeeze(-2)
        log_q = logits.log_softmax(-1).gather(
            -1, counted.targets[..., None, None].expand(*given.shape[:4], 1)
        )
        each = -log_q.squeeze(-1).mean(-1) * counted.weights
        wanted = each.sum((1, 2)) / counted.weights.sum((1, 2))
        torch.testing.assert_close(got[name], wanted, rtol=0, atol=1e-12)
    if sizes.number > 1:
        assert bool((got["nll_marginal"] < got["nll"]).all()), "Jensen"


def test_gaussian_information_is_nothing_where_the_context_is_ignored_and_at_most_log_m() -> None:
    settings, batch = tiny.config(thoughts="gaussian", trice_samples=THOUGHTS, sigma=0.01), tiny.batch(40)
    sharp, ignorant = (tiny.model(settings) for _ in range(2))
    for layer in (ignorant.thought_head.mean, ignorant.thought_head.spread):
        layer.weight.zero_()
    found = told(ignorant, settings, batch)
    assert abs(float(found["information"])) < 1e-12 and abs(float(found["information_shuffled"])) < 1e-12
    assert 1.0 < float(told(sharp, settings, batch)["information"]) <= math.log(40) + 1e-12


def test_the_thoughts_of_a_symbols_only_model_matter() -> None:
    """Check that shuffling matters where symbols alone carry the context, not where none is sampled."""
    settings, model, batch = ready(use_base_lm=False)
    got = measured(settings, model, batch)
    assert bool((got["nll_shuffled"] != got["nll"]).all())


@pytest.mark.parametrize("size", [2, 3, 4])
def test_chunks_do_not_change_what_is_measured(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Check too that no chunk leaves a sequence to be shuffled with itself."""
    settings, model, batch = ready(mixing="gate")
    right, pairs = LatentReasoner.think, []

    def watching(
        self: LatentReasoner, context: Any, noise: Tensor, forced: Tensor | None = None, *rest: Any
    ) -> Any:
        thoughts = right(self, context, noise, forced, *rest)
        pairs.append((noise.shape, forced is not None))
        return thoughts

    monkeypatch.setattr(LatentReasoner, "think", watching)
    got = measured(settings, model, batch, at_once=size * THOUGHTS * 2)
    # the information estimate thinks once more, one thought a position
    sizes = [shape[1] for shape, forced in pairs if not forced and shape[3] == THOUGHTS]
    assert sum(sizes) == SIZE and min(sizes) >= 2 and len(sizes) == {2: 2, 3: 2, 4: 1}[size]
    monkeypatch.undo()
    whole = measured(settings, model, batch)
    assert got.keys() == whole.keys()
    torch.testing.assert_close(got["nll_no_thought"], whole["nll_no_thought"], rtol=0, atol=1e-12)


def test_a_seed_is_measured_alike_alone_and_in_company() -> None:
    settings = tiny.config(dtype="float32", mixing="gate", trice_samples=THOUGHTS)
    stack, alone = build_model(settings, SEEDS), build_model(settings, SEEDS[1:])
    batch = tiny.batch(SIZE)
    batch = batch._replace(weights=batch.weights.float())
    company = evaluate(stack, tiny.repeated(batch, 2), SEEDS, ThoughtSizes(THOUGHTS, tiny.LENGTH), full=True)
    single = evaluate(alone, batch, SEEDS[1:], ThoughtSizes(THOUGHTS, tiny.LENGTH), full=True)
    for name, value in single.items():
        assert torch.equal(value[0], company[name][1]), name


def test_information_against_a_naive_double_loop() -> None:
    settings, model, batch = ready()
    context = model.read(batch.inputs, thinking_positions(batch))
    noise = tiny.noise((len(SEEDS), SIZE, 2, THOUGHTS, tiny.LENGTH))
    thoughts = model.think(context, noise)
    got = information(model, context, thoughts)
    naive = Naive(settings, model, batch)
    for s in range(len(SEEDS)):
        first = thoughts.symbols[s, :, -1, 0]  # of the last position
        log_p = [
            [float(naive.predict(j, 1, first[i : i + 1])[0].log_prob.sum()) for i in range(SIZE)]
            for j in range(SIZE)
        ]
        own = shuffled = 0.0
        for i in range(SIZE):
            marginal = math.log(sum(math.exp(log_p[j][i]) for j in range(SIZE)) / SIZE)
            own += (log_p[i][i] - marginal) / SIZE
            shuffled += (log_p[i - 1][i] - marginal) / SIZE
        assert float(got["information"][s]) == pytest.approx(own, abs=1e-12)
        assert float(got["information_shuffled"][s]) == pytest.approx(shuffled, abs=1e-12)


def told(model: LatentReasoner, settings: RunConfig, batch: Batch) -> dict[str, Tensor]:
    return evaluate(model, batch, [0], thought_sizes(settings), full=True)


def test_information_is_nothing_for_a_uniform_policy_and_at_most_log_m() -> None:
    settings = tiny.config(trice_samples=THOUGHTS, max_reasoning_len=6)
    batch = tiny.batch(40)
    uniform = tiny.model(settings)
    for parameter in uniform.thought_head.parameters():
        parameter.zero_()
    found = told(uniform, settings, batch)
    assert abs(float(found["information"])) < 1e-12 and abs(float(found["information_shuffled"])) < 1e-12
    assert float(found["thought_entropy"]) == pytest.approx(6 * math.log(3))
    fresh = float(told(build_model(settings, [0]), settings, batch)["information"])
    sharp = float(told(tiny.model(settings, scale=6.0), settings, batch)["information"])
    assert -0.2 < fresh < 0.2 < sharp <= math.log(40)
