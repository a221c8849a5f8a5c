"""Hints in training: who reads them, the loss by hand, and what learning without them comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.training.test_loop import quick
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Task
from toyqs.training import batches, pieces
from toyqs.training.batches import TrainingBatch, draw_batches, micro_batches
from toyqs.training.evaluation.hinted import with_hints
from toyqs.training.loop import accumulate, train
from toyqs.training.reference_model import ReferenceModel
from toyqs.types import Batch

PLAIN = {"use_reasoner": False, "dtype": "float64", "kernels": "torch"}
PROGRAMS = PLAIN | {"task": RevProg(p=5, m=2, k=3, queries=2), "data_loader_batch_size": 8}
BACKBONES = pytest.mark.parametrize("backbone", ["gru", "gpt2", "llama"])


def of(backbone: str, **changes: Any) -> RunConfig:
    if backbone == "gru":
        return quick(**PROGRAMS | changes)
    sizes = {"base_lm_hidden_dim": 8, "model_n_layer": 1, "model_n_head": 2}
    return quick(**PROGRAMS | {"backbone": backbone} | sizes | changes)


def drawn(settings: RunConfig, model: LatentReasoner) -> TrainingBatch:
    params, like = build_training_params(settings), next(model.parameters())
    return next(draw_batches(settings.task, [3], params, like))


def log_q(model: LatentReasoner, settings: RunConfig, inputs: Tensor) -> Tensor:
    """Return the log-probabilities at the last tokens, the queries, (S, B, Q, V)."""
    context = model.read(inputs, None)
    return model.talk(context, None).logits[..., 0, 0, :].log_softmax(-1)[:, :, -settings.task.queries :]


def step_of(
    settings: RunConfig, model: LatentReasoner, batch: TrainingBatch, teacher: LatentReasoner | None = None
) -> tuple[dict[str, Tensor], tiny.Gradients]:
    params = build_training_params(settings)
    weights = {name: weight.at(0.0) for name, weight in params.weights.items()}
    for parameter in model.parameters():
        parameter.grad = None
    like = next(model.parameters())
    reference = None if teacher is None else ReferenceModel(teacher)
    arguments = (model, build_objective(settings), batch, weights, params, like.new_zeros(1))
    values = accumulate(*arguments, reference_model=reference)
    return values, {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


def check_reading(backbone: str, **changes: Any) -> None:
    """Check a step in which half of the sequences have a hint: −log q of each, read with or without it."""
    settings = of(backbone, hint_share=0.5, **changes)
    model = tiny.model(settings)
    batch = drawn(settings, model)
    values, grads = step_of(settings, model, batch)
    inputs, targets = batch.inputs, batch.counted.targets
    hint = settings.task.hint(Batch(inputs, inputs, inputs, thinks(settings, inputs)), "train")
    size = 8 // settings.grad_acc
    first = torch.arange(8) % size < size // 2
    told = log_q(model, settings, torch.cat([hint, inputs], -1)[:, first])
    others = log_q(model, settings, inputs[:, ~first])
    total = sum(
        -x.gather(-1, y.unsqueeze(-1)).sum()
        for x, y in ((told, targets[:, first]), (others, targets[:, ~first]))
    )
    loss = total / targets.numel()
    torch.testing.assert_close(values["nll"][0], loss.detach(), rtol=0, atol=1e-10)
    tiny.close(grads, tiny.gradients(loss, model), 1e-10)


def thinks(settings: RunConfig, inputs: Tensor) -> Tensor:
    return (torch.arange(inputs.shape[-1]) >= settings.task.k).expand(inputs.shape)


@BACKBONES
def test_half_of_the_sequences_are_read_with_their_hint(backbone: str) -> None:
    check_reading(backbone)
    check_reading(backbone, grad_acc=2)


def test_native_kernels_read_the_same() -> None:
    pytest.importorskip("toyqs.model.backbones.kernels")
    found = []
    for kernels in ("torch", "native"):
        settings = of("gru", hint_share=0.5, kernels=kernels, dtype="float32")
        model = tiny.model(settings)
        assert (model.plain_step is None) == (kernels == "torch")
        found.append(step_of(settings, model, drawn(settings, model)))
    torch.testing.assert_close(found[0][0]["nll"], found[1][0]["nll"], rtol=0, atol=1e-6)
    tiny.close(found[0][1], found[1][1], 1e-6)


def check_learning(backbone: str) -> None:
    """Check a step of stage=bake: KL(teacher with the hint || model without), by torch's own."""
    settings = of(backbone, stage="bake", reference_run="nowhere")
    model, teacher = tiny.model(settings), tiny.model(settings, scale=0.7 * tiny.SCALE)
    batch = drawn(settings, model)
    values, grads = step_of(settings, model, batch, teacher)
    inputs = batch.inputs
    hint = settings.task.hint(Batch(inputs, inputs, inputs, thinks(settings, inputs)), "train")
    given = log_q(teacher, settings, torch.cat([hint, inputs], -1)).detach()
    own = log_q(model, settings, inputs)
    each = torch.nn.functional.kl_div(own, given, log_target=True, reduction="none").sum(-1)
    assert float(each.detach().mean()) > 1e-2
    torch.testing.assert_close(values["nll"][0], each.mean().detach(), rtol=0, atol=1e-10)
    tiny.close(grads, tiny.gradients(each.mean(), model), 1e-10)


@BACKBONES
def test_a_step_of_baking_is_the_divergence_from_the_teacher_with_its_hint(backbone: str) -> None:
    check_learning(backbone)


def unshifted(hint: Tensor, inputs: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([hint, inputs], -1), positions


def after(hint: Tensor, inputs: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([inputs, hint], -1), positions


def nothing(hint: Tensor, inputs: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    return inputs, positions


def to_the_others(batch: TrainingBatch, settings: Any) -> TrainingBatch:
    return RIGHT(batch._replace(hint=batch.hint.roll(1, 1)), settings)


RIGHT = batches._with_hints


@pytest.mark.parametrize("mutant", [unshifted, after, nothing, to_the_others])
def test_other_readings_are_found(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutant is to_the_others:
        monkeypatch.setattr(batches, "_with_hints", mutant)
    else:
        monkeypatch.setattr(batches, "behind", mutant)
        monkeypatch.setattr(pieces, "behind", mutant)
        with pytest.raises(AssertionError):
            check_learning("gru")
    with pytest.raises(AssertionError):
        check_reading("gru")


def test_which_sequences_have_one_and_what_they_cost() -> None:
    settings = of("gru", hint_share=0.25, grad_acc=2)
    batch = drawn(settings, tiny.model(settings))
    assert (batch.hint[0, :, 0] >= 0).tolist() == [True, False, False, False] * 2
    lengths = [part.inputs.shape[1:] for part, _ in micro_batches(batch, 2)]
    assert lengths == [(1, 9), (3, 5)] * 2
    shares = [float(share) for _, share in micro_batches(batch, 2)]
    assert shares == pytest.approx([1 / 8, 3 / 8] * 2)
    whole = of("gru", hint_share=1.0)
    (part, _), *rest = micro_batches(drawn(whole, tiny.model(whole)), 1)
    assert part.inputs.shape[1:] == (8, 9) and not rest and part.hint is None
    plain, baked = count_cost(of("gru")), count_cost(of("gru", hint_share=1.0))
    assert baked.recurrent_steps_per_token == pytest.approx(plain.recurrent_steps_per_token * 9 / 5)


@dataclass
class Bits(Task):
    """One of three symbols, of which a bit is told: it follows from the symbol, or is drawn."""

    name: ClassVar[str] = "bits"
    vocab_size: ClassVar[int] = 5
    drawn: bool = False

    def length(self, seq_len: int) -> int:
        return 2

    def symbols(self, ids: Iterable[int]) -> list[str]:
        return [str(i) for i in ids]

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        symbol = torch.randint(3, (1, batch_size, 1), generator=generator)
        bit = torch.randint(2, (1, batch_size, 1), generator=generator)
        inputs = torch.cat([symbol, symbol], -1)
        think = torch.tensor([False, True]).expand(inputs.shape)
        return Batch(inputs, torch.zeros_like(inputs), think.double(), think, start=bit[..., 0])

    def hint(self, batch: Batch, split: str) -> Tensor:
        assert batch.start is not None
        return 3 + (batch.start.unsqueeze(-1) if self.drawn else (batch.inputs[..., :1] == 1).long())

    def hint_length(self, seq_len: int) -> int:
        return 1


def table(reader: LatentReasoner, hinted: bool) -> Tensor:
    """Return log-probabilities of all contexts: (3, V), or with each bit before them (3, 2, V)."""
    symbol = torch.arange(3).view(1, 3, 1).expand(1, 3, 2)
    if not hinted:
        return reader.talk(reader.read(symbol, None), None).logits[0, :, -1, 0, 0].log_softmax(-1)
    bits = torch.tensor([3, 4]).view(1, 1, 2, 1).expand(1, 3, 2, 1)
    whole = torch.cat([bits, symbol.unsqueeze(2).expand(1, 3, 2, 2)], -1).flatten(1, 2)
    return reader.talk(reader.read(whole, None), None).logits[0, :, -1, 0, 0].log_softmax(-1).view(3, 2, -1)


def learnt(task: Bits, steps: int) -> tuple[LatentReasoner, LatentReasoner, Any]:
    """Train a model to predict without a bit what a fixed teacher predicts with it; return both."""
    sizes = {"base_lm_hidden_dim": 8, "data_loader_batch_size": 64, "base_lr": 0.03, "clip_gradients": 0.0}
    settings = tiny.config(
        task=task, use_reasoner=False, stage="bake", reference_run="nowhere", max_steps=steps, **sizes
    )
    teacher = tiny.model(settings, scale=4.0).requires_grad_(False)
    model, params = tiny.model(settings, scale=1.0), build_training_params(settings)
    data = draw_batches(task, [0], params, next(model.parameters()))
    train(model, build_objective(settings), data, params, lambda *_: None, ReferenceModel(teacher))
    return model.requires_grad_(False), teacher, settings


def measured(model: LatentReasoner, teacher: LatentReasoner, task: Bits, count: int = 600) -> float:
    batch = task.sample(torch.Generator().manual_seed(5), count, 0, "held_out")
    found = with_hints(model, batch._replace(hint=task.hint(batch, "held_out")), teacher, at_once=100)
    return float(found["kl_teacher"][0])


def test_it_comes_to_zero_where_the_hint_follows_from_the_context() -> None:
    model, teacher, _ = learnt(Bits(), 300)
    given = table(teacher, hinted=True)[torch.arange(3), torch.tensor([0, 1, 0])]
    own = table(model, hinted=False)
    divergence = (given.exp() * (given - own)).sum(-1)
    assert float(divergence.max()) < 1e-4
    assert 0 <= measured(model, teacher, Bits()) < 1e-4
    untrained = tiny.model(tiny.config(task=Bits(), use_reasoner=False, base_lm_hidden_dim=8), scale=1.0)
    assert measured(untrained, teacher, Bits()) > 0.05


def test_it_comes_to_its_floor_where_the_hint_does_not_follow() -> None:
    """Check min_q E_b KL(p(· | b, x) ‖ q(· | x)), which the mean over b attains: the information of b."""
    model, teacher, _ = learnt(Bits(drawn=True), 400)
    given = table(teacher, hinted=True)
    mean = given.exp().mean(1, keepdim=True)
    floor = float((given.exp() * (given - mean.log())).sum(-1).mean())
    own = table(model, hinted=False).unsqueeze(1)
    reached = float((given.exp() * (given - own)).sum(-1).mean())
    assert floor > 0.05
    assert floor - 1e-12 <= reached < floor + 2e-3
    assert measured(model, teacher, Bits(drawn=True)) == pytest.approx(reached, rel=0.1)
    torch.testing.assert_close(own.exp(), mean, rtol=0, atol=0.05)
