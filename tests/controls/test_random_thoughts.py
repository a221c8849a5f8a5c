"""random: symbols uniform or from N(0, I), whatever the context, in training and in evaluation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.config.checks.checking import accepted, refused
from tests.controls.arms import control, moved, run, step_gradients, traced
from toyqs.config.builders.training import thought_sizes
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import Training
from toyqs.model.latent_heads import normals
from toyqs.positions import thinking_positions
from toyqs.training.evaluation.metrics import evaluate

BACKBONES = pytest.mark.usefixtures("backbone")
VECTORS = {"gaussian": {"thoughts": "gaussian", "latent_dim": 2}, "state": {"thoughts": "state"}}
KINDS: dict[str, dict[str, Any]] = {
    "token": {},
    "shared head": {"thought_vocab": None, "share_lm_head": True},
    "off-policy": {"sampler": "tempered", "objective": "listwise"},
    "gumbel": {"thoughts": "gumbel", "objective": "pathwise"},
    **VECTORS,
    "gaussian on a path": VECTORS["gaussian"] | {"objective": "pathwise"},
}


def thought_of(settings: RunConfig, shift: int = 0, count: int = 1) -> tuple[Tensor, Tensor]:
    """Return the symbols that a model thinks in shifted contexts, and their noise, a grid where count > 1."""
    model, batch, _ = tiny.sampled(settings)
    number, length, width, _ = thought_sizes(settings)
    shape = (1, 3, 2, number, length, *([width] if width else []))
    noise = (
        tiny.noise(shape)
        if count == 1
        else (torch.arange(count) + 0.5)
        .double()
        .div(count)
        .view(1, 1, 1, count, 1)
        .expand(1, 3, 2, count, length)
    )
    inputs = (batch.inputs + shift) % tiny.SYMBOLS
    thoughts = model.think(model.read(inputs, thinking_positions(batch)), noise)
    return thoughts.symbols.detach(), noise


@pytest.mark.parametrize("kind", KINDS)
@BACKBONES
def test_no_symbol_depends_on_the_context(kind: str) -> None:
    settings = control("random", **KINDS[kind])
    assert torch.equal(thought_of(settings)[0], thought_of(settings, shift=1)[0])
    off = run(**KINDS[kind], trice_samples=16)  # the run itself thinks of what it has read
    assert not torch.equal(thought_of(off)[0], thought_of(off, shift=1)[0])
    found = moved(step_gradients(settings))
    model = tiny.model(settings)
    letters = [model.letters[role] for role in ("base_reasoner", "reasoner")]
    assert not any(name.startswith(f"cores.{letter}") for name in found for letter in letters)
    assert not any(name.startswith("thought_head") for name, _ in model.named_parameters())


@BACKBONES
def test_every_token_is_equally_likely() -> None:
    for vocab in (5, 6):
        symbols, _ = thought_of(control("random", thought_vocab=vocab), count=60)
        counts = torch.stack([(symbols == s).sum(3) for s in range(vocab)])
        assert (counts == 60 // vocab).all()
    ends, _ = thought_of(control("random", thought_vocab=5, variable_len=True), count=60)
    first = ends[..., 0]
    assert all(((first == s).sum(3) == 10).all() for s in range(6)), "the end too"


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_are_standard_normal(kind: str) -> None:
    symbols, noise = thought_of(control("random", **VECTORS[kind]))
    torch.testing.assert_close(symbols, normals(noise), rtol=0, atol=1e-12)
    own, _ = thought_of(run(**VECTORS[kind]))
    assert not torch.allclose(own, normals(noise))


def test_relaxed_tokens_are_one_hot_and_uniform() -> None:
    settings = control("random", trice_samples=500, **KINDS["gumbel"])
    symbols, _ = thought_of(settings)
    assert torch.equal(symbols.sum(-1), torch.ones(symbols.shape[:-1]).double())
    assert ((symbols == 0) | (symbols == 1)).all()
    shares = symbols.flatten(0, -2).mean(0)
    assert float((shares - 0.2).abs().max()) < 5 * math.sqrt(0.2 * 0.8 / 6000)


@BACKBONES
def test_they_are_measured_as_random_after_training() -> None:
    settings = control("random", max_steps=5, eval_sequences=16)
    training = Training(settings, [3])
    training.run(lambda step, values: None, None)
    found = training.evaluate()
    assert float(found["thought_entropy"]) == pytest.approx(tiny.LENGTH * math.log(5), abs=1e-12)
    assert float(found["information"]) == pytest.approx(0, abs=1e-12)
    model, batch, _ = tiny.sampled(run())
    own = evaluate(model, batch, [3], thought_sizes(run()), full=True)
    assert float(own["thought_entropy"]) < tiny.LENGTH * math.log(5) - 1e-3


def test_nothing_draws_a_random_thought_towards_anything() -> None:
    vectors = control("random", entropy_encouragement_coef=0.3, prior_beta=0.2, **VECTORS["gaussian"])
    assert (vectors.entropy_encouragement_coef, vectors.prior_beta) == (0, 0)
    settings = control("random", entropy_encouragement_coef=0.3)
    assert (settings.policy_loss_beta, settings.entropy_encouragement_coef) == (0, 0)
    assert traced(settings)[2].log_prob.unique().tolist() == pytest.approx([-math.log(5)])


def test_states_that_nothing_draws_cannot_be_random() -> None:
    coconut = {"thoughts": "deterministic", "objective": "pathwise", "trice_samples": 1}
    refused(
        "random_thoughts=true: .*nothing is drawn; give random_thoughts=false",
        random_thoughts=True,
        **coconut,
    )
    assert accepted(random_thoughts=True) == []
    assert accepted(random_thoughts=True, max_reasoning_len=0, **coconut) == []
