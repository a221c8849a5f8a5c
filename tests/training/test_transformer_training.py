"""A transformer's training step in bfloat16, with layers run again, in parts: against the plain step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("transformers")

from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones import transformer
from toyqs.training.batches import draw_batches
from toyqs.training.loop import accumulate
from toyqs.training.sampling.ahead import sample_thoughts

SMALL: dict[str, Any] = {
    **{"model_hidden_dim": 8, "model_n_layer": 2, "trice_samples": 2, "max_reasoning_len": 2, "max_steps": 4},
    **{"data_loader_batch_size": 4, "advantage_scale": "none", "seed": 0, "controls": "none"},
    **{"weight_groups": ["A", "A", "A", "A"], "interpreter_start": "onward"},
}
BOTH = pytest.mark.parametrize("family", ["gpt2", "llama"])
SOFT = ("_softmax", "_log_softmax", "exp", "logsumexp", "log", "cumsum")  # what must not be rounded
COARSE = (torch.bfloat16, torch.float16)


def configured(family: str, **changes: Any) -> RunConfig:
    return resolved(replace(RunConfig(), **SMALL | {"backbone": family} | changes))


def step(config: RunConfig) -> tuple[nn.Module, dict[str, Tensor]]:
    """Compute the gradients of a first step, in the model's parameters, and its values."""
    model, settings, reference_model = build_model(config, [0]), build_training_params(config), None
    reference_model = build_reference_model(config, model)
    like = next(model.parameters())
    drawn = next(draw_batches(config.task, [0], settings, like))
    if settings.inner_steps:
        drawn = sample_thoughts(model, drawn)
    weights = {name: weight.at(0.0) for name, weight in settings.weights.items()}
    return model, accumulate(
        model,
        build_objective(config),
        drawn,
        weights,
        settings,
        like.new_zeros(1),
        reference_model=reference_model,
    )


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@contextmanager
def saved() -> Iterator[list[int]]:
    """Count the bytes saved for the backward pass, views of one storage once."""
    found: dict[int, int] = {}
    numbers = [0]

    def pack(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        numbers[0] = sum(found.values())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield numbers


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_groups": ["A", "B", "B", "A"], "interpreter_start": "afresh", "baseline": "value"},
        {"thoughts": "gaussian", "variable_len": False, "reference": "ema", "thought_kl_beta": 0.1},
        {"objective": "ppo_clip", "inner_steps": 2, "variable_len": True},
    ],
)
@BOTH
def test_layers_that_run_again_give_the_same_gradients(family: str, changes: dict[str, Any]) -> None:
    config = configured(family, dtype="float64", **changes)
    plain, values = step(config)
    again, others = step(replace(config, gradient_checkpointing=True))
    assert all(torch.equal(values[name], others[name]) for name in values)
    wanted, found = gradients(plain), gradients(again)
    assert wanted.keys() == found.keys() and any(".weights." in name for name in wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12)


@BOTH
def test_layers_that_run_again_save_less(family: str) -> None:
    found = {}
    for again in (False, True):
        config = configured(family, gradient_checkpointing=again, model_n_layer=4)
        model, settings = build_model(config, [0]), build_training_params(config)
        drawn = next(draw_batches(config.task, [0], settings, next(model.parameters())))
        with saved() as numbers:
            model(drawn.inputs, drawn.positions, drawn.noise)
        found[again] = numbers[0]
    assert found[True] < 0.5 * found[False]


def test_running_again_changes_neither_key_nor_cost() -> None:
    plain, again = configured("gpt2"), configured("gpt2", gradient_checkpointing=True)
    assert run_key(plain, 0) == run_key(again, 0) and count_cost(plain) == count_cost(again)
    assert run_key(plain, 0) != run_key(configured("gpt2", autocast=True), 0)


class Watch(TorchDispatchMode):
    """Record which operations were given bfloat16 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(x, Tensor) and x.dtype in COARSE for x in args):
            self.coarse.add(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@BOTH
def test_autocast_rounds_products_alone(family: str) -> None:
    changes = {"mixing": "gate", "baseline": "value", "gradient_checkpointing": family == "llama"}
    config = configured(family, **changes)
    plain, values = step(config)
    with Watch() as watch:
        coarse, others = step(replace(config, autocast=True))
    assert {"mm", "bmm"} & watch.coarse
    assert not watch.coarse & set(SOFT)
    assert {p.dtype for p in coarse.parameters()} == {torch.float32}
    assert {gradient.dtype for gradient in gradients(coarse).values()} == {torch.float32}
    for name in ("nll", "entropy", "reward"):
        assert others[name].dtype == torch.float32
        assert values[name].item() != others[name].item()
        assert values[name].item() == pytest.approx(others[name].item(), rel=0.02)
    # Which symbol is drawn may turn on a rounding; the prediction's gradients still point the same way.
    wanted, found = (torch.cat([g.flatten() for g in gradients(m).values()]) for m in (plain, coarse))
    assert torch.cosine_similarity(wanted, found, 0) > 0.9


def test_a_softmax_over_coarse_scores_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer.torch, "promote_types", lambda one, other: one)
    with Watch() as watch:
        step(configured("gpt2", autocast=True))
    assert "_softmax" in watch.coarse


@BOTH
def test_thoughts_have_precise_log_probabilities_under_autocast(family: str) -> None:
    config = configured(family, autocast=True, share_lm_head=True, thought_vocab=None)
    model, settings = build_model(config, [0]), build_training_params(config)
    drawn = next(draw_batches(config.task, [0], settings, next(model.parameters())))
    context = model.read(drawn.inputs, drawn.positions)
    vocab = config.task.vocab_size
    each = torch.arange(vocab).view(1, 1, 1, vocab, 1).expand(*drawn.noise.shape[:3], vocab, 1)
    thoughts = model.think(context, torch.empty(0), each)
    assert thoughts is not None and thoughts.log_prob is not None
    assert thoughts.log_prob.dtype == torch.float32
    total = thoughts.log_prob.squeeze(-1).logsumexp(-1)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-6)
    assert model.talk(context, thoughts).logits.dtype == torch.float32


@BOTH
def test_a_batch_in_parts_has_the_whole_ones_gradient(family: str) -> None:
    config = configured(family, dtype="float64", gradient_checkpointing=True)
    whole, values = step(config)
    parts, others = step(replace(config, grad_acc=4))
    for name in values:
        torch.testing.assert_close(others[name], values[name], rtol=0, atol=1e-10)
    atol = 1e-10 if family == "gpt2" else 1e-5  # Llama's norms compute in float32
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parts)[name], gradient, rtol=0, atol=atol)
