"""Settings of how a thought ends: refusals, what reaches the loop, what that takes from rewards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.config.checks.checking import accepted, refused
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.interpreter import Afresh, AfreshEach
from toyqs.objectives.objective import Loss
from toyqs.positions import focus, rows, thinking_positions
from toyqs.rng import ThoughtSizes
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.mano import Mano
from toyqs.tasks.modes import Modes
from toyqs.training.batches import draw_batches, prepare
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.loop import accumulate, train
from toyqs.training.sampling.ahead import sample_thoughts
from toyqs.types import Batch, Trace


@pytest.mark.parametrize("kind", ["gaussian", "state"])
def test_only_tokens_end_themselves(kind: str) -> None:
    refused(f"variable_len=true: .* thoughts={kind}", variable_len=True, thoughts=kind)
    assert accepted(variable_len=True) == []


@pytest.mark.parametrize("key", ["length_penalty", "punish_unfinished"])
def test_costs_of_thoughts_that_choose_their_length(key: str) -> None:
    refused(f"{key}=0.1: .*variable_len=true", **{key: 0.1})
    bound: dict[str, Any] = {"variable_len": True, "objective": "multi_sample", key: 0.1}
    refused(f"{key}=0.1: objective=multi_sample", **bound)
    assert accepted(variable_len=True, **{key: 0.1}) == []
    assert accepted(variable_len=True, objective="multi_sample") == []
    assert accepted(max_reasoning_len=0, **{key: 0.1}) == []


def test_a_given_length_needs_a_task_that_gives_it() -> None:
    refused("adaptive_len=true: task=hidden_markov", adaptive_len=True, task=HiddenMarkov())
    assert accepted(adaptive_len=True) == []
    refused("adaptive_len=true: .*variable_len=true", adaptive_len=True, variable_len=True, task=Iterate())
    assert accepted(adaptive_len=True, task=Iterate()) == []
    assert accepted(adaptive_len=True, task=Iterate(), thoughts="gaussian") == []


def test_only_thoughts_that_end_apart_are_read_each_for_itself() -> None:
    kinds = {
        Afresh: [{}, {"variable_len": True, "max_reasoning_len": 0}],
        AfreshEach: [{"variable_len": True}, {"adaptive_len": True}],
    }
    for kind, changes in kinds.items():
        for changed in changes:
            built = build_model(resolved(replace(RunConfig(), **changed)), [0])
            assert type(built.interpreter) is kind, changed


# The loop.


def costing(**changes: Any) -> Any:
    plain = {"variable_len": True, "thought_vocab": 2, "length_penalty": 0.2, "punish_unfinished": 0.5}
    return tiny.config(**(plain | changes))


def penalties(settings: Any, steps: int = 4) -> list[tuple[Trace, Tensor | None]]:
    """Every step's trace of a short training, and what it takes from the rewards."""
    seen, right = [], build_objective(settings)
    numbers = replace(build_training_params(settings), steps=steps)

    def watching(trace: Trace, batch: Batch) -> Loss:
        seen.append((trace, trace.penalty))
        return right(trace, batch)

    model = tiny.model(settings, scale=1.0)
    data = draw_batches(settings.task, [0], numbers, torch.zeros(1, dtype=torch.float64))
    train(model, watching, data, numbers, lambda step, values: None)
    return seen


@pytest.mark.parametrize("rises", [False, True])
@pytest.mark.parametrize("objective", ["reinforce", "ppo_clip"])
def test_the_loop_charges_what_the_progress_says(rises: bool, objective: str) -> None:
    inner = 2 if objective == "ppo_clip" else 1
    seen = penalties(costing(schedule_punfinished=rises, objective=objective, inner_steps=inner))
    assert len(seen) == 4 * inner
    for index, (trace, taken) in enumerate(seen):
        unfinished = 0.5 * (index // inner / 4 if rises else 1.0)
        wanted = 0.2 * trace.length.double() + unfinished * trace.unfinished.double()
        torch.testing.assert_close(taken, wanted, rtol=0, atol=1e-12)


def test_nothing_is_charged_without_a_cost() -> None:
    for settings in (costing(length_penalty=0.0, punish_unfinished=0.0), tiny.config()):
        assert all(taken is None for _, taken in penalties(settings, 2))


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("adaptive", [False, True])
def test_accumulated_gradients_are_the_whole_batchs(adaptive: bool, parts: int) -> None:
    settings = tiny.config(adaptive_len=True) if adaptive else costing()
    model, batch, noise = tiny.sampled(settings, size=4, copies=2)
    if adaptive:
        batch = batch._replace(thought_length=torch.arange(4).remainder(3).expand(2, 4, 4))
    drawn, found = prepare(batch, noise), []
    for grad_acc in (1, parts):
        model.zero_grad()
        numbers = replace(build_training_params(settings), grad_acc=grad_acc)
        running = torch.zeros(2).double()
        costs = {} if adaptive else {"length_penalty": 0.2, "punish_unfinished": 0.5}
        weights = {"nll": 1.0, "policy": 0.7, "entropy": 0.3}
        accumulate(model, build_objective(settings), drawn, weights | costs, numbers, running)
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    tiny.close(found[1], found[0], tolerance=1e-12)


BESIDE: dict[str, dict[str, Any]] = {
    "tempered": {"sampler": "tempered", "objective": "vargrad"},
    "uniform": {"sampler": "uniform", "objective": "vargrad"},
    "learned reward": {"learned_reward": True},
    "kept model": {"reference": "initial", "thought_kl_beta": 0.5},
}


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("beside", BESIDE)
def test_what_stands_beside_the_thoughts_knows_where_they_end(beside: str, adaptive: bool) -> None:
    """The sampler's density is that of its own law, the reward model has a row for what follows the end."""
    task = Iterate(n=6, k=3, seed=1, curriculum=0.0) if adaptive else tiny.Toy()
    ends: dict[str, Any] = {"adaptive_len": adaptive, "variable_len": not adaptive, "max_reasoning_len": 3}
    settings = tiny.config(task=task, data_loader_batch_size=16, **ends, **BESIDE[beside])
    model, numbers, seen = tiny.model(settings), replace(build_training_params(settings), steps=2), []
    kept, right = build_reference_model(settings, model), build_objective(settings)

    def watching(trace: Trace, batch: Batch) -> Loss:
        seen.append(trace)
        return right(trace, batch)

    data = draw_batches(task, [0], numbers, torch.zeros(1, dtype=torch.float64))
    train(model, watching, data, numbers, lambda step, values: None, kept)
    first, second = seen
    assert len(first.length.unique()) > 1
    if "sampler" in BESIDE[beside]:
        symbols, drawing = (
            task.vocab_size + (not adaptive),
            first.length + (~first.unfinished if not adaptive else 0),
        )
        wanted = -drawing * torch.tensor(symbols).double().log()
        assert torch.allclose(first.sampler_log_prob.sum(-1), wanted) == (beside == "uniform")
    elif beside == "learned reward":
        assert first.learned_reward.shape == first.length.shape
    else:
        assert not first.penalty.any() and bool(second.penalty.any())


# The length that a task gives, on its way to the model.


def test_iterate_gives_as_many_symbols_as_iterations() -> None:
    task = Iterate(n=6, k=3, seed=1)
    assert task.thought_length(torch.tensor([[[2, 6], [0, 8]]])).tolist() == [[[0, 1], [0, 3]]]


def test_given_lengths_are_gathered_and_cut_with_the_batch() -> None:
    batch = tiny.batch(3)._replace(thought_length=torch.arange(12).view(1, 3, 4))
    there = focus(batch, thinking_positions(batch))
    assert torch.equal(there.thought_length.flatten(), batch.thought_length[batch.think])
    assert torch.equal(there.lengths, there.thought_length.unsqueeze(-1))
    assert torch.equal(rows(batch, slice(1, 3)).thought_length, batch.thought_length[:, 1:3])
    assert tiny.batch(3).lengths is None


def test_a_thought_has_a_symbol_for_every_five_tokens_of_its_problem() -> None:
    """min(20, problem length // 5), in training and held out, and that many symbols in a thought."""
    task = Mano(modulus=3, k=60, operators="+", reach=1, curriculum=0.0)
    settings = tiny.config(
        **{"task": task, "adaptive_len": True, "adaptive_by": "problem", "max_reasoning_len": 20},
        data_loader_batch_size=40,
    )
    drawn = next(draw_batches(task, [3], build_training_params(settings), torch.zeros(1).double()))
    held_out = draw_held_out(settings, 1, torch.zeros(1).double(), 59)
    lengths = []
    for whole, batch in (
        (drawn.inputs, drawn.counted),
        (held_out.inputs, focus(held_out, thinking_positions(held_out))),
    ):
        words = [task.symbols(row) for row in whole[0].tolist()]
        problems = [row.index("=") for row in words]
        assert batch.thought_length.flatten().tolist() == [n // 5 for n in problems]
        lengths += [min(20, n // 5) for n in problems]
    assert {min(lengths), max(lengths)} == {0, 20}
    model, counted = tiny.model(settings), drawn.counted
    trace = model(drawn.inputs, drawn.positions, drawn.noise, lengths=counted.lengths)
    assert trace.length[..., 0].flatten().tolist() == lengths[: drawn.inputs.shape[1]]


def test_lengths_by_the_problem_need_a_problem_and_one_long_enough() -> None:
    by: dict[str, Any] = {"adaptive_len": True, "adaptive_by": "problem"}
    refused("adaptive_by=problem: task=modes does not say how long its problems are", **by, task=Modes())
    refused("problem_per_symbol=5: .* the longest has 4 tokens.*; give problem_per_symbol=4 or less", **by)
    assert accepted(**by, problem_per_symbol=4) == []
    refused(
        "warm_start=9: right thoughts have a symbol for each step", **by, warm_start=9, problem_per_symbol=1
    )
    hidden: dict[str, Any] = {"hide_last_token": True, "use_base_lm": False, "problem_per_symbol": 1}
    told: dict[str, Any] = {"adaptive_len": True, "task": Iterate(), "max_reasoning_len": 4}
    assert accepted(**told, **hidden) == []
    refused("hide_last_token=true: only thoughts are predicted from", **told | by, **hidden)


def test_what_sets_lengths_matters_where_they_are_set() -> None:
    def key(**changes: Any) -> str:
        return run_key(tiny.config(task=Mano(), max_reasoning_len=2, **changes), 1)

    off = {key(adaptive_by=by, problem_per_symbol=n) for by in ("task", "problem") for n in (2, 5)}
    assert off == {key()}
    task = {key(adaptive_len=True, problem_per_symbol=n) for n in (2, 5)}
    by = {key(adaptive_len=True, adaptive_by="problem", problem_per_symbol=n) for n in (2, 5)}
    assert len(task) == 1 and len(by) == 2 and len(task | by | off) == 4


@pytest.mark.parametrize("length", [2, 4])
def test_training_and_evaluation_think_as_long_as_the_task_says(length: int) -> None:
    task = Iterate(n=6, k=3, seed=1)
    settings = tiny.config(task=task, adaptive_len=True, max_reasoning_len=length, objective="ppo_clip")
    numbers = build_training_params(settings)
    drawn = next(draw_batches(task, [3], numbers, torch.zeros(1, dtype=torch.float64)))
    wanted = (drawn.inputs[..., 1:] - 5).unsqueeze(-1).clamp(max=length).expand(-1, -1, -1, 2)
    model, seen = tiny.model(settings), []

    def watching(trace: Trace, batch: Batch) -> Loss:
        seen.append(trace.length)
        return build_objective(settings)(trace, batch)

    weights = {name: 1.0 for name in numbers.weights}
    for ready in (
        drawn._replace(sampler_log_prob=torch.zeros(*wanted.shape, length)),
        sample_thoughts(model, drawn),
    ):
        accumulate(model, watching, ready, weights, numbers, torch.zeros(1).double())
    assert torch.equal(seen[0], wanted) and torch.equal(seen[1], wanted)
    held_out = Batch(*task.sample(torch.Generator().manual_seed(0), 12, 2, "held_out")[:4])
    held_out = held_out._replace(
        weights=held_out.weights.double(), thought_length=task.thought_length(held_out.inputs)
    )
    found = evaluate(model, held_out, [0], ThoughtSizes(2, length), full=True)
    mean = held_out.thought_length[..., 1].clamp(max=length).double().mean()
    assert float(found["thought_length"]) == pytest.approx(float(mean))
    assert "unfinished" not in found and bool(found["information"].isfinite().all())


@pytest.mark.parametrize("full", [False, True])
def test_meters_of_length(full: bool) -> None:
    settings = costing()
    model, batch, _ = tiny.sampled(settings, size=4)
    found = evaluate(model, batch, [0], ThoughtSizes(2, 2), full=full)
    assert 0 < float(found["thought_length"]) < 2 and 0 < float(found["unfinished"]) < 1
    with torch.no_grad():
        model.thought_head.ending.bias.fill_(-torch.inf)
    never = evaluate(model, batch, [0], ThoughtSizes(2, 2), full=full)
    assert float(never["thought_length"]) == 2 and float(never["unfinished"]) == 1
    fixed = evaluate(tiny.model(tiny.config()), batch, [0], ThoughtSizes(2, 2), full=full)
    assert not {"thought_length", "unfinished"} & fixed.keys()
