"""Stacked layers: each seed by itself, initial weights keyed by name."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from toyqs.model.layers import Embedding, FeatureHead, Linear, affine, gather_rows, initialise, logistic_


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_affine_is_one_product_per_seed() -> None:
    x, weight, bias = random(3, 2, 5, 4), random(3, 4, 6, seed=1), random(3, 1, 6, seed=2)
    for given in (bias, None):
        out = affine(x, weight, given)
        for s in range(3):
            wanted = x[s] @ weight[s] + (0 if given is None else given[s])
            torch.testing.assert_close(out[s], wanted, rtol=0, atol=1e-12)


def test_pick_rows_takes_each_seeds_own_rows_and_adds_up_their_gradients() -> None:
    table = random(2, 4, 3).requires_grad_()
    ids = torch.randint(4, (2, 5, 2), generator=torch.Generator().manual_seed(0))
    picked = gather_rows(table, ids)
    wanted = torch.stack([nn.functional.embedding(ids[s], table[s]) for s in range(2)])
    assert torch.equal(picked, wanted)
    pull = random(*picked.shape, seed=1)
    ours, theirs = (torch.autograd.grad((v * pull).sum(), table)[0] for v in (picked, wanted))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [999, 1024])  # with and without a remainder of the vector loop
def test_logistic(size: int) -> None:
    x = torch.linspace(-50, 50, 2 * size, dtype=torch.float64).view(2, size)
    torch.testing.assert_close(logistic_(x.clone()), torch.sigmoid(x), rtol=0, atol=1e-15)


def test_linear_maps_each_seed_by_its_own_weights() -> None:
    linear, x = Linear(2, 4, 3), random(2, 5, 4)
    initialise(linear, [3, 4])
    linear = linear.double()
    for s in range(2):
        wanted = x[s] @ linear.weight[s] + linear.bias[s]
        torch.testing.assert_close(linear(x)[s], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("linear", "layers"), [(True, 1), (True, 2), (True, 3), (False, 1)])
def test_the_heads_first_layer_is_over_its_features_side_by_side(linear: bool, layers: int) -> None:
    head = FeatureHead(2, (3, 4), 5, linear, layers=layers)
    initialise(head, [0, 1])
    head = head.double()
    base, reading = random(2, 6, 1, 3), random(2, 6, 7, 4, seed=1)  # the base state serves all thoughts
    logits = head([base, reading])
    assert logits.shape == (2, 6, 7, 5)
    for s in range(2):
        both = torch.cat([base[s].expand(-1, 7, -1), reading[s]], -1)
        out = both @ torch.cat([head.weight_0[s], head.weight_1[s]]) + head.bias[s]
        others = [layer for layer in head.rest if isinstance(layer, Linear)]
        assert len(others) == (layers - 1 if linear else 2)
        for layer in others:
            out = (out if linear else nn.functional.gelu(out)) @ layer.weight[s] + layer.bias[s]
        torch.testing.assert_close(logits[s], out, rtol=0, atol=1e-12)


def test_a_feature_left_out_counts_as_zero() -> None:
    head = FeatureHead(1, (3, 4), 5)
    initialise(head, [0])
    head, base = head.double(), random(1, 6, 1, 3)
    torch.testing.assert_close(head([base]), head([base, base.new_zeros(1, 6, 1, 4)]), rtol=0, atol=1e-12)


def test_a_head_of_two_linear_layers_is_as_wide_as_its_features_between_them() -> None:
    """Check that with it the head loses no function that one layer computes: the map has full rank."""
    shapes = [tuple(p.shape) for p in FeatureHead(1, (3, 4), 5, layers=2).parameters()]
    assert sorted(shapes) == sorted([(1, 3, 7), (1, 4, 7), (1, 1, 7), (1, 7, 5), (1, 1, 5)])


def test_an_mlp_head_has_two_hidden_layers_of_512() -> None:
    shapes = [tuple(p.shape) for p in FeatureHead(1, (3,), 5, linear=False).parameters()]
    assert sorted(shapes) == sorted(
        [(1, 3, 512), (1, 1, 512), (1, 512, 512), (1, 1, 512), (1, 512, 5), (1, 1, 5)]
    )


class Pair(nn.Module):
    """Join two parts, of which the second may be absent."""

    def __init__(self, seeds: int, second: bool) -> None:
        super().__init__()
        if second:
            self.extra = Embedding(seeds, 7, 2)
        self.part = Linear(seeds, 4, 3)


def test_initial_weights_are_keyed_by_seed_and_name() -> None:
    alone, beside = Pair(1, second=False), Pair(3, second=True)
    initialise(alone, [5])
    initialise(beside, [4, 5, 6])
    assert torch.equal(alone.part.weight[0], beside.part.weight[1])
    assert torch.equal(alone.part.bias[0], beside.part.bias[1])
    assert not torch.equal(beside.part.weight[0], beside.part.weight[1])
    other = nn.ModuleDict({"elsewhere": Linear(1, 4, 3)})
    initialise(other, [5])
    assert not torch.equal(other["elsewhere"].weight, alone.part.weight)


def test_both_precisions_start_from_the_same_numbers() -> None:
    single, double = Linear(1, 4, 3), Linear(1, 4, 3).double()
    initialise(single, [0])
    initialise(double, [0])
    assert torch.equal(single.weight, double.weight.float())
    assert not torch.equal(double.weight, double.weight.float().double())


def test_initial_weights_keep_their_rule() -> None:
    linear, table = Linear(1, 400, 30), Embedding(1, 1000, 30, std=0.5)
    initialise(linear, [0])
    initialise(table, [0])
    bound = 1 / math.sqrt(400)
    assert 0.99 * bound < float(linear.weight.detach().abs().max()) <= bound
    assert abs(float(linear.weight.detach().mean())) < 0.02 * bound
    assert abs(float(table.weight.detach().std()) - 0.5) < 0.01
