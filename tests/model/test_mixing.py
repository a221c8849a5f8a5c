"""Mixers against their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from toyqs.model import mixing
from toyqs.model.layers import FeatureHead, initialise
from toyqs.model.mixing import (
    MIXERS,
    Add,
    Attend,
    BaseOnly,
    Concat,
    Gate,
    Hidden,
    Logits,
    Mixer,
    Projected,
    Residual,
    ThoughtOnly,
)
from toyqs.model.weighing import Weigher

BASE, READING = 3, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(mixer: Any) -> Any:
    initialise(mixer, [0, 1])
    return mixer.double()


base, reading = random(2, 5, 2, BASE), random(2, 5, 2, 6, READING, seed=1)


def test_add() -> None:
    mixer = ready(Add(2, BASE, READING))
    (feature,), opening = mixer(base, reading)
    for s in range(2):
        wanted = base[s].unsqueeze(2) + reading[s] @ mixer.projection.weight[s] + mixer.projection.bias[s]
        torch.testing.assert_close(feature[s], wanted, rtol=0, atol=1e-12)
    assert opening is None and mixer.widths == [BASE]


def test_concat() -> None:
    mixer = ready(Concat(2, BASE, READING))
    (first, second), opening = mixer(base, reading)
    assert torch.equal(first, base.unsqueeze(3)) and torch.equal(second, reading)
    assert opening is None and mixer.widths == [BASE, READING]


def test_gate() -> None:
    mixer = ready(Gate(2, BASE, READING))
    (feature,), opening = mixer(base, reading)
    assert opening.shape == reading.shape[:-1] and mixer.widths == [BASE]
    for s in range(2):
        state = base[s].unsqueeze(2).expand(-1, -1, 6, -1)
        g = torch.sigmoid(
            torch.cat([state, reading[s]], -1) @ mixer.opening.weight[s] + mixer.opening.bias[s]
        )
        projected = reading[s] @ mixer.projection.weight[s] + mixer.projection.bias[s]
        torch.testing.assert_close(feature[s], (1 - g) * state + g * projected, rtol=0, atol=1e-12)
        torch.testing.assert_close(opening[s], g.squeeze(-1), rtol=0, atol=1e-12)


def weight_of(weigher: Weigher, s: int) -> Tensor:
    """Compute the weight (B, T, K, 1) with torch's own layers."""
    first, _, second, _, third = weigher.first, *weigher.rest
    x = base[s].unsqueeze(2) @ first.weight_0[s] + reading[s] @ first.weight_1[s] + first.bias[s]
    x = torch.relu(x) @ second.weight[s] + second.bias[s]
    return torch.sigmoid(torch.relu(x) @ third.weight[s] + third.bias[s])


def test_hidden() -> None:
    mixer = ready(Hidden(2, BASE, READING))
    (feature,), opening = mixer(base, reading)
    assert opening.shape == reading.shape[:-1] and mixer.widths == [BASE]
    for s in range(2):
        w = weight_of(mixer.opening, s)
        projected = reading[s] @ mixer.projection.weight[s] + mixer.projection.bias[s]
        wanted = (1 - w) * base[s].unsqueeze(2) + w * projected
        torch.testing.assert_close(feature[s], wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(opening[s], w.squeeze(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("linear", [True, False])
def test_logits(linear: bool) -> None:
    mixer, head = ready(Logits(2, BASE, READING)), ready(FeatureHead(2, [BASE, READING], 5, linear))
    got, opening = mixer.predict(head, base, reading)
    zeros = torch.zeros_like(base).unsqueeze(3), torch.zeros_like(reading)
    of_base, of_reading = head([base.unsqueeze(3), zeros[1]]), head([zeros[0], reading])
    for s in range(2):
        w = weight_of(mixer.opening, s)
        wanted = (1 - w) * of_base[s] + w * of_reading[s]
        torch.testing.assert_close(got[s], wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(opening[s], w.squeeze(-1), rtol=0, atol=1e-12)
    silent, opening = mixer.predict(head, base, None)
    torch.testing.assert_close(silent, of_base[:, :, :, :1], rtol=0, atol=1e-12)
    assert opening is None


def test_residual_begins_near_the_base_state() -> None:
    mixer = ready(Residual(2, BASE, READING))
    (feature,), opening = mixer(base, reading)
    for s in range(2):
        projected = reading[s] @ mixer.projection.weight[s] + mixer.projection.bias[s]
        wanted = base[s].unsqueeze(2) + mixer.scale[s] * projected
        torch.testing.assert_close(feature[s], wanted, rtol=0, atol=1e-12)
        wanted = mixer.scale[s].abs().mean().expand(reading.shape[1:-1])
        torch.testing.assert_close(opening[s], wanted, rtol=0, atol=1e-12)
    assert float(mixer.scale.detach().abs().max()) < 0.2 and bool((mixer.scale != 0).all())


def test_a_named_class_enters_the_table_and_a_half_written_one_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mixing, "MIXERS", dict(MIXERS))
    half: Any = type("Half", (Mixer,), {"name": "half"})
    assert mixing.MIXERS["half"] is half
    with pytest.raises(TypeError, match="abstract method"):
        half(2, BASE, READING)
    with pytest.raises(ValueError, match="a mixer of the name 'half' exists"):
        type("Again", (Mixer,), {"name": "half"})


WEIGHING = tuple(kind for kind in MIXERS.values() if kind.weighs_thoughts)


def test_which_mixers_weigh_their_thoughts() -> None:
    assert {Gate, Hidden, Logits} == set(WEIGHING)


@pytest.mark.parametrize("kind", WEIGHING)
def test_a_floor_lifts_the_openness_and_keeps_its_gradient(kind: Any) -> None:
    mixer, head = ready(kind(2, BASE, READING)), ready(FeatureHead(2, kind(2, BASE, READING).widths, 5))
    _, free = mixer.predict(head, base, reading)
    for floor in (0.0, 0.4, 1.0):
        logits, opening = mixer.predict(head, base, reading, floor)
        torch.testing.assert_close(opening, floor + (1 - floor) * free, rtol=0, atol=1e-12)
        assert bool((opening >= floor).all())
        grads = torch.autograd.grad(logits.square().sum(), list(mixer.opening.parameters()))
        assert any(bool(g.any()) for g in grads) == (floor < 1)


WITH_BASE = tuple(kind for kind in MIXERS.values() if not issubclass(kind, ThoughtOnly | BaseOnly))


@pytest.mark.parametrize("kind", WITH_BASE)
def test_several_tokens_meet_one_reading_or_one_each(kind: Any) -> None:
    mixer = ready(kind(2, BASE, READING))
    head = ready(FeatureHead(2, mixer.widths, 5))
    ahead, on = random(2, 5, 2, 3, BASE, seed=2), random(2, 5, 2, 6, 3, READING, seed=3)
    for readings in (reading.unsqueeze(-2), on):
        logits, opening = mixer.predict(head, ahead, readings)
        assert logits.shape == (2, 5, 2, 1 if kind is Attend else 6, 3, 5)
        for n in range(3):
            one = readings[..., min(n, readings.shape[-2] - 1), :]
            wanted, weight = mixer.predict(head, ahead[..., n, :], one)
            torch.testing.assert_close(logits[..., n, :], wanted, rtol=0, atol=1e-12)
            assert (opening is None) == (weight is None)
            if opening is not None:
                torch.testing.assert_close(opening[..., n], weight, rtol=0, atol=1e-12)
    assert mixer.predict(head, ahead, None)[0].shape == (2, 5, 2, 1, 3, 5)


def test_thought_only() -> None:
    mixer = ThoughtOnly(2, BASE, READING)
    (feature,), opening = mixer(base, reading)
    assert torch.equal(feature, reading) and opening is None and mixer.widths == [READING]


def test_projected() -> None:
    mixer = ready(Projected(2, BASE, READING))
    (feature,), opening = mixer(None, reading)
    for s in range(2):
        wanted = reading[s] @ mixer.projection.weight[s] + mixer.projection.bias[s]
        torch.testing.assert_close(feature[s], wanted, rtol=0, atol=1e-12)
    assert opening is None and mixer.widths == [BASE]


def test_base_only() -> None:
    (feature,), opening = BaseOnly(2, BASE, READING)(base, None)
    assert torch.equal(feature, base.unsqueeze(3)) and opening is None


@pytest.mark.parametrize("kind", MIXERS.values())
def test_without_a_thought_the_base_state_predicts(kind: type[Mixer]) -> None:
    mixer = kind(2, BASE, BASE)
    (feature,), opening = mixer(base, None)
    assert mixer.predicts_without_thought and opening is None
    assert torch.equal(feature, base.unsqueeze(3))


@pytest.mark.parametrize(
    "mixer",
    [ThoughtOnly(2, 0, READING), ThoughtOnly(2, BASE, READING), Projected(2, READING, READING)],
)
def test_a_mixer_of_thoughts_alone_refuses_to_predict_without_one(mixer: ThoughtOnly) -> None:
    assert not mixer.predicts_without_thought
    with pytest.raises(ValueError, match="no prediction without a thought"):
        mixer(base, None)


def test_one_reading_for_all_broadcasts() -> None:
    """Check the shape for a zero-length thought's reading, which has K = 1."""
    one = random(2, 5, 2, 1, READING)
    for kind in WITH_BASE:
        assert ready(kind(2, BASE, READING))(base, one)[0][0].shape == (2, 5, 2, 1, BASE)
