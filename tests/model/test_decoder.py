"""A library's decoder with weights of ours: their names, where they start, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModel, PretrainedConfig

from tests.branching import CONFIGS, WIDTH
from toyqs.model.backbones.decoder import Decoder
from toyqs.model.layers import initialise
from toyqs.training.optimizers.optimizer import Optimiser


def decoder(config: PretrainedConfig, seed: int = 0) -> Decoder:
    found = Decoder(config, "sdpa")
    initialise(found, [seed])
    return found


@pytest.mark.parametrize("family", CONFIGS)
def test_weights_are_the_library_s_seeds_first(family: str) -> None:
    """Return all parameters but the token table; tokens are passed as embeddings."""
    plain = AutoModel.from_config(CONFIGS[family]).named_parameters()
    wanted = {name: (1, *p.shape) for name, p in plain if name not in {"wte.weight", "embed_tokens.weight"}}
    ours = decoder(CONFIGS[family])
    assert {name: p.shape for name, p in ours.weights.named_parameters()} == wanted
    assert {name for name, _ in ours.named_parameters()} == {f"weights.{name}" for name in wanted}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_weights_start_by_seed_and_name_alone(family: str) -> None:
    deeper = copy.deepcopy(CONFIGS[family])
    deeper.num_hidden_layers = 3
    before = torch.get_rng_state()
    weights, same, other, deep = (
        dict(decoder(config, seed).named_parameters())
        for config, seed in [(CONFIGS[family], 0), (CONFIGS[family], 0), (CONFIGS[family], 1), (deeper, 0)]
    )
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in weights.items():
        assert torch.equal(weight, same[name])
        scaled = "c_proj.weight" in name  # GPT-2's projections into the residual stream, by 1 / √layers
        assert torch.equal(weight, deep[name]) != scaled
        if weight.dim() > 2:
            assert not torch.equal(weight, other[name])


@pytest.mark.parametrize("family", CONFIGS)
def test_weights_start_as_large_as_the_library_s(family: str) -> None:
    wide = copy.deepcopy(CONFIGS[family])
    wide.hidden_size = 64
    torch.manual_seed(0)
    plain = dict(AutoModel.from_config(wide).named_parameters())
    for name, weight in decoder(wide).weights.named_parameters():
        assert weight.std(correction=0).item() == pytest.approx(plain[name].std(correction=0).item(), rel=0.2)
        assert weight.mean().item() == pytest.approx(plain[name].mean().item(), abs=0.1)


def test_the_optimiser_moves_the_weights_that_the_library_s_code_uses() -> None:
    ours = decoder(CONFIGS["llama"])
    x, positions = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0)), torch.arange(4)[None]
    optimiser = Optimiser(ours)
    assert optimiser.num_seeds == 1
    before = ours(x, positions).square().sum()
    before.backward()
    optimiser.step(1e-3)
    assert ours(x, positions).square().sum() < before


def test_cached_views_follow_weights_that_are_moved() -> None:
    """Move the weights to a buffer, to another precision, into a copy; check every backward pass."""
    ours = decoder(CONFIGS["gpt2"])
    x, positions = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0)), torch.arange(4)[None]
    with torch.no_grad():
        first = ours(x, positions)
    twin = copy.deepcopy(ours)
    optimiser = Optimiser(ours)
    gradients = []
    for _ in range(2):
        optimiser.zero()
        ours(x, positions).square().sum().backward()
        gradients.append(optimiser.grads.clone())
    assert bool(gradients[0].any()) and torch.equal(*gradients)
    optimiser.step(1e-2)
    assert not torch.equal(ours(x, positions), first)
    assert torch.equal(twin(x, positions), first)
    torch.testing.assert_close(twin.double()(x.double(), positions).float(), first)
    assert twin(x.double(), positions).requires_grad
    twin.requires_grad_(False)
    assert not twin(x.double(), positions).requires_grad


def test_dropout_is_off() -> None:
    assert CONFIGS["gpt2"].attn_pdrop > 0.0
    ours = decoder(CONFIGS["gpt2"]).train()
    x, positions = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0)), torch.arange(4)[None]
    assert torch.equal(ours(x, positions), ours(x, positions))
    assert CONFIGS["gpt2"].attn_pdrop > 0.0  # the caller's config stays as it is


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("gpt2", {"model_type": "bert"}, "model_type=bert: not supported; give one of gpt2, llama"),
        ("mistral", {"sliding_window": 8}, "sliding_window=8: not supported; give None"),
        ("llama", {"head_dim": 3}, "head_dim=3: rotary positions turn pairs of numbers; give an even one"),
    ],
)
def test_refusals(family: str, change: dict[str, object], said: str) -> None:
    config = copy.deepcopy(CONFIGS[family])
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=said):
        Decoder(config, "sdpa")
