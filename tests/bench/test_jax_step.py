"""The JAX form: where JAX is installed it computes what toyqs computes, and trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("jax")

import numpy as np
import torch

from bench import jax_step, programs
from bench.programs import JAX, compare_gradients
from bench.step import DEFAULT_JOB, QUICK, Size
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.training.loop import train

CASES = {
    **QUICK.runs,
    "symbols of their own": replace(DEFAULT_JOB, data_loader_batch_size=3, trice_samples=2),
    "equal beginnings, and then others": Size(4, 5, 3, 8, 2, 3, 7).config,
    "all thoughts read at once": Size(4, 5, 8, 16, 2, 2, 7).config,
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_gradients_are_equal(config: RunConfig) -> None:
    for seeds in ([0], [0, 1]):
        found = compare_gradients(config, seeds, (JAX,))[JAX]
        assert found.difference <= 1e-10
        assert found.largest > 1e-3


def test_a_wrong_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = jax_step.Model.loss
    monkeypatch.setattr(jax_step.Model, "loss", lambda *given: 0.999 * right(*given))
    assert compare_gradients(CASES["thinking"], [0], (JAX,))[JAX].difference > 1e-6


def test_symbols_are_sampled_by_their_probabilities() -> None:
    probs = np.array([[[0.2, 0.0, 0.5, 0.3]]], np.float32)
    noise = np.array([[0.0, 0.1999, 0.2001, 0.699, 0.7001, 0.9999]], np.float32)
    assert jax_step._sample(probs, noise).tolist() == [[0, 0, 2, 2, 3, 3]]


def test_it_learns_as_toyqs_does() -> None:
    """A plain model on the same batches: the same steps of the same optimiser, clipped."""
    config = replace(CASES["plain"], clip_gradients=0.05)
    model, texts, _ = programs._texts(config, [0, 1])
    values = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    batches = [(text.inputs.numpy(), text.counted.targets.numpy()) for text in texts]
    training = jax_step.Training(programs._jax_model(config, texts[0]), values, batches)
    training.prepare(3)
    training.steps(3)
    trained = {name: np.array(value) for name, value in training.state["parameters"].items()}
    settings = replace(build_training_params(config), steps=3)
    train(model, build_objective(config), iter(texts), settings, lambda *_: None)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(torch.from_numpy(trained[name]), parameter.detach(), rtol=0, atol=2e-6)
        assert np.abs(trained[name] - values[name]).max() > 1e-3
