"""Layers whose weights several processes keep parts of, against the layers whole."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from tests.branching import CONFIGS, WIDTH, backbone
from tests.side_by_side import Exchange, side_by_side
from toyqs.model.backbones.frozen import Frozen
from toyqs.model.backbones.sharding import Place, Shards, part_of, sharded, whole_parameters
from toyqs.model.backbones.transformer import TransformerBackbone
from toyqs.model.layers import initialise

SEQUENCES = 6  # each of one, two or three processes gets as many


def place(exchange: Exchange) -> Place:
    return Place(exchange.rank, exchange.ranks, exchange.whole)


def built(family: str, recompute: bool = False) -> TransformerBackbone:
    found = backbone(family)
    for layer in found.decoder._layers.values():
        layer.recompute = recompute
    return found


def outputs(model: TransformerBackbone, sequences: slice = slice(None)) -> Tensor:
    """What thoughts of two symbols make of some of the sequences."""
    x = torch.randn(1, SEQUENCES, 5, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x[:, sequences]
    _, state = model.read(x)
    for _ in range(2):
        out, state = model.step(x.unsqueeze(3).flip(2), state)
    return out


def mine(exchange: Exchange) -> slice:
    size = SEQUENCES // exchange.ranks
    return slice(exchange.rank * size, (exchange.rank + 1) * size)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("family", "ranks"), [("gpt2", 2), ("llama", 3), ("qwen3", 2)])
def test_portions_on_parts_give_the_outputs_and_gradients_of_the_whole(
    family: str, ranks: int, recompute: bool
) -> None:
    whole = built(family, recompute)
    models = [copy.deepcopy(whole) for _ in range(ranks)]
    wanted = outputs(whole)
    wanted.square().sum().backward()

    def work(exchange: Exchange) -> None:
        model = models[exchange.rank]
        model.shard(place(exchange))
        out = outputs(model, mine(exchange))
        out.square().sum().backward()
        torch.testing.assert_close(out, wanted[:, mine(exchange)], rtol=0, atol=1e-12)
        shapes = sharded(model)
        assert shapes and all(".weights." in name for name in shapes)
        for name, parameter in whole.named_parameters():
            here = model.get_parameter(name)
            if name in shapes:
                assert here.shape == (1, -(-parameter.numel() // ranks))
                gradient = part_of(parameter.grad, exchange.rank, ranks)
            else:  # of what all have whole each has a share of the gradient
                here.grad, gradient = exchange.total(here.grad), parameter.grad.flatten()
            torch.testing.assert_close(here.grad.flatten(), gradient, rtol=0, atol=1e-11)
        for name, values in whole_parameters(model, exchange.whole):
            assert torch.equal(values, whole.get_parameter(name))

    side_by_side(ranks, work)


@contextmanager
def gathered() -> Iterator[list[weakref.ref[Tensor]]]:
    """The weights that layers gather meanwhile."""
    seen: list[weakref.ref[Tensor]] = []
    right = Shards._gathered

    def watched(shards: Shards) -> dict[str, Tensor]:
        weights = right(shards)
        seen.extend(weakref.ref(weight.untyped_storage()) for weight in weights.values())
        return weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shards, "_gathered", watched)
        yield seen


def alive(seen: list[weakref.ref[Tensor]]) -> int:
    return sum(each() is not None for each in seen)


@contextmanager
def keeping(shards: Shards, weights: Mapping[str, Tensor]) -> Iterator[None]:
    yield


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("recompute", [False, True])
def test_no_whole_weight_outlives_its_layer(
    family: str, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most() -> tuple[int, int, int]:
        """Weights of a layer, those alive after the forward pass, and at most in the backward pass."""
        model = built(family, recompute)
        model.shard(Place(0, 1, lambda part: part * 1))
        layer = model.decoder._layers
        size = len(next(iter(layer.values())).shards.shapes)
        with gathered() as seen:
            out = outputs(model)
            after, found = alive(seen), [0]
            right = Shards._gathered
            monkeypatch.setattr(
                Shards, "_gathered", lambda shards: (found.append(alive(seen)), right(shards))[1]
            )
            out.square().sum().backward()
            monkeypatch.setattr(Shards, "_gathered", right)
        return size, after, max(found)

    size, after, most_backward = most()
    assert after == 0 and most_backward <= size
    if not recompute:
        monkeypatch.setattr(Shards, "let_go", keeping)
        assert most()[1] >= size, "this test would not see it"


@pytest.mark.parametrize("recompute", [False, True])
def test_frozen_layers_are_shared_and_cut_once(recompute: bool) -> None:
    """Two letters' adapters over one frozen decoder; GPT-2, whose sums do not go evenly to three."""
    plain = built("gpt2")
    frozen = Frozen({name: weight[0].detach() for name, weight in plain.decoder.weights.named_parameters()})
    whole = torch.nn.ModuleList(
        [TransformerBackbone(CONFIGS["gpt2"], frozen, 2, recompute=recompute) for _ in range(2)]
    )
    initialise(whole, [0])
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            parameter.add_(0.1 * (1 + len(name) % 3))
    whole.double()
    replicas = [copy.deepcopy(whole) for _ in range(3)]
    for replica in replicas:  # a deep copy shares what is frozen; processes do not
        own = Frozen(frozen.tensors())
        for letter in replica:
            letter.decoder.frozen = own
    wanted = outputs(whole[0]) + outputs(whole[1])
    wanted.square().sum().backward()

    def work(exchange: Exchange) -> None:
        model = replicas[exchange.rank]
        for letter in model:
            letter.shard(place(exchange))
        out = outputs(model[0], mine(exchange)) + outputs(model[1], mine(exchange))
        out.square().sum().backward()
        torch.testing.assert_close(out, wanted[:, mine(exchange)], rtol=0, atol=1e-12)
        assert not sharded(model)
        here = sum(buffer.numel() for buffer in model[0].decoder.frozen.buffers())
        everything = sum(tensor.numel() for tensor in frozen.tensors().values())
        assert here < 0.5 * everything
        for name, parameter in model.named_parameters():
            gradient = exchange.total(parameter.grad)
            torch.testing.assert_close(gradient, whole.get_parameter(name).grad, rtol=0, atol=1e-10)

    side_by_side(3, work)


@pytest.mark.parametrize("recompute", [False, True])
def test_what_is_gathered_is_never_out_of_date(recompute: bool) -> None:
    whole = built("gpt2", recompute)
    parts = copy.deepcopy(whole)
    parts.shard(Place(0, 1, lambda part: part * 1))
    for _ in range(2):
        gradients = []
        for model in (whole, parts):
            model.zero_grad()
            outputs(model).square().sum().backward()
            gradients.append({name: p.grad.flatten() for name, p in model.named_parameters()})
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(parameter.grad, alpha=1e-3)
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rounded_before_a_layer_or_within_is_the_same(family: str, recompute: bool) -> None:
    found: list[dict[str, Any]] = []
    whole = TransformerBackbone(CONFIGS[family], autocast=True, recompute=recompute)
    initialise(whole, [0])
    for cut in (False, True):
        model = copy.deepcopy(whole)
        if cut:
            model.shard(Place(0, 1, lambda part: part * 1))
        x = torch.randn(1, 2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
        _, state = model.read(x)
        out, state = model.step(x.unsqueeze(3), state)
        out.square().sum().backward()
        found.append({"out": out} | {name: p.grad.flatten() for name, p in model.named_parameters()})
    for name, values in found[0].items():
        assert torch.equal(values, found[1][name]), name


def test_parts_make_up_the_whole() -> None:
    whole = torch.arange(7.0).view(1, 7)
    for ranks in (1, 2, 3, 9):
        parts = [part_of(whole, rank, ranks) for rank in range(ranks)]
        assert len({len(part) for part in parts}) == 1
        assert torch.equal(torch.cat(parts)[:7], whole[0]) and not torch.cat(parts)[7:].any()
