"""Random streams: one per seed and purpose."""

from __future__ import annotations

import pytest
import torch

from toyqs.rng import ThoughtSizes, noise_of_steps, stream, thought_noise


def first(seed: int, purpose: str) -> float:
    return float(torch.rand((), generator=stream(seed, purpose), dtype=torch.float64))


def test_a_stream_depends_on_seed_and_purpose_alone() -> None:
    assert first(3, "training data") == first(3, "training data")
    others = [first(seed, purpose) for seed in range(20) for purpose in ("training data", "thought noise")]
    assert len(set(others)) == len(others)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first(3, "training data")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_comes_in_the_order_symbol_position_thought() -> None:
    think = torch.zeros(2, 3, 5, dtype=torch.bool)
    think[:, :, [1, 4]] = True
    noise = thought_noise([stream(s, "thought noise") for s in (7, 8)], think, ThoughtSizes(4, 6))
    assert noise.shape == (2, 3, 2, 4, 6)
    for index, seed in enumerate((7, 8)):
        drawn = torch.rand((6, 3, 2, 4), generator=stream(seed, "thought noise"), dtype=torch.float64)
        for symbol in range(6):
            assert torch.equal(noise[index, ..., symbol], drawn[symbol])
    assert bool((noise >= 0).all()) and bool((noise < 1).all())


def test_the_first_symbols_of_a_longer_thought_are_the_same() -> None:
    think = torch.ones(1, 3, 2, dtype=torch.bool)
    for width in (0, 3):
        short, long = (
            thought_noise([stream(0, "thought noise")], think, ThoughtSizes(4, length, width))
            for length in (2, 5)
        )
        assert torch.equal(long[:, :, :, :, :2], short)


def test_a_width_is_the_last_axis_and_drawn_last() -> None:
    think = torch.ones(1, 3, 2, dtype=torch.bool)
    noise = thought_noise([stream(7, "thought noise")], think, ThoughtSizes(4, 6, 5))
    assert noise.shape == (1, 3, 2, 4, 6, 5)
    drawn = torch.rand((6, 3, 2, 4, 5), generator=stream(7, "thought noise"), dtype=torch.float64)
    assert torch.equal(noise[0].movedim(3, 0), drawn)


@pytest.mark.parametrize(
    "sizes", [ThoughtSizes(1, 1), ThoughtSizes(1, 3), ThoughtSizes(3, 5), ThoughtSizes(1, 1, 3)]
)
def test_noise_of_several_batches_is_that_of_one_after_another(sizes: ThoughtSizes) -> None:
    """Check it below and above 16 numbers, from where some of torch's random functions go another way."""
    think = torch.ones(2, 1, 3, dtype=torch.bool)
    apart, together = ([stream(s, "thought noise") for s in (7, 8)] for _ in range(2))
    for steps in (1, 3, 32):
        single = [thought_noise(apart, think, sizes) for _ in range(steps)]
        many = noise_of_steps(together, think, sizes, steps)
        assert torch.equal(many, torch.stack(single))
        assert [each.stride() for each in many] == [each.stride() for each in single]
