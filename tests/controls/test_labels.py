"""A warm start's controls: the same labels on the same sequences, thought or said from states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.controls.arms import control, run
from tests.model.test_interpreter import consumed, core_of, markers
from tests.training.test_warm_start import PROGRAMS
from toyqs.config.builders.cost import count_cost, gold_head_cost
from toyqs.config.builders.model import build_model, count_parameters
from toyqs.config.builders.training import build_training_params
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import canonical
from toyqs.config.run_config import RunConfig
from toyqs.positions import thinking_positions
from toyqs.tasks.iterate import Iterate
from toyqs.training.batches import at_step, draw_batches, prepare

BACKBONES = pytest.mark.usefixtures("backbone")
ITERATED = {
    **{"task": Iterate(n=4, k=3, curriculum=0.0), "thought_vocab": 4, "warm_start": 4},
    **{"adaptive_len": True, "max_reasoning_len": 3},
}


@pytest.mark.parametrize("changes", [PROGRAMS, ITERATED])
def test_every_control_has_the_same_labels_on_the_same_sequences(changes: dict[str, Any]) -> None:
    settings = run(**changes, max_steps=6)
    arms = {"thinking": settings} | {
        name: control(name, **changes, max_steps=6) for name in unmatched_controls(settings)
    }
    assert len(arms) == 11
    for step in range(6):
        found = {}
        for name, arm in arms.items():
            params = build_training_params(arm)
            assert params.warm_start == 4 and params.weights["gold"].at(0.5) == 1.0, name
            drawn = draw_batches(arm.task, [3], params, torch.zeros(1).double())
            found[name] = at_step([next(drawn) for _ in range(step + 1)][-1], params, step)
        first = found["thinking"]
        for name, batch in found.items():
            assert torch.equal(batch.inputs, first.inputs), name
            assert (batch.counted.gold is None) == (step >= 4)
            assert step >= 4 or torch.equal(batch.counted.gold, first.counted.gold), name


THINK = {"policy_off", "reward_shuffled", "policy_reversed"}


def test_which_arms_think_the_right_thoughts_and_which_say_them() -> None:
    settings = run(**PROGRAMS)
    ways = {name: canonical(arm).warm_start_as for name, arm in unmatched_controls(settings).items()}
    assert {name for name, way in ways.items() if way == "thoughts"} == THINK and len(ways) == 10
    blind = unmatched_controls(run(**PROGRAMS, use_base_lm=False))["zero_length"]
    assert canonical(blind).warm_start == 0, "it has no state that has read anything"


def labels_of(settings: RunConfig) -> tuple[Any, Any, Tensor]:
    """Return a model, a batch whole and at its thinking positions, and log p of the right thoughts."""
    model = tiny.model(settings)
    whole = settings.task.sample(torch.Generator().manual_seed(2), 3, 0, "train")
    whole = whole._replace(gold=settings.task.gold(whole.inputs), weights=whole.weights.double())
    lengths = (
        settings.task.thought_length(whole.inputs)
        if settings.adaptive_len and settings.has_thoughts
        else None
    )
    positions = thinking_positions(whole)
    counted = prepare(whole._replace(thought_length=lengths), torch.zeros(1)).counted
    noise = tiny.noise((1, *counted.targets.shape[1:], settings.trice_samples, settings.max_reasoning_len))
    context = model.read(whole.inputs, positions)
    return (
        model,
        (whole, positions, counted),
        model.instruct(context, noise, counted.gold, lengths=counted.lengths).gold_log_prob,
    )


def said(head: Any, states: list[Tensor], gold: list[int]) -> Tensor:
    """Say each symbol from its state (D,), all of them from one where there is one alone."""
    weight, bias = head.linear.weight[0], head.linear.bias[0, 0]
    total = torch.zeros((), dtype=torch.float64)
    for place, symbol in enumerate(gold):
        logits = states[min(place, len(states) - 1)] @ weight + bias
        if len(states) == 1:
            logits = logits[place * head.symbols : (place + 1) * head.symbols]
        total = total + logits.log_softmax(-1)[symbol]
    return total


@pytest.mark.parametrize("name", ["no_reasoner", "state_handed_on", "pause"])
@pytest.mark.parametrize("changes", [PROGRAMS, ITERATED])
def test_labels_are_said_from_the_states_of_the_steps(name: str, changes: dict[str, Any]) -> None:
    settings = control(name, **changes)
    model, (whole, positions, counted), got = labels_of(settings)
    role = "base_lm" if name == "no_reasoner" else "reasoner"
    reader, core = core_of(model, "base_lm" if role == "base_lm" else "base_reasoner"), core_of(model, role)
    for b in range(3):
        for t, position in enumerate(positions[0, b].tolist()):
            gold = [symbol for symbol in counted.gold[0, b, t].tolist() if symbol >= 0]
            tokens = [reader.tokens.weight[0][i] for i in whole.inputs[0, b, : position + 1]]
            states = [consumed(reader, tokens, torch.zeros(reader.backbone.width).double())]
            if name != "no_reasoner":
                states = [consumed(core, [markers(core)[0]], states[0])]
            if name == "pause":
                for _ in gold[1:]:
                    states.append(consumed(core, [core.thoughts.weight[0][0]], states[-1]))
                states = states if len(states) > 1 else states * 2  # it has rows for one symbol alone
            torch.testing.assert_close(got[0, b, t], said(model.gold_head, states, gold), rtol=0, atol=1e-12)


@BACKBONES
@pytest.mark.parametrize(
    "name", ["thinking", "no_reasoner", "zero_length", "state_handed_on", "pause", "random"]
)
@pytest.mark.parametrize("changes", [PROGRAMS, ITERATED | {"use_base_lm": True}])
def test_labels_train_the_states_that_say_them(name: str, changes: dict[str, Any]) -> None:
    settings = run(**changes) if name == "thinking" else control(name, **changes)
    model, _, log_prob = labels_of(settings)
    grads = tiny.gradients(log_prob.sum(), model)
    found = {key for key, grad in grads.items() if float(grad.abs().max()) > 0}
    role = "reasoner" if "reasoner" in model.letters else "base_lm"
    reader = "base_reasoner" if role == "reasoner" else role
    assert any(key.startswith(f"cores.{model.letters[reader]}.") for key in found)
    assert any(key.startswith("thought_head" if name == "thinking" else "gold_head") for key in found)
    assert (model.gold_head is None) == (name == "thinking")


@pytest.mark.parametrize("changes", [PROGRAMS | {"variable_len": True, "max_reasoning_len": 3}, ITERATED])
def test_an_end_that_is_sampled_is_part_of_the_right_thought(changes: dict[str, Any]) -> None:
    settings = run(**changes)
    model, (whole, positions, counted), got = labels_of(settings)
    for b in range(3):
        position = int(positions[0, b, 0])
        gold = [symbol for symbol in counted.gold[0, b, 0].tolist() if symbol >= 0]
        if settings.variable_len:
            gold = [*gold, settings.thought_vocab]  # the end, within L
        found = reference.predict(model, settings, whole.inputs[0, b, : position + 1], torch.tensor([gold]))
        torch.testing.assert_close(got[0, b, 0], found.log_prob.sum(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["no_reasoner", "state_handed_on", "pause", "random"])
def test_what_says_labels_is_counted_apart(name: str) -> None:
    settings, without = control(name, **PROGRAMS), control(name, **PROGRAMS | {"warm_start": 0})
    assert count_cost(settings) == count_cost(without) and gold_head_cost(without) == {}
    assert count_parameters(settings) == count_parameters(without)
    own = {key: p.shape[1:] for key, p in build_model(settings, [0]).named_parameters() if "gold_head" in key}
    cost, weight = gold_head_cost(settings), own["gold_head.linear.weight"].numel()
    assert cost["label_parameters"] == sum(shape.numel() for shape in own.values()) > weight
    steps = settings.max_reasoning_len if settings.has_thoughts else 1
    assert cost["label_flops"] == 3 * 2 * weight * steps, "a product forward and two backward, at each state"


def test_thinking_has_no_labels_to_count() -> None:
    assert gold_head_cost(run(**PROGRAMS)) == {} == gold_head_cost(control("policy_off", **PROGRAMS))
    assert count_cost(run(**PROGRAMS)) == count_cost(run(**PROGRAMS | {"warm_start": 0}))
