"""The native step of Adam and AdamW against torch's, and each seed's bits in any company."""

from __future__ import annotations

import ctypes
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.training.test_optimizer import leaf_losses
from toyqs.model.backbones.kernels import library
from toyqs.model.backbones.kernels.adam import Adam
from toyqs.training.optimizers.optimizer import Native, Optimiser

SOURCE = library.SOURCES / "adam.h"
TOLERANCES = {"float64": 1e-12, "float32": 1e-6}
FASTER = {"head.*": 3.0, "*.bias": 0.5}


def model_of(num_seeds: int, dtype: str = "float64", **changes: object) -> nn.Module:
    return tiny.model(tiny.config(dtype=dtype, mixing="gate", **changes), num_seeds)


def stepped(optimiser: Optimiser, model: nn.Module, max_norm: float, weight_decay: float) -> Tensor:
    """Take 20 steps with gradients that are clipped in some seeds and not in others; return the weights."""
    for step in range(20):
        optimiser.zero()
        leaf_losses(list(model.parameters()), step).sum().backward()
        optimiser.step(3e-3 / (1 + step), weight_decay, max_norm)
    return optimiser.values


def largest_difference(native: Native, dtype: str, *given: float, method: str = "adamw") -> float:
    """Return how far apart both ways end, as a share of the largest weight."""
    ours, theirs = (model_of(3, dtype) for _ in range(2))
    fast, plain = Optimiser(ours, FASTER, method, native), Optimiser(theirs, FASTER, method)
    assert fast.native is not None and plain.native is None
    found, wanted = stepped(fast, ours, *given), stepped(plain, theirs, *given)
    assert fast.count == plain.count == 20
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("method", ["adamw", "adam"])
@pytest.mark.parametrize(("max_norm", "weight_decay"), [(0.0, 0.0), (1.0, 0.0), (1.0, 0.3)])
def test_equals_torchs_step(max_norm: float, weight_decay: float, method: str, dtype: str) -> None:
    assert largest_difference(Adam, dtype, max_norm, weight_decay, method=method) < TOLERANCES[dtype]


@pytest.mark.parametrize(
    ("line", "mutant"),
    [
        ("rest * grad * grad", "rest * grad"),
        ("1 - a.lr * a.factors[span] * a.decay", "1 - a.lr * a.decay"),
        ("most > 1 ? 1 : most", "most"),
    ],
)
def test_a_mutant_is_noticed(line: str, mutant: str, tmp_path: Path) -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert text.count(line) == 1
    source, built = tmp_path / "mutant.cpp", tmp_path / "mutant.so"
    source.write_text(text.replace(line, mutant), encoding="utf-8")
    subprocess.run(
        [*library._compiler(), "-O0", "-shared", "-fPIC", f"-I{library.SOURCES}", "-o", built, source],
        check=True,
    )
    mutated = partial(Adam, given=ctypes.CDLL(str(built)))
    assert not largest_difference(mutated, "float64", 1.0, 0.3) < 1e-6


SIZES = ((5,), (7, 3), (64,), (1,))


def of_seeds(whole: list[Tensor], seeds: list[int]) -> nn.ParameterList:
    return nn.ParameterList([values[seeds].clone() for values in whole])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_seed_is_the_same_to_the_bit_alone_and_in_company(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    first, *steps = (
        [torch.randn(6, *size, generator=generator).to(dtype) for size in SIZES] for _ in range(5)
    )
    steps[2][1][4] = torch.nan  # from here on one seed is lost
    found = {}
    for seeds in ([0, 1, 2, 3, 4, 5], [2], [5, 0, 3]):
        parameters = of_seeds(first, seeds)
        optimiser = Optimiser(parameters, {"2": 3.0}, native=Adam)
        for gradients in steps:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad.copy_(gradient[seeds])
            optimiser.step(1e-2, 0.1, 5.0)
        for index, seed in enumerate(seeds):
            flat = torch.cat([*optimiser.seed_state(index).values()][:3])
            assert bool(flat.isnan().all() if seed == 4 else flat.isfinite().all())
            assert seed == 4 or torch.equal(found.setdefault(seed, flat), flat)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e300])
def test_gradients_that_are_not_numbers_do_what_they_do_in_torch(bad: float) -> None:
    ends = []
    for given in (Adam, None):
        model = model_of(3)
        optimiser = Optimiser(model, {}, native=given)
        leaf_losses(list(model.parameters()), 0).sum().backward()
        next(model.parameters()).grad[1].view(-1)[0] = bad
        optimiser.step(1e-2, 0.1, 1.0)
        ends.append(optimiser.values.clone())
    assert bool(ends[1].isnan().any()) == (bad != 1e300) and bool(ends[1].isfinite().any())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12, equal_nan=True)
