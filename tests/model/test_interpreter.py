"""Readings: afresh from the symbols alone, onward from the reasoner's state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.model.test_gru import torch_gru
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.positions import thinking_positions


def core_of(model: LatentReasoner, role: str) -> Core:
    return model.cores[model.letters[role]]


def consumed(core: Core, embeddings: list[Tensor], h: Tensor) -> Tensor:
    """Return the state (D,) after embeddings (D,), by torch's GRU."""
    plain = torch_gru(core.backbone, 0)
    return plain(torch.stack(embeddings)[None], h.view(1, 1, -1))[1].flatten()


def markers(core: Core) -> tuple[Tensor, Tensor]:
    start, end = core.markers.weight[0]
    return start, end


@pytest.mark.parametrize(
    "extra", [{}, {"thought_vocab": 5}, {"max_reasoning_len": 1}, {"max_reasoning_len": 4}]
)
def test_afresh_reads_start_symbols_end(extra: dict[str, int]) -> None:
    model, batch, noise = tiny.sampled(tiny.config(weight_groups="ABCD", interpreter_hidden_dim=4, **extra))
    thoughts = model.think(model.read(batch.inputs, thinking_positions(batch)), noise)
    readings, core = model.interpreter(thoughts), core_of(model, "interpreter")
    assert readings.shape == (*thoughts.symbols.shape[:-1], 4)
    table = (core.thoughts or core.tokens).weight[0]
    start, end = markers(core)
    for index in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(2)).tolist():
        symbols = thoughts.symbols[0][tuple(index)]
        wanted = consumed(core, [start, *table[symbols], end], model.interpreter.start_state.flatten())
        torch.testing.assert_close(readings[0][tuple(index)], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_onward_continues_the_reasoners_state(groups: str, length: int) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start="onward", max_reasoning_len=length)
    model, batch, noise = tiny.sampled(settings)
    thoughts = model.think(model.read(batch.inputs, thinking_positions(batch)), noise)
    readings = model.interpreter(thoughts)
    base, reasoner, interpreter = (core_of(model, r) for r in ("base_reasoner", "reasoner", "interpreter"))
    for b in range(3):
        for t, at in enumerate(batch.think[0, b].nonzero().flatten().tolist()):
            tokens = batch.inputs[0, b, : at + 1]
            read = consumed(base, list(base.tokens.weight[0][tokens]), torch.zeros(3).double())
            for k in range(2):
                said = reasoner.tokens.weight[0][thoughts.symbols[0, b, t, k]]
                state = consumed(reasoner, [markers(reasoner)[0], *said], read)
                wanted = consumed(interpreter, [markers(interpreter)[1]], state)
                torch.testing.assert_close(readings[0, b, t, k], wanted, rtol=0, atol=1e-12)


def test_afresh_at_length_zero_is_a_learned_constant() -> None:
    for groups in tiny.PATTERNS:
        settings = tiny.config(weight_groups=groups, max_reasoning_len=0)
        model, batch, noise = tiny.sampled(settings)
        trace = model(batch.inputs, thinking_positions(batch), noise)
        core = core_of(model, "interpreter")
        constant = consumed(core, list(markers(core)), model.interpreter.start_state.flatten())
        context = model.read(batch.inputs, thinking_positions(batch))
        features = [context.base.unsqueeze(3), constant.expand(1, 3, 2, 1, -1)]
        torch.testing.assert_close(trace.logits.squeeze(-2), model.head(features), rtol=0, atol=1e-12)
        assert trace.log_prob is None and trace.entropy is None


def test_onward_at_length_zero_knows_the_context_and_nothing_else() -> None:
    settings = tiny.config(interpreter_start="onward", max_reasoning_len=0, weight_groups="ABCD")
    model, batch, noise = tiny.sampled(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    trace = model.talk(context, model.think(context, noise))
    reasoner, interpreter = (core_of(model, r) for r in ("reasoner", "interpreter"))
    for b in range(3):
        for t in range(2):
            state = consumed(reasoner, [markers(reasoner)[0]], context.branches[0, b, t, 0])
            reading = consumed(interpreter, [markers(interpreter)[1]], state)
            wanted = model.head([context.base[:, b : b + 1, t], reading[None, None]])
            torch.testing.assert_close(trace.logits[:, b, t, 0], wanted, rtol=0, atol=1e-12)
    assert trace.log_prob is None
    assert model.thought_head is None


def test_a_zero_length_model_has_the_thinking_models_predictor() -> None:
    """Check that it lacks only parts that serve thoughts: their head, and with afresh the thinking roles."""
    thinking = dict(tiny.model(tiny.config(weight_groups="ABCD")).named_parameters())
    without = dict(tiny.model(tiny.config(weight_groups="ABCD", max_reasoning_len=0)).named_parameters())
    gone = {name.rsplit(".", 1)[0].removesuffix(".backbone") for name in thinking.keys() - without.keys()}
    assert {name for name in gone if not name.startswith(("cores.B", "cores.C"))} == {
        "cores.D.tokens",
        "thought_head.projection",
    }
    assert without.keys() <= thinking.keys()
    assert all(torch.equal(without[name], thinking[name]) for name in without)
