"""Whole models with native kernels and with torch's: the gradients and values of a step, in all kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.kernels.comparing import TOLERANCES
from tests.training.test_loop import RUNS, quick, trained
from tests.training.test_pieces import CUTS, furthest
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.gru import GRU
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg
from toyqs.training.batches import draw_batches
from toyqs.training.loop import accumulate

KERNELS = ("native", "torch")
BY_LOOP = ("an average beside it", "gaussian, clipped")  # not by one step alone
SEEDS = [3, 4]


def step(
    settings: RunConfig, kernels: str, forced: Tensor | None
) -> tuple[tiny.Gradients, dict[str, Tensor], Tensor]:
    """Return a step's gradients and values, and the symbols, which may be given."""
    settings = replace(settings, kernels=kernels)
    model, numbers = build_model(settings, SEEDS), build_training_params(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # so that no gradient is tiny
    assert all(x.native == (kernels == "native") for x in model.modules() if isinstance(x, GRU))
    like = next(model.parameters())
    batch = next(draw_batches(settings.task, SEEDS, numbers, like))
    symbols = settings.has_thoughts and settings.symbol_kind == "token" and settings.think_at != "hard"
    if forced is None and symbols:
        with torch.no_grad():
            forced = model(batch.inputs, batch.positions, batch.noise, lengths=batch.counted.lengths).symbols
    weights = {name: weight.at(0.0) for name, weight in numbers.weights.items()}
    values = accumulate(
        model,
        build_objective(settings),
        batch._replace(forced=forced),
        weights,
        numbers,
        torch.zeros(2).to(like),
    )
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, values, forced


def compare(settings: RunConfig) -> None:
    """Compare a step of two seeds on the same thoughts: gradients by parameter, and all that is reported."""
    wanted, values, forced = step(settings, "torch", None)
    found, reported, _ = step(settings, "native", forced)
    assert found.keys() == wanted.keys() and reported.keys() == values.keys()
    tolerance = TOLERANCES[getattr(torch, settings.dtype)]
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 1e-3
    for name, grad in wanted.items():
        size = max(
            float(grad.abs().max()), 0.01 * largest
        )  # of a sum of much larger terms, as a bias's may be
        error = float((found[name] - grad).abs().max()) / size
        assert error < tolerance, f"{name}: off by {error:.1e}"
    for name, value in values.items():
        torch.testing.assert_close(reported[name], value, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
def test_every_weight_group(groups: str, start: str) -> None:
    compare(
        tiny.config(weight_groups=groups, interpreter_start=start, data_loader_batch_size=5, trice_samples=3)
    )


@pytest.mark.parametrize("by", ["learned", "scores"])
def test_one_prediction_from_all_thoughts(by: str) -> None:
    given = {"mixing": "attend", "reward": "contribution", "baseline": "none", "attend_by": by}
    sizes = {"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 8, "coherence_beta": 0.5}
    compare(tiny.config(**given, **sizes, data_loader_batch_size=3))


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("mixing", tiny.MIXERS)
def test_every_mixer(mixing: str, start: str) -> None:
    sizes = {"base_lm_hidden_dim": 5, "reasoner_hidden_dim": 9}
    compare(tiny.config(mixing=mixing, interpreter_start=start, data_loader_batch_size=3, **sizes))


ITERATE, ONE = Iterate(n=4, k=3), {"base_lm_hidden_dim": 7}
MORE: dict[str, dict[str, Any]] = {
    "variable length": {"variable_len": True},
    "variable length, onward": {"variable_len": True, "interpreter_start": "onward"},
    "adaptive length": {"adaptive_len": True, "task": ITERATE},
    "adaptive length, onward": {"adaptive_len": True, "task": ITERATE, "interpreter_start": "onward"},
    "reading on, onward": {"n_tokens_ahead": 3, "ahead": "continue", "interpreter_start": "onward"},
    "the last token again": {"add_last_context_token": True, "interpreter_start": "onward"},
    "one marker": {"different_eot": False},
    "value": {"baseline": "value"},
    "value, onward": {
        "baseline": "value",
        "interpreter_start": "onward",
        "weight_groups": list("AABC"),
        **ONE,
    },
    "hard positions": {"think_at": "hard", "hard_quantile": 0.5},
    "chunks": {"chunk_positions": 2, "think_at": "all"},
    "chunks, onward": {"chunk_positions": 3, "think_at": "all", "interpreter_start": "onward"},
    "two layers": {"lm_head_layers": 2},
    "shared, projected": {"share_lm_head": True, "thought_vocab": None, "mixing": "concat"},
    "symbols of its own": {"thought_vocab": 11},
    "one symbol": {"thought_vocab": 1},
    "one step": {"max_reasoning_len": 1},
    "one step, onward": {"max_reasoning_len": 1, "interpreter_start": "onward"},
    "one step, own symbols": {"max_reasoning_len": 1, "thought_vocab": 5},
    "random thoughts": {"random_thoughts": True},
    "thoughts of one symbol": {"max_reasoning_len": 1, "thought_vocab": 2},
    "one thought": {"trice_samples": 1, "baseline": "ema"},
    "long thoughts": {"max_reasoning_len": 5, "thought_vocab": 2, "trice_samples": 6},
    "widths apart": {"interpreter_hidden_dim": 12, "interpreter_start": "onward", "reasoner_hidden_dim": 6},
    "plain, two tokens": {"use_reasoner": False, "n_tokens_ahead": 2},
    "plain, two tokens together": {"use_reasoner": False, "n_tokens_ahead": 2, "ahead": "joint"},
    "plain, all positions": {"use_reasoner": False, "think_at": "all"},
    "plain, accumulated": {"use_reasoner": False, "data_loader_batch_size": 6, "grad_acc": 2},
    "plain, an mlp": {"use_reasoner": False, "linear_lm_head": False},
    "plain, layers": {"use_reasoner": False, "lm_head_layers": 2},
    "plain, chunks": {"use_reasoner": False, "chunk_positions": 1},
    "plain, many classes": {"use_reasoner": False, "task": RevProg(p=37, m=4, k=2)},
    "plain, rounded": {"use_reasoner": False, "autocast": True},
}
LOOPS: dict[str, dict[str, Any]] = {  # what the training loop gives a step
    "clipped": {"objective": "ppo_clip", "inner_steps": 2},
    "clipped, gaussian": {"objective": "ppo_clip", "inner_steps": 2, "thoughts": "gaussian"},
    "an average beside it": {"reward": "log_ratio", "reference": "ema", "thought_kl_beta": 0.1},
    "lengths drawn": {"length_schedule": "random", "max_reasoning_len": 4},
    "shuffled rewards": {"shuffle_rewards": True},
    "learned rewards": {"learned_reward": True},
    "plain": {"use_reasoner": False},
}
ALL = {name: changes for name, changes in (RUNS | MORE).items() if name not in BY_LOOP}


@pytest.mark.parametrize("name", ALL)
def test_every_kind_of_run(name: str) -> None:
    compare(quick(dtype="float64", **ALL[name]))


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_of_steps(name: str) -> None:
    """Compare weights and values of three steps, by an optimiser that does not magnify small gradients."""
    settings = quick(**{"dtype": "float64", "max_steps": 3, "optimizer": "sgd", "base_lr": 0.5} | LOOPS[name])
    (found, seen), (wanted, values) = (trained(replace(settings, kernels=way), SEEDS) for way in KERNELS)
    for key, parameter in wanted.items():
        torch.testing.assert_close(found[key], parameter, rtol=0, atol=1e-11)
    for here, there in zip(seen, values, strict=True):
        assert here.keys() == there.keys()
        for key, value in there.items():
            torch.testing.assert_close(here[key], value, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_pieces_have_the_gradient_of_the_whole(cut: dict[str, Any]) -> None:
    for name in ("plain", "onward", "variable length"):
        assert furthest(quick(dtype="float64", kernels="native", **ALL[name]), [4, 5], cut) < 1e-12


@pytest.mark.parametrize(
    "name", ["plain", "afresh", "onward", "gate", "shared head", "value", "many symbols"]
)
def test_single_precision(name: str) -> None:
    compare(quick(**{"dtype": "float32", "base_lm_hidden_dim": 12, "reasoner_hidden_dim": 20} | ALL[name]))


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "ABAC", "ABCD"])
def test_the_expected_gradient_is_that_of_the_expectation(groups: str, start: str) -> None:
    """Enumerate all pairs of thoughts through the native path, against the plain reference's autograd."""
    settings = tiny.config(weight_groups=groups, interpreter_start=start, kernels="native")
    tiny.check_expected_gradient(settings, Reinforce(baseline="leave_one_out"), 2)


def test_what_evaluates_a_model_sees_the_same_numbers() -> None:
    """Compare traces without gradients, and with gradients of models in either mode of torch's."""
    for changes in ({}, {"interpreter_start": "onward"}, {"use_reasoner": False}):
        settings = quick(dtype="float64", **changes)
        models = [build_model(replace(settings, kernels=way), SEEDS) for way in KERNELS]
        batch = next(
            draw_batches(settings.task, SEEDS, build_training_params(settings), torch.zeros(1).double())
        )
        with torch.inference_mode():
            ours, theirs = (model(batch.inputs, batch.positions, batch.noise) for model in models)
        assert (
            torch.equal(ours.symbols, theirs.symbols) if ours.symbols is not None else theirs.symbols is None
        )
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-12)
