"""What the prediction sees of the context, and where thinking makes no difference."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from tests.model.test_structure import core
from toyqs.positions import thinking_positions

BACKBONES = pytest.mark.usefixtures("backbone")


@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_symbols_alone_carry_the_context(groups: str) -> None:
    """Check use_base_lm=false: with the same symbols, another context changes no prediction."""
    settings = tiny.config(weight_groups=groups, use_base_lm=False)
    model, batch, noise = tiny.sampled(settings)
    other = (batch.inputs + 1) % tiny.SYMBOLS
    symbols = model.think(model.read(batch.inputs, thinking_positions(batch)), noise).symbols
    before, after = (model(x, thinking_positions(batch), noise, symbols) for x in (batch.inputs, other))
    assert torch.equal(before.logits, after.logits)
    assert not torch.equal(before.log_prob, after.log_prob)
    moved = model(batch.inputs, thinking_positions(batch), noise, (symbols + 1) % tiny.SYMBOLS)
    assert not torch.equal(before.logits, moved.logits)


@BACKBONES
def test_with_a_base_lm_the_context_speaks_too() -> None:
    for start in tiny.STARTS:
        model, batch, noise = tiny.sampled(tiny.config(interpreter_start=start))
        symbols = model.think(model.read(batch.inputs, thinking_positions(batch)), noise).symbols
        before = model(batch.inputs, thinking_positions(batch), noise, symbols)
        after = model((batch.inputs + 1) % tiny.SYMBOLS, thinking_positions(batch), noise, symbols)
        assert not torch.equal(before.logits, after.logits)


@pytest.mark.parametrize("mixing", tiny.MIXERS)
@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_thinking_where_marked_equals_thinking_everywhere_there(start: str, mixing: str) -> None:
    settings = tiny.config(interpreter_start=start, mixing=mixing)
    model, batch, _ = tiny.sampled(settings, copies=2)
    noise = tiny.noise((2, 3, 4, 2, 2))
    everywhere = model(batch.inputs, None, noise)
    marked = noise[batch.think].view(2, 3, 2, 2, 2)
    there = model(batch.inputs, thinking_positions(batch), marked)
    for name in ("logits", "log_prob", "entropy"):
        whole = getattr(everywhere, name)
        wanted = whole[batch.think].view(2, 3, 2, *whole.shape[3:])
        torch.testing.assert_close(getattr(there, name), wanted, rtol=0, atol=1e-12, msg=name)


@BACKBONES
def test_a_model_without_a_reasoner_gives_the_base_lm_alone() -> None:
    """Check that equal names give equal weights: the plain control starts as the thinking run's base LM."""
    thinking_model = dict(tiny.model(tiny.config(mixing="add")).named_parameters())
    plain = dict(tiny.model(tiny.config(use_reasoner=False)).named_parameters())
    assert set(plain) == core(tiny.config(), "base_lm", "tokens") | {"head.weight_0", "head.bias"}
    same = {name for name in plain if not name.endswith("wpe.weight")}  # as long as the longest sequence
    assert all(torch.equal(plain[name], thinking_model[name]) for name in same)
    model, batch, noise = tiny.sampled(tiny.config(use_reasoner=False))
    trace = model(batch.inputs, thinking_positions(batch), noise)
    assert trace.logits.shape == (1, 3, 2, 1, 1, 3)
    assert trace.log_prob is None and trace.entropy is None and trace.thought_weight is None
