"""Symbols that a native function draws, against torch's and against exact inversion in float64."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.kernels.comparing import TOLERANCES, cases, integers, off, random, results, scattered
from toyqs.model.backbones.kernels.draw import Draw
from toyqs.model.layers import affine
from toyqs.model.thoughts import _Draw

SYMBOLS = (1, 2, 3, 5, 8, 13, 16, 17, 33, 70)  # V: within a vector, just whole ones, and with a rest
WIDTHS = (1, 3, 8, 17, 32, 100)
LAST = 1 - 2**-53  # the largest uniform number; float32 makes a 1 of it


def layer(seeds: int, width: int, symbols: int, dtype: torch.dtype, scale: float = 2.0) -> tuple[Tensor, ...]:
    """Return states (S, 3, 5, 3, D), and weight and bias of the layer."""
    hidden = random(seeds, 3, 5, 3, width, dtype=dtype)
    weight = scale * random(seeds, width, symbols, seed=1, dtype=dtype) / width**0.5
    return hidden, weight, random(seeds, 1, symbols, seed=2, dtype=dtype)


def native(wanted: Tensor, forced: bool, *given: Tensor) -> Tensor:
    """Return log-probabilities and, last, the entropy, (S, ..., J + 1)."""
    _, log_prob, entropy = Draw.apply(*given, wanted, forced)
    return torch.cat([log_prob, entropy.unsqueeze(-1)], -1)


def torchs(wanted: Tensor, forced: bool, *given: Tensor) -> Tensor:
    _, log_prob, entropy = _Draw.apply(affine(*given), wanted.contiguous(), forced)
    return torch.cat([log_prob, entropy.unsqueeze(-1)], -1)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("draws", [1, 4])
def test_log_probabilities_entropies_and_gradients(draws: int, dtype: torch.dtype) -> None:
    for seeds, symbols in cases(dtype, SYMBOLS):
        for width in WIDTHS:
            given = layer(seeds, width, symbols, dtype)
            wanted = integers(symbols, seeds, 3, 5, 3, draws)
            pull = random(seeds, 3, 5, 3, draws + 1, seed=3, dtype=dtype)
            found = results(partial(native, wanted, True), given, pull)
            apart = [scattered(x) for x in given]
            again = results(partial(native, scattered(wanted), True), apart, scattered(pull))
            if symbols == 1:  # log p = 0: the largest gradient is 0 too
                assert all(float(x.abs().max()) < 1e-5 for x in found)
                continue
            true = results(partial(torchs, wanted, True), given, pull)
            error = max(off(found, true), off(again, true))
            assert error < TOLERANCES[dtype], f"{seeds} seeds, {width} -> {symbols}: {error:.1e}"


@pytest.mark.parametrize("scale", [2.0, 300.0])
def test_the_gradient_is_that_of_the_plain_formula(scale: float) -> None:
    """Compare with autograd through log_softmax in float64, also where most symbols have no probability."""
    given = layer(2, 5, 9, torch.float64, scale)
    wanted, pull = integers(9, 2, 3, 5, 3, 2), random(2, 3, 5, 3, 3, seed=3)

    def plain(*given: Tensor) -> Tensor:
        log_p = affine(*given).log_softmax(-1)
        entropy = -torch.special.xlogy(log_p.exp(), log_p.exp()) if scale < 10 else -(log_p.exp() * log_p)
        return torch.cat([log_p.gather(-1, wanted), entropy.sum(-1, keepdim=True)], -1)

    true, found = results(plain, given, pull), results(partial(native, wanted, True), given, pull)
    assert off(found, true) < 1e-12


def inverted(logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symbol where the cumulative distribution passes each number, and how far any border is."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    points = noise.double() * cumulative[..., -1:]
    borders = torch.nn.functional.pad(cumulative[..., None, :-1], (0, 1), value=2.0)  # one beyond all noise
    distance = (points.unsqueeze(-1) - borders).abs().amin(-1)
    return torch.searchsorted(cumulative, points, right=True).clamp(max=logits.shape[-1] - 1), distance


def drawn(logits: Tensor, noise: Tensor) -> Tensor:
    """Draw from rows of logits (n, V): states are the rows of a unit matrix, the logits are the weight."""
    count, symbols = logits.shape
    unit, none = torch.eye(count, dtype=logits.dtype), logits.new_zeros(1, 1, symbols)
    return Draw.apply(unit.unsqueeze(0), logits.unsqueeze(0), none, noise.to(logits.dtype)[None], False)[0][0]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_symbols_are_where_the_cumulative_distribution_passes_the_noise(dtype: torch.dtype) -> None:
    """Check a grid of noise for every row, noise within rounding of a border only to a neighbour."""
    rounding = 20 * torch.finfo(dtype).eps
    grid = torch.cat([torch.linspace(0, 1, 400, dtype=torch.float64)[:-1], torch.tensor([LAST]).double()])
    for symbols in SYMBOLS:
        for scale in (0.0, 1.0, 20.0, 300.0):
            logits = (scale * random(6, symbols, seed=symbols)).to(dtype)
            noise = grid.expand(6, -1)
            found, (wanted, distance) = drawn(logits, noise), inverted(logits, noise.to(dtype))
            clear = distance > rounding
            assert bool((found == wanted)[clear].all()), (symbols, scale)
            assert float(clear.double().mean()) > 0.9, "or little is tested"
            assert scale > 1 or bool(((found - wanted).abs() <= 1).all())


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_symbol_of_probability_zero_is_never_drawn(dtype: torch.dtype) -> None:
    """Check patterns of possible symbols, at both ends of the noise and between; zero by -inf and by far."""
    noise = torch.tensor([0.0, 1e-40, 0.3, 0.5, 0.999, LAST, 1.0]).double()
    for symbols in (3, 9, 18):
        patterns = (integers(2, 60, symbols, seed=symbols) == 1) & (torch.arange(symbols) != 1)
        patterns[:, 0] |= ~patterns.any(-1)
        patterns[:symbols] = torch.eye(symbols) == 1  # one symbol alone
        for never in (-1e5, -math.inf if dtype == torch.float64 else -3e38):
            logits = random(60, symbols).to(dtype).masked_fill(~patterns, 0.0)
            # through the bias, for in a product with the unit matrix 0 times -inf is NaN
            rows = [
                Draw.apply(
                    logits[None, i : i + 1, :1] * 0,
                    logits.new_zeros(1, 1, symbols),
                    logits[i].masked_fill(~patterns[i], never)[None, None],
                    noise.to(dtype)[None, None],
                    False,
                )
                for i in range(60)
            ]
            found = torch.cat([symbols[0] for symbols, _, _ in rows])
            assert bool(patterns.gather(1, found).all())
            assert all(bool(x.isfinite().all()) for row in rows for x in row[1:])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_row_that_is_no_number_gives_a_symbol_and_leaves_the_others(dtype: torch.dtype) -> None:
    hidden, weight, bias = layer(2, 3, 5, dtype)
    noise = torch.rand(2, 3, 5, 3, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for number in (math.nan, math.inf, -math.inf):
        broken = hidden.clone()
        broken[1, 2, 4, 1, 0] = number
        found, wanted = (Draw.apply(x, weight, bias, noise, False) for x in (broken, hidden))
        assert bool(((found[0] >= 0) & (found[0] < 5)).all())
        same = torch.ones(2, 3, 5, 3, dtype=torch.bool)
        same[1, 2, 4, 1] = False
        assert all(torch.equal(a[same], b[same]) for a, b in zip(found, wanted, strict=True))
        assert bool(found[1][~same].isnan().all()) and bool(found[2][~same].isnan().all())
    noise[0, 0, 0, 0] = math.nan
    symbols = Draw.apply(hidden, weight, bias, noise, False)[0]
    assert bool(((symbols >= 0) & (symbols < 5)).all())


def test_the_frequency_of_symbols_is_their_probability() -> None:
    """Draw 40,000 symbols of each of three rows in one call and compare by the chi-square statistic."""
    logits, count = random(3, 7), 40_000
    noise = torch.rand(3, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = torch.nn.functional.one_hot(drawn(logits, noise), 7).double().sum(1)
    expected = logits.softmax(-1) * count
    assert float(((seen - expected) ** 2 / expected).sum(-1).max()) < 22.5  # of 6 degrees: p = 0.001


def test_gradients_by_enumeration_of_all_symbols() -> None:
    """Σ_s ∇ p(s) = 0, Σ_s p(s) ∇ log p(s) f(s) = ∇ E f, and the entropy's gradient is that of −Σ p log p."""
    hidden, weight, bias = layer(1, 4, 6, torch.float64)
    every = torch.arange(6).expand(1, 3, 5, 3, 6)
    value = random(6, seed=5)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    _, log_prob, entropy = Draw.apply(*leaves, every, True)
    score = torch.autograd.grad((log_prob.detach().exp() * value * log_prob).sum(), leaves, retain_graph=True)
    nothing = torch.autograd.grad((log_prob.detach().exp() * log_prob).sum(), leaves, retain_graph=True)
    probability = affine(*leaves).softmax(-1)
    exact = torch.autograd.grad((probability * value).sum(), leaves, retain_graph=True)
    assert off(score, exact) < 1e-12 and max(float(x.abs().max()) for x in nothing) < 1e-13
    found = torch.autograd.grad(entropy.sum(), leaves)
    wanted = torch.autograd.grad(-(probability * probability.log()).sum(), leaves)
    assert off(found, wanted) < 1e-12
