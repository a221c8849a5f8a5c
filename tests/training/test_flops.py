"""Counted costs against hand formulas, and counted parameters against those that learn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import tiny
from tests.training.test_loop import quick
from toyqs.config.builders import cost
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import count_parameters
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones import branch_attention
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.training.batches import draw_batches
from toyqs.training.loop import accumulate

V, T, THINKING = tiny.SYMBOLS, 4, 2


@pytest.mark.parametrize("width", [3, 8])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_flops_of_a_plain_gru(width: int, batch_size: int) -> None:
    """Count 2 n k m for each product (n, k) x (k, m), and two more of them in the backward pass."""
    settings = tiny.config(use_reasoner=False, base_lm_hidden_dim=width, data_loader_batch_size=batch_size)
    project_input = 2 * V * width * 3 * width
    recurrent = 2 * batch_size * width * 3 * width
    head = 2 * batch_size * THINKING * width * V
    # The first state is no parameter: its gradient is not computed.
    wanted = 3 * project_input + (3 * T - 1) * recurrent + 3 * head
    counted = count_cost(settings)
    assert counted.flops_per_step == wanted
    assert counted.flops_per_token == wanted / (batch_size * T)
    assert counted.recurrent_steps_per_token == 1.0
    assert counted.parameters == V * width + 6 * width * width + 6 * width + width * V + V


@pytest.mark.parametrize("share", [False, True])
def test_flops_and_parameters_of_a_second_linear_layer(share: bool) -> None:
    """Count 6 n k m for each product (n, k) x (k, m), forward and backward; both features are 3 wide."""
    one, two = (
        count_cost(tiny.config(lm_head_layers=layers, share_lm_head=share, trice_samples=2))
        for layers in (1, 2)
    )
    places, both = 4 * THINKING, 6
    features = (places + 2 * places) * 3 * (both - V)  # of the base once, of the reading for both thoughts
    symbols = (places + 2 * places) * both * both if share else 0  # the second symbol of both thoughts
    assert two.flops_per_step - one.flops_per_step == 6 * (features + 2 * places * both * V + symbols)
    assert two.parameters - one.parameters == both * both + both
    assert two.recurrent_steps_per_token == one.recurrent_steps_per_token
    plain = [count_cost(tiny.config(use_reasoner=False, lm_head_layers=layers)) for layers in (1, 2, 3)]
    assert [one.parameters - plain[0].parameters for one in plain] == [0, 12, 24]
    assert [one.flops_per_step - plain[0].flops_per_step for one in plain] == [0, 54 * places, 108 * places]


@pytest.mark.parametrize("shared", [None, 1])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_flops_of_a_plain_transformer(
    family: str, shared: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count a layer's matrices 3 times; of attention two products forward and five backward."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(tiny, "BACKBONE", family)
    settings = tiny.config(use_reasoner=False, base_lm_hidden_dim=8, model_n_kv_head=shared)
    width, batch_size, inner = 8, 4, 4 * 8 if family == "gpt2" else 8 * 8 // 3
    heads = 1.0 if shared is None or family == "gpt2" else 0.5  # keys and values of one head in place of two
    matrices = 2 * (1 + heads) * width**2 + (2 if family == "gpt2" else 3) * width * inner
    attention = 2 * T * width * (2 + 5)
    layers = 2 * batch_size * T * (3 * 2 * matrices + attention)
    wanted = layers + 3 * 2 * batch_size * THINKING * width * V
    assert count_cost(settings).flops_per_step == pytest.approx(wanted, rel=0.02)


def test_a_step_on_a_gpu_is_counted_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count attention to all of the context, of which a block of positions leaves out a part on a CPU."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tiny, "BACKBONE", "llama")
    monkeypatch.setattr(branch_attention, "POSITIONS", 1)
    here, there = (count_cost(tiny.config(device=device)) for device in ("cpu", "cuda"))
    assert here.flops_per_step < there.flops_per_step
    monkeypatch.setattr(branch_attention, "POSITIONS", T)
    assert count_cost(tiny.config()) == there


@pytest.mark.parametrize("length", [0, 1, 3, 6])
@pytest.mark.parametrize("start", tiny.STARTS)
def test_recurrent_steps(start: str, length: int) -> None:
    """Check that every state update counts once, also one that branches or positions share."""
    settings = tiny.config(
        interpreter_start=start, max_reasoning_len=length, trice_samples=5, data_loader_batch_size=8
    )
    places = 8 * THINKING
    thoughts = 5 if length else 1
    reading_twice = 2 * 8 * T  # base_lm and base_reasoner
    thinking = places * (1 + max(0, length - 1) * thoughts)  # the start marker, then all symbols but the last
    if start == "onward":
        updates = reading_twice + thinking + places * thoughts * (2 if length else 1)
    elif length:
        depth = min(length, int(math.log(places * thoughts, V)))  # beginnings of thoughts, read once
        updates = reading_twice + thinking + sum(V**level for level in range(depth + 1))
        rest = length - depth
        updates += (rest + 1) * places * thoughts if rest else V**depth  # and the end marker
    else:
        updates = 8 * T + 2  # no base_reasoner; start and end marker once
    assert count_cost(settings).recurrent_steps_per_token == pytest.approx(updates / (8 * T))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("start", tiny.STARTS)
def test_tokens_read_after_a_thought_are_counted(
    family: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count a step of every thought for each of them, and its reading's product with the head."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(tiny, "BACKBONE", family)
    sizes = {"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 8, "interpreter_start": start}
    read_on, silent = (
        count_cost(tiny.config(**sizes, n_tokens_ahead=3, ahead=ahead)) for ahead in ("continue", "persist")
    )
    steps = 4 * THINKING * 2 * 2  # of sequences, positions, thoughts, tokens
    matrices = 4 * 8 * 8 + (2 * 8 * 32 if family == "gpt2" else 3 * 8 * (8 * 8 // 3))
    # Of the context, where it is heard: two products forward and five backward.
    heard = 2 * 2 * T * 8 * (2 + 5) if start == "onward" else 0
    wanted = steps * (3 * 2 * (2 * matrices + 8 * V) + heard)
    assert read_on.flops_per_step - silent.flops_per_step == wanted
    more = read_on.recurrent_steps_per_token - silent.recurrent_steps_per_token
    assert more == pytest.approx(steps / (4 * T))


@pytest.mark.parametrize("length", [0, 2])
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
def test_counted_parameters_are_those_that_learn(groups: str, start: str, length: int) -> None:
    """Check all parameters but markers that no role reads: a letter has both markers or none."""
    settings = tiny.config(
        weight_groups=groups,
        interpreter_start=start,
        max_reasoning_len=length,
        entropy_encouragement_coef=0.1,
        trice_samples=4,
        data_loader_batch_size=16,
    )
    model = tiny.model(settings)
    numbers = build_training_params(settings)
    drawn = next(draw_batches(settings.task, [0], numbers, next(model.parameters())))
    weights = {name: weight.at(0.0) for name, weight in numbers.weights.items()}
    accumulate(model, build_objective(settings), drawn, weights, numbers, torch.zeros(1).double())
    assert all(p.grad is not None for p in model.parameters())
    silent = sum(int((p.grad == 0).sum()) for p in model.parameters())
    assert count_cost(settings).parameters == count_parameters(settings)
    learning = sum(p.numel() for p in model.parameters()) - silent
    assert count_parameters(settings) - learning == unheard_markers(settings) * 3


def unheard_markers(settings: RunConfig) -> int:
    """Count the rows of marker tables that nothing reads."""
    roles = dict(
        zip(("base_lm", "base_reasoner", "reasoner", "interpreter"), settings.weight_groups, strict=True)
    )
    heard = {(roles["interpreter"], "end")}
    if settings.interpreter_start == "afresh":
        heard.add((roles["interpreter"], "start"))
    if settings.max_reasoning_len or settings.interpreter_start == "onward":
        heard.add((roles["reasoner"], "start"))
    return 2 * len({letter for letter, _ in heard}) - len(heard)


def test_a_step_that_does_not_fit_is_counted_as_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    task = HiddenMarkov(states=4, vocab=3, positions=64)
    settings = quick(data_loader_batch_size=12, task=task, thought_vocab=6, trice_samples=8)
    whole, tried, most = count_cost(settings), list[int](), [12]

    def limited(*args: Any, **kwargs: Any) -> Any:
        tried.append(args[2].inputs.shape[1])
        if tried[-1] > most[-1]:
            raise MemoryError
        return accumulate(*args, **kwargs)

    monkeypatch.setattr(cost, "accumulate", limited)
    for bound, sizes in ((5, [12, 6, 3, 1]), (2, [12, 6, 3, 2, 1])):
        most.append(bound)
        tried.clear()
        assert count_cost(settings) == pytest.approx(whole, rel=1e-12) and tried == sizes
    most.append(1)  # of which there is no half
    assert whole.flops_per_step < count_cost(settings).flops_per_step < 1.25 * whole.flops_per_step
    with pytest.raises(MemoryError, match=r"^$"):
        count_cost(replace(settings, auto_find_grad_acc=False))
    with pytest.raises(MemoryError, match="a training step does not fit into memory, not with one"):
        count_cost(quick(learned_reward=True))  # which needs two
    most.append(2)
    assert count_cost(quick(learned_reward=True)).flops_per_step
