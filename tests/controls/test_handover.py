"""A state handed on to an interpreter of another width: one linear map of all that is remembered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.controls.arms import control
from tests.model.test_interpreter import consumed, core_of, markers
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.positions import thinking_positions

TRANSFORMERS = pytest.mark.parametrize("family", ["gpt2", "llama"])


@pytest.mark.parametrize("length", [0, 2])
def test_a_grus_state_is_mapped_before_the_end_marker(length: int) -> None:
    settings = tiny.config(
        interpreter_start="onward", interpreter_hidden_dim=5, max_reasoning_len=length, thought_vocab=4
    )
    model, batch, noise = tiny.sampled(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    thoughts = model.think(context, noise)
    readings = model.interpreter(thoughts)
    reasoner, interpreter = core_of(model, "reasoner"), core_of(model, "interpreter")
    given = model.interpreter.handover
    for b, t in ((0, 0), (1, 1), (2, 0)):
        said = [reasoner.thoughts.weight[0][s] for s in thoughts.symbols[0, b, t, 0]]
        state = consumed(reasoner, [markers(reasoner)[0], *said], context.branches[0, b, t, 0])
        state = state @ given.weight[0] + given.bias[0, 0]
        wanted = consumed(interpreter, [markers(interpreter)[1]], state)
        torch.testing.assert_close(readings[0, b, t, 0], wanted, rtol=0, atol=1e-12)


def transformer(family: str, width: int) -> tuple[LatentReasoner, Tensor, Tensor]:
    pytest.importorskip("transformers")
    settings = control(
        "pause",
        backbone=family,
        interpreter_hidden_dim=width,
        reasoner_hidden_dim=8,
        base_lm_hidden_dim=4,
        model_n_head=2,
        model_n_layer=2,
    )
    model, batch, noise = tiny.sampled(settings)
    return model, batch, noise


@TRANSFORMERS
def test_every_layers_keys_and_values_have_a_map_of_their_own(family: str) -> None:
    """With multiples of the identity as maps, every number of the state is multiplied by its own map's."""
    model, batch, noise = transformer(family, 8)
    backbone = core_of(model, "reasoner").backbone
    handover = backbone.handover(1, 8).double()
    for number, linear in enumerate(handover.maps, start=1):
        linear.weight.data = number * torch.eye(8, dtype=torch.float64).unsqueeze(0)
        linear.bias.data.zero_()
    state = model.think(model.read(batch.inputs, thinking_positions(batch)), noise).branches
    mapped = handover(state)
    assert len(state.own) == 2, "the start marker and the first symbol"
    pairs = [
        (mapped.prefix, state.prefix),
        *((a.layers, b.layers) for a, b in zip(mapped.own, state.own, strict=True)),
    ]
    for ours, theirs in pairs:
        for layer, (got, was) in enumerate(zip(ours, theirs, strict=True)):
            for kind in (0, 1):
                torch.testing.assert_close(got[kind], (2 * layer + kind + 1) * was[kind], rtol=0, atol=1e-12)
    for name in ("visible", "position", "context"):
        assert torch.equal(getattr(mapped, name), getattr(state, name))


@TRANSFORMERS
def test_with_the_identity_as_map_the_reading_is_that_without_a_map(family: str) -> None:
    model, batch, noise = transformer(family, 8)
    thoughts = model.think(model.read(batch.inputs, thinking_positions(batch)), noise)
    plain = model.interpreter(thoughts)
    handover = core_of(model, "reasoner").backbone.handover(1, 8).double()
    for linear in handover.maps:
        nn.init.eye_(linear.weight.data[0])
        linear.bias.data.zero_()
    model.interpreter.handover = handover
    torch.testing.assert_close(model.interpreter(thoughts), plain, rtol=0, atol=1e-12)


@TRANSFORMERS
def test_heads_are_mapped_together(family: str) -> None:
    """The first number of the first head of the map's output can come from the last head's last."""
    model, batch, noise = transformer(family, 4)
    state = model.think(model.read(batch.inputs, thinking_positions(batch)), noise).branches
    handover = model.interpreter.handover
    for linear in handover.maps:
        linear.weight.data.zero_()
        linear.bias.data.zero_()
        linear.weight.data[0, 7, 0] = 1
    (keys, _), *_ = handover(state).prefix
    (own, _), *_ = state.prefix
    assert keys.shape == (*own.shape[:3], 2)
    assert torch.equal(keys[:, 0, :, 0], own[:, 1, :, 3])
    assert not keys[:, 1].any() and not keys[..., 1].any()
