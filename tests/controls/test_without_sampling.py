"""Controls whose thoughts are not sampled: the state handed on, pause, one constant symbol, Coconut steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import tiny
from tests.controls.arms import control, cores, moved, run, step_gradients, traced
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model, count_parameters
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import canonical
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.positions import thinking_positions
from toyqs.training.flops import Cost

BACKBONES = pytest.mark.usefixtures("backbone")
SHAPES = pytest.mark.parametrize(
    "changes",
    [{}, {"interpreter_hidden_dim": 5}, {"use_base_lm": False}, {"thoughts": "gaussian"}],
    ids=["plain", "wider", "no base", "vectors"],
)


def reads_the_state(settings: RunConfig) -> bool:
    """Tell whether the prediction changes with the reasoner's context alone, base states unchanged."""
    model, batch, noise = tiny.sampled(settings)
    positions = thinking_positions(batch)
    context, other = (model.read(x, positions) for x in (batch.inputs, (batch.inputs + 1) % tiny.SYMBOLS))
    other = other._replace(base=context.base)
    first, second = (model.talk(x, model.think(x, noise)).logits for x in (context, other))
    return not torch.equal(first, second)


def trains(settings: RunConfig, *roles: str) -> bool:
    """Tell whether a training step has a gradient at the backbones of all these roles."""
    model = tiny.model(settings)
    found = {name.rsplit(".backbone", 1)[0] + ".backbone" for name in moved(step_gradients(settings))}
    return cores(model, *roles) <= found


@SHAPES
@BACKBONES
def test_a_state_handed_on_has_no_symbols_and_is_read(changes: dict[str, Any]) -> None:
    settings = control("state_handed_on", **changes)
    model, _, trace = traced(settings)
    assert model.thought_head is None
    assert trace.log_prob is trace.entropy is trace.symbols is None and trace.logits.shape[3] == 1
    assert reads_the_state(settings) and trains(settings, "base_reasoner", "reasoner", "interpreter")
    assert ("base_lm" in model.letters) == settings.use_base_lm, "only base_lm is absent"
    silent = control("zero_length", **changes)  # what it would be if it began afresh
    assert not reads_the_state(silent)
    assert set(tiny.model(silent).letters) == set(model.letters) - {"base_reasoner", "reasoner"}


@SHAPES
@BACKBONES
def test_a_pause_is_steps_of_one_symbol_that_nothing_samples(changes: dict[str, Any]) -> None:
    settings = control("pause", **changes)
    (model, _, one), (_, _, other) = traced(settings, seed=0), traced(settings, seed=1)
    assert torch.equal(one.logits, other.logits) and one.logits.shape[3] == 1
    assert one.symbols.shape[3:] == (1, tiny.LENGTH) and not one.symbols.any()
    assert not one.log_prob.any() and not one.entropy.any()
    assert reads_the_state(settings) and trains(settings, "base_reasoner", "reasoner", "interpreter")
    found = moved(step_gradients(settings))
    letter = model.letters["reasoner"]
    assert f"cores.{letter}.thoughts.weight" in found, "back-propagated through the symbols"
    assert not any(name.startswith("thought_head") for name in found), "no policy"
    assert ("base_lm" in model.letters) == settings.use_base_lm, "only base_lm is absent"


@BACKBONES
def test_what_is_not_a_pause_is_told_from_one() -> None:
    """Two symbols are sampled; and read afresh the reasoner learns nothing."""
    two = resolved(RunConfig(**{**vars(control("pause")), "thought_vocab": 2}))
    assert not torch.equal(traced(two, seed=0)[2].logits, traced(two, seed=1)[2].logits)
    assert not trains(control("constant"), "reasoner")


@BACKBONES
def test_a_constant_thought_read_afresh_says_as_little_as_none() -> None:
    settings = control("constant")
    (model, batch, here), (_, _, there) = traced(settings), traced(settings, shift=1)
    context = model.read(batch.inputs, thinking_positions(batch))
    thoughts = model.think(context, tiny.noise(here.symbols.shape))
    reading = model.interpreter(thoughts)
    assert torch.equal(reading, reading[:, :1, :1, :1].expand_as(reading)), "a learned constant"
    assert not torch.equal(here.logits, there.logits), "the base has read"
    assert not reads_the_state(settings)
    onward = control("constant", interpreter_start="onward")
    assert reads_the_state(onward), "the run's own start"
    assert onward == control("pause", interpreter_start="onward")


@pytest.mark.parametrize("changes", [{}, {"interpreter_hidden_dim": 5}, {"interpreter_start": "onward"}])
@BACKBONES
def test_deterministic_thoughts_are_the_reasoners_states(changes: dict[str, Any]) -> None:
    settings = control("deterministic", **changes)
    (model, batch, one), (_, _, other) = traced(settings, seed=0), traced(settings, seed=1)
    assert torch.equal(one.logits, other.logits) and one.log_prob is one.entropy is None
    width = model.cores[model.letters["reasoner"]].backbone.width
    assert one.symbols.shape == (1, 3, 2, 1, tiny.LENGTH, width)
    assert trains(settings, "base_reasoner", "reasoner", "interpreter") and reads_the_state(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    core = model.cores[model.letters["reasoner"]]
    states, _ = core.backbone.step(core.thought_rows()[:, 0, None, None, None], context.branches)
    torch.testing.assert_close(one.symbols[..., 0, :], states, rtol=0, atol=1e-12)


def test_steps_of_a_control_are_counted() -> None:
    """Per token of 7, four of which think: reading, then markers, symbols and what the interpreter reads."""
    config = canonical(resolved(RunConfig(controls="all", max_steps=3)))
    found = {name: count_cost(canonical(x)) for name, x in unmatched_controls(config).items()}
    once = 1 / 64  # of a batch's sequences: what an interpreter reads once for all of them
    wanted = {
        "no_reasoner": 7,
        "zero_length": 7 + 2 * once,
        "state_handed_on": 14 + 4 * (1 + 1),
        "pause": 14 + 4 * (1 + 3 + 1),
        "deterministic": 14 + 4 * (1 + 2) + 4 * (3 + 1) + once,
        "constant": 14 + 4 * (1 + 2) + (1 + 3 + 1) * once,
    }
    steps = {name: 7 * found[name].recurrent_steps_per_token for name in wanted}
    assert steps == pytest.approx(wanted)
    whole = count_cost(config)
    same_as: dict[str, Cost] = {
        name: found[name] for name in ("policy_off", "reward_shuffled", "policy_reversed")
    }
    assert set(same_as.values()) == {whole}
    assert found["random"].recurrent_steps_per_token == whole.recurrent_steps_per_token
    for name in ("pause", "state_handed_on", "random", "constant"):
        assert found[name].flops_per_step < whole.flops_per_step, name
    for name, x in unmatched_controls(config).items():
        built = sum(p[0].numel() for p in build_model(canonical(x), [0]).parameters())
        assert built == found[name].parameters == count_parameters(canonical(x)), name


@pytest.mark.parametrize("backbone", ["gru", "gpt2", "llama"])
def test_the_map_of_a_state_handed_on_is_counted(backbone: str) -> None:
    """One matrix and one vector more than without the map, for each layer's keys and for its values."""
    if backbone != "gru":
        pytest.importorskip("transformers")
    given = {"backbone": backbone, "base_lm_hidden_dim": 4, "reasoner_hidden_dim": 8, "model_n_head": 2}
    wide, equal = (
        build_model(control("state_handed_on", interpreter_hidden_dim=width, **given), [0])
        for width in (4, 8)
    )
    maps = {name: p.numel() for name, p in wide.named_parameters() if "handover" in name}
    assert all(name.startswith("interpreter.handover.") for name in maps)
    assert sum(maps.values()) == (1 if backbone == "gru" else 2 * run().model_n_layer) * (8 * 4 + 4)
    assert not any("handover" in name for name, _ in equal.named_parameters())
