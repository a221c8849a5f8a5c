"""Row-wise numerics: equal to torch's, and independent of the other rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from toyqs.numerics import SMALL_VOCAB, log_prob_of, log_softmax, mean_of_steps, row_sums

VOCABS = [1, 2, 6, SMALL_VOCAB, SMALL_VOCAB + 1, 65]
SHAPES = [(7,), (64,), (2, 3, 5), (1, 1, 1, 1), (2, 32, 2)]


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("shape", SHAPES)
def test_log_softmax_equals_torchs(shape: tuple[int, ...], vocab: int) -> None:
    x = 5 * torch.randn(*shape, vocab, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    pull = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = log_softmax(x), torch.log_softmax(x, -1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    grads = [torch.autograd.grad((y * pull).sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("shape", SHAPES)
def test_log_prob_of_is_one_entry_of_each_row(shape: tuple[int, ...], vocab: int) -> None:
    x = 5 * torch.randn(*shape, vocab, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    index = torch.randint(vocab, shape, generator=torch.Generator().manual_seed(1))
    ours = log_prob_of(x, index)
    theirs = torch.log_softmax(x, -1).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


def first_log_prob(x: Tensor) -> Tensor:
    return log_prob_of(x, torch.zeros(x.shape[:-1], dtype=torch.long))


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("shape", SHAPES)
def test_row_sums_equal_torchs(shape: tuple[int, ...], vocab: int) -> None:
    x = torch.randn(*shape, vocab, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(row_sums(x), x.sum(-1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("vocab", VOCABS)
def test_log_softmax_of_extreme_logits(vocab: int) -> None:
    x = torch.zeros(3, vocab)
    x[0, 0], x[1, -1], x[2] = 1e4, -torch.inf if vocab > 1 else 0.0, -1e4
    torch.testing.assert_close(log_softmax(x), torch.log_softmax(x, -1))


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("rows", [1, 5, 7, 15, 33])
@pytest.mark.parametrize("function", [log_softmax, row_sums, first_log_prob])
def test_a_row_is_the_same_alone_and_in_company(
    function: Callable[[Tensor], Tensor], rows: int, vocab: int
) -> None:
    """Compare bit for bit in float32, with the gradient."""
    x = torch.randn(4, rows, vocab, generator=torch.Generator().manual_seed(0)).requires_grad_()
    together = function(x)
    together.square().sum().backward()
    for s in range(4):
        alone = x.detach()[s : s + 1].clone().requires_grad_()
        out = function(alone)
        out.square().sum().backward()
        assert torch.equal(out[0], together[s])
        assert torch.equal(alone.grad[0], x.grad[s])


@pytest.mark.parametrize("count", [3, 7, 10])
def test_a_mean_of_steps_is_the_same_alone_and_in_company(count):
    many = torch.randn(count, 16, generator=torch.Generator().manual_seed(count))
    found = mean_of_steps(list(many))
    torch.testing.assert_close(found, many.mean(0))
    for size in range(1, 16):
        assert torch.equal(mean_of_steps(list(many[:, :size])), found[:size])
