"""Native functions beside the lines of torch that they replace: the same inputs, values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WIDTHS = (1, 2, 3, 5, 8, 12, 17, 24, 32, 100)
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}  # of the largest number of each tensor
SEEDS = (1, 3)


def cases(dtype: torch.dtype, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Pair numbers of seeds with sizes in turns: a size has each number, in one precision or the other."""
    order = SEEDS if dtype == torch.float64 else SEEDS[::-1]
    return [(order[i % 2], size) for i, size in enumerate(sizes)]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw standard normal numbers, the same in both precisions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def integers(end: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(end, shape, generator=torch.Generator().manual_seed(seed))


def scattered(x: Tensor) -> Tensor:
    """Return equal numbers that do not lie one after another in memory."""
    return torch.stack([x, torch.full_like(x, 1e6)], -1)[..., 0]


def results(function: Callable[..., Tensor], inputs: Sequence[Tensor], pull: Tensor) -> list[Tensor]:
    """Return a function's value and its gradients at the inputs, for given gradients at the value."""
    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    value = function(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, pull)]


def off(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the largest difference, as a share of the largest number of the tensor that it is in."""
    worst = 0.0
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        if theirs.numel():
            worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)))
    return worst
