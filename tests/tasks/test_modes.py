"""The modes: their law, and the floors of three kinds of models against hand-worked and searched numbers."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from tests.tasks.test_task import draw
from toyqs.tasks import modes
from toyqs.tasks.modes import Modes, uniform_floor

H = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)  # 0.3251


def test_the_law_is_that_of_the_weights() -> None:
    task = Modes(modes=3, tokens=5, contexts=4, likely=0.8)
    batch = draw(task, 40_000, "train")
    context, tokens = batch.inputs[0, :, 0], batch.targets[0]
    assert torch.equal(batch.inputs[0, :, 1:], tokens[:, :-1])
    mode = (tokens.unsqueeze(1) == task.choices).all(-1)
    assert bool((mode.sum(1) == 1).all()), "all tokens are those of one mode"
    for c in range(4):
        share = mode[context == c].double().mean(0)
        wanted = torch.full((3,), 0.1, dtype=torch.float64)
        wanted[c % 3] = 0.8
        assert float((share - wanted).abs().max()) < 0.02
        assert torch.allclose(task.weights[c], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", [Modes(), Modes(modes=3, likely=0.5), Modes(equal=True)], ids=repr)
def test_held_out_sequences_are_as_the_law_says(task: Modes) -> None:
    size = 4000
    batch = draw(task, size, "held_out")
    counts = Counter(zip(batch.inputs[0, :, 0].tolist(), batch.targets[0, :, 0].tolist(), strict=True))
    for c in range(task.contexts):
        for mode in range(task.modes):
            expected = size / task.contexts * float(task.weights[c, mode])
            assert abs(counts[c, int(task.choices[mode, 0])] - expected) <= 1
    assert sum(counts.values()) == size
    assert not torch.equal(batch.inputs, draw(task, size, "held_out", 1).inputs)
    again = draw(task, 4002, "held_out").inputs[0, :, 0]
    assert torch.bincount(again).tolist() in ([1001, 1001, 1000, 1000],)


def test_the_floors_worked_by_hand() -> None:
    task = Modes(tokens=4)
    assert task.floor() == pytest.approx(H, abs=1e-12) and pytest.approx(0.325083, abs=1e-6) == H
    assert task.joint_floor(4, 1, False) == pytest.approx(4 * H, abs=1e-12)
    assert task.joint_floor(4, 1, True) == pytest.approx(4 * H, abs=1e-12)
    assert task.joint_floor(4, 2, True) == task.joint_floor(4, None, True) == pytest.approx(H, abs=1e-12)
    # each thought certain of one mode: −.9 log ½ − .1 log ½
    assert task.joint_floor(4, 2, False) == pytest.approx(math.log(2), abs=1e-9)
    # three thoughts of equal weight, two of them certain of the likely mode: −.9 log ⅔ − .1 log ⅓
    assert task.joint_floor(4, 3, False) == pytest.approx(-0.9 * math.log(2 / 3) - 0.1 * math.log(1 / 3))
    # nine of ten: the weights themselves
    assert task.joint_floor(4, 10, False) == pytest.approx(H, abs=1e-9)
    assert task.joint_floor(4, None, False) is None and task.joint_floor(4, 17, False) is None
    equal = Modes(tokens=4, equal=True)
    assert equal.joint_floor(4, 2, False) == pytest.approx(math.log(2), abs=1e-9)
    assert equal.joint_floor(4, 2, True) == pytest.approx(math.log(2), abs=1e-12)
    assert equal.joint_floor(4, 1, False) == pytest.approx(4 * math.log(2), abs=1e-12)
    three = Modes(modes=3, likely=0.5)
    assert three.joint_floor(2, 1, False) == pytest.approx(2 * (0.5 * math.log(2) + 0.5 * math.log(4)))
    assert three.joint_floor(2, 3, True) == three.floor() and three.joint_floor(2, 2, True) is None
    assert three.joint_floor(2, 3, False) is None


def searched(likely: float, num_tokens: int, num_readings: int) -> float:
    """Minimise the loss of an equal mixture by gradient from 30 starts, each place of a reading by itself."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(30, num_readings, num_tokens, generator=generator, dtype=torch.float64) * 2
    free = start.requires_grad_()
    optimiser = torch.optim.Adam([free], lr=0.1)
    for _ in range(500):
        optimiser.zero_grad()
        log_a, log_b = (x.sum(-1) for x in (torch.nn.functional.logsigmoid(s * free) for s in (1, -1)))
        mixed = [x.logsumexp(-1) - math.log(num_readings) for x in (log_a, log_b)]
        loss = -likely * mixed[0] - (1 - likely) * mixed[1]
        loss.sum().backward()
        optimiser.step()
    return float(loss.detach().min())


@pytest.mark.parametrize(
    ("likely", "num_tokens", "num_readings"),
    [(0.9, 2, 2), (0.9, 4, 2), (0.7, 2, 2), (0.9, 3, 3), (0.6, 2, 4)],
)
def test_no_search_finds_less_than_the_floor_of_equal_weights(
    likely: float, num_tokens: int, num_readings: int
) -> None:
    floor, found = uniform_floor(likely, num_tokens, num_readings), searched(likely, num_tokens, num_readings)
    assert floor - 1e-7 <= found <= floor + 1e-2


def test_of_two_tokens_no_reading_of_the_unlikely_mode_is_certain() -> None:
    """At the floor one reading is certain, the other gives the likely mode a = .7702 by its equation."""
    a = 0.7702
    ratio = a / (1 - a), 0.1 * (1 + a**2) / (0.9 * (1 - a) ** 2)
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-3)
    loss = -0.9 * math.log((1 + a**2) / 2) - 0.1 * math.log((1 - a) ** 2 / 2)
    assert uniform_floor(0.9, 2, 2) == pytest.approx(loss, abs=1e-6)


def coarse(likely: float, *rest: Any) -> float:
    sure, other = rest[2:4]
    return math.inf if sure != other else right(likely, *rest)


right = modes._uniform_loss


def test_a_floor_of_symmetric_readings_alone_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "_uniform_loss", coarse)
    with pytest.raises(AssertionError):
        test_no_search_finds_less_than_the_floor_of_equal_weights(0.9, 2, 2)


@pytest.mark.parametrize("changes", [{}, {"equal": True}])
def test_the_feature_is_the_likelier_mode(changes: dict[str, Any]) -> None:
    task = Modes(**changes)
    batch = draw(task, 50, "train")
    feature = task.features(batch)["likelier mode"]
    context = batch.inputs[0, :, 0]
    wanted = torch.full_like(context, -1) if changes else context % 2
    assert torch.equal(feature.values[0, :, 0], wanted) and bool((feature.values[0, :, 1:] == -1).all())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modes": 1}, "task.modes=1: is too small"),
        ({"tokens": 1}, "task.tokens=1: is too small"),
        ({"contexts": 0}, "task.contexts=0"),
        ({"likely": 1.0}, "task.likely=1.0: is a probability"),
        ({"modes": 10**6}, "has to compute"),
        ({"tokens": 10**5}, "positions"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Modes(**changes).check(128)


@pytest.mark.parametrize("num_tokens", [1, 4, 8])
def test_how_fast_two_equal_readings_part(num_tokens: int) -> None:
    """The loss of logits z ± δ at every place has slope 0 at δ = 0, and curves by −N (N − 1) w (1 − w)."""
    w, delta = 0.9, torch.zeros((), dtype=torch.float64, requires_grad=True)
    z = math.log(w / (1 - w))
    logits = torch.stack([z + delta, z - delta])
    losses = [
        math.log(2) - (num_tokens * torch.nn.functional.logsigmoid(s * logits)).logsumexp(0) for s in (1, -1)
    ]
    (slope,) = torch.autograd.grad(w * losses[0] + (1 - w) * losses[1], delta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, delta)
    assert float(slope.detach()) == pytest.approx(0, abs=1e-12)
    assert float(curvature) == pytest.approx(-num_tokens * (num_tokens - 1) * w * (1 - w), abs=1e-12)


def test_what_a_bound_of_32_samples_is_least_at() -> None:
    """docs/latent-choice.md: weights of .82 and .18, with which the joint NLL is .350, not .325."""
    samples, num_tokens, w = 32, 8, 0.9
    light = torch.arange(samples + 1, dtype=torch.float64)  # how many of the samples are the unlikely thought
    ways = torch.tensor([math.comb(samples, i) for i in range(samples + 1)], dtype=torch.float64).log()
    free = torch.tensor([1.7, 4.0, 4.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([free], lr=0.02)
    for _ in range(3000):
        optimiser.zero_grad()
        yes, no = torch.nn.functional.logsigmoid(free), torch.nn.functional.logsigmoid(-free)
        chance = ways + (samples - light) * yes[0] + light * no[0]
        counts, joint = ((samples - light).log(), light.log()), (num_tokens * yes[1:], num_tokens * no[1:])
        likely = torch.logaddexp(counts[0] + joint[0][0], counts[1] + joint[1][1])
        other = torch.logaddexp(counts[1] + joint[0][1], counts[0] + joint[1][0])
        bound = math.log(samples) - (chance.exp() * (w * likely + (1 - w) * other)).sum()
        bound.backward()
        optimiser.step()
    weight, *sure = torch.sigmoid(free.detach()).tolist()
    q = [
        p * yes**num_tokens + (1 - p) * (1 - no) ** num_tokens
        for p, yes, no in ((weight, sure[0], sure[1]), (1 - weight, sure[1], sure[0]))
    ]
    assert weight == pytest.approx(0.823, abs=2e-3)
    assert -w * math.log(q[0]) - (1 - w) * math.log(q[1]) == pytest.approx(0.350, abs=5e-4)
