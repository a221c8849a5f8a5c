"""A kept model in the training loop: what it follows, what it costs, and a run that refers to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.training.test_loop import quick
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.evidence.rows import load_rows
from toyqs.objectives.objective import Loss
from toyqs.sweep import main
from toyqs.training.batches import draw_batches
from toyqs.training.hard_positions import select_positions
from toyqs.training.loop import accumulate, train
from toyqs.training.reference_model import ReferenceModel
from toyqs.types import Batch, Trace

AVERAGE = {"reward": "log_ratio", "reference": "ema", "reference_decay": 0.8}


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_the_average_is_that_of_all_steps(inner_steps: int) -> None:
    """Check p̄_n = dⁿ p_0 + (1 − d) Σ_i d^{n−i} p_i, a step of the loop counted once."""
    settings = tiny.config(**AVERAGE, objective="ppo_clip", inner_steps=inner_steps, max_steps=5)
    model, numbers = tiny.model(settings, 2), build_training_params(settings)
    reference_model = build_reference_model(settings, model)
    seen: list[list[Tensor]] = [[p.detach().clone() for p in model.parameters()]]
    data = draw_batches(settings.task, [0, 1], numbers, seen[0][0])

    def watch(step: int, values: object) -> None:
        seen.append([p.detach().clone() for p in model.parameters()])

    train(model, build_objective(settings), data, numbers, watch, reference_model)
    decay, steps = 0.8, len(seen) - 1
    for index, average in enumerate(reference_model.model.parameters()):
        wanted = decay**steps * seen[0][index]
        for step in range(1, steps + 1):
            wanted = wanted + (1 - decay) * decay ** (steps - step) * seen[step][index]
        torch.testing.assert_close(average.detach(), wanted, rtol=0, atol=1e-12)
        assert average.grad is None and not average.requires_grad
        assert not torch.equal(average, seen[-1][index])


def test_a_copy_of_the_beginning_stays_there() -> None:
    settings = quick(reward="log_ratio", reference="initial", max_steps=5)
    model, numbers = build_model(settings, [0, 1]), build_training_params(settings)
    first = [p.detach().clone() for p in model.parameters()]
    reference_model = build_reference_model(settings, model)
    data = draw_batches(settings.task, [0, 1], numbers, first[0])
    train(model, build_objective(settings), data, numbers, lambda step, values: None, reference_model)
    for was, there, now in zip(first, reference_model.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(was, there) and not torch.equal(was, now)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reference": "ema"},
        {"reference": "checkpoint", "reference_run": "nowhere"},
        {"reward": "log_ratio", "reference": "no_thought"},
        {"thought_kl_beta": 0.1, "reference": "ema", "policy_loss_beta": 0.0},
        {"reward": "log_ratio", "reference": "ema", "use_reasoner": False},
        {"reward": "log_ratio", "reference": "ema", "max_reasoning_len": 0},
    ],
)
def test_there_is_no_reference_model_where_nothing_uses_one(changes: dict[str, object]) -> None:
    settings = quick(**changes)
    assert build_reference_model(settings, build_model(settings, [0])) is None


def test_a_reference_model_costs_its_forward_pass() -> None:
    plain, reference_model = quick(), quick(reward="log_ratio", reference="ema")
    without, beside = count_cost(plain), count_cost(reference_model)
    # base_lm and base_reasoner read the tokens once more, and the head predicts once a position.
    task, size = plain.task, plain.data_loader_batch_size
    tokens, widths, vocab = task.length(1), (5, 7), task.vocab_size
    reads = sum(2 * 3 * w * w * (vocab + size * tokens) for w in widths)
    head = 2 * size * task.queries * widths[0] * vocab
    assert beside.flops_per_step - without.flops_per_step == reads + head
    assert beside.recurrent_steps_per_token - without.recurrent_steps_per_token == pytest.approx(2.0)
    assert beside.parameters == without.parameters


def test_a_plain_run_becomes_the_reference_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that a trained run, written and read back, predicts as it did when it ended, for both seeds."""
    shared = {"max_steps": 4, "eval_sequences": 16, "controls": "none", "runs_dir": str(tmp_path)}
    plain = quick(use_reasoner=False, seed=[5], **shared)
    assert main.main([plain]) == 0
    (key,) = load_rows(tmp_path)["key"]
    folder = str(tmp_path / key)
    read: list[Any] = []
    annotated: list[Trace] = []
    reads, annotates = ReferenceModel.read, ReferenceModel.annotate

    def watch_read(self: ReferenceModel, *args: Any) -> Any:
        read.append(args)
        return reads(self, *args)

    def watch_annotate(self: ReferenceModel, *args: Any) -> Trace:
        annotated.append(annotates(self, *args))
        return annotated[-1]

    monkeypatch.setattr(ReferenceModel, "read", watch_read)
    monkeypatch.setattr(ReferenceModel, "annotate", watch_annotate)
    thinking = quick(reward="kl_forward", reference="checkpoint", reference_run=folder, seed=[7, 8], **shared)
    assert main.main([thinking]) == 0
    (inputs, positions, _), trace = read[-1], annotated[-1]
    assert inputs.shape[0] == 2
    ended = build_model(replace(plain, seed=5), [5])
    data = draw_batches(plain.task, [5], build_training_params(plain), torch.zeros(1))
    train(ended, build_objective(plain), data, build_training_params(plain), lambda step, values: None)
    alone = ended.talk(ended.read(inputs[:1], positions[:1]), None).logits.squeeze(3).log_softmax(-1)
    torch.testing.assert_close(trace.reference_log_probs[:1], alone, rtol=0, atol=1e-5)
    rows = load_rows(tmp_path)
    assert set(rows["seed"]) == {5, 7, 8}
    assert set(rows["reference_run"].dropna()) == {folder}


def test_where_only_some_positions_think_the_average_speaks_there() -> None:
    """Check that at first its prediction is the model's own without a thought."""
    settings = quick(**AVERAGE, think_at="hard", hard_quantile=0.5, thought_kl_beta=0.1)
    model, numbers = build_model(settings, [0, 1]), build_training_params(settings)
    objective, seen = build_objective(settings), []

    def watching(trace: Trace, batch: Batch) -> Loss:
        seen.append((trace, batch))
        return objective(trace, batch)

    drawn = next(draw_batches(settings.task, [0, 1], numbers, next(model.parameters())))
    weights = {"nll": 1.0, "policy": 1.0, "entropy": 0.0}
    reference_model = build_reference_model(settings, model)
    accumulate(model, watching, drawn, weights, numbers, torch.zeros(2), reference_model=reference_model)
    ((trace, batch),) = seen
    context = model.read(drawn.inputs, drawn.positions)
    chosen = select_positions(model, context, drawn.counted, batch.inputs.shape[2])
    alone = model.talk(chosen.context, None).logits.squeeze(3).log_softmax(-1)
    assert batch.inputs.shape[2] < drawn.counted.inputs.shape[2]
    torch.testing.assert_close(trace.reference_log_probs, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(trace.penalty, torch.zeros_like(trace.penalty), rtol=0, atol=1e-5)
