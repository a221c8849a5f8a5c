"""Mixers against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from toyqs.model.layers import initialise
from toyqs.model.mixing import Add, BaseOnly, Concat, Gate, ThoughtOnly

BASE, READING = 3, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(mixer: nn.Module) -> nn.Module:
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
    mixer = ready(Concat(BASE, READING))
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


def test_thought_only() -> None:
    mixer = ThoughtOnly(BASE, READING)
    (feature,), opening = mixer(base, reading)
    assert torch.equal(feature, reading) and opening is None and mixer.widths == [READING]


def test_base_only() -> None:
    (feature,), opening = BaseOnly(BASE)(base, None)
    assert torch.equal(feature, base.unsqueeze(3)) and opening is None


@pytest.mark.parametrize(
    "mixer", [Add(2, BASE, READING), Concat(BASE, READING), Gate(2, BASE, READING), ThoughtOnly(BASE, BASE)]
)
def test_without_a_thought_the_base_state_speaks(mixer: nn.Module) -> None:
    (feature,), opening = mixer(base, None)
    assert mixer.speaks_alone and opening is None
    assert torch.equal(feature, base.unsqueeze(3))


@pytest.mark.parametrize("mixer", [ThoughtOnly(None, READING), ThoughtOnly(BASE, READING)])
def test_a_mixer_that_reads_thoughts_alone_has_nothing_to_say_without(mixer: ThoughtOnly) -> None:
    assert not mixer.speaks_alone
    with pytest.raises(ValueError, match="no prediction without a thought"):
        mixer(base, None)


def test_one_reading_for_all_broadcasts() -> None:
    """A zero-length thought's reading, the same at every position, has K = 1."""
    one = random(2, 5, 2, 1, READING)
    for mixer in (ready(Add(2, BASE, READING)), ready(Gate(2, BASE, READING))):
        assert mixer(base, one)[0][0].shape == (2, 5, 2, 1, BASE)
