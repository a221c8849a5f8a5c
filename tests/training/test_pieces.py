"""A micro-batch in pieces, of fewer sequences or of fewer positions, has the gradient of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_loop import quick
from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.registry import registry
from toyqs.tasks.depo import Depo
from toyqs.tasks.group import Group
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.training import pieces
from toyqs.training.batches import at_step, draw_batches
from toyqs.training.loop import accumulate, train
from toyqs.training.sampling.ahead import sample_thoughts
from toyqs.types import Batch

TOLERANCE = 1e-12  # of a gradient, as a share of the largest of its parameter

CUTS = [{"sequences": 4}, {"chunk_positions": 1}, {"sequences": 2, "chunk_positions": 3}]

MARKOV = {"task": HiddenMarkov(states=4, vocab=3, positions=7), "data_loader_batch_size": 3}
PATH = {"objective": "pathwise"}
FOUR, WIDE = {"trice_samples": 4, "value_sees": "context"}, {"model_hidden_dim": 6}
NEEDED = {"wake_sleep": {"sampler": "inference"}}
CASES: dict[str, dict[str, Any]] = {
    **{
        f"objective {name}": {"objective": name, **FOUR, **NEEDED.get(name, {})}
        for name in registry()
        if name != "pathwise"
    },
    **{f"weights {label}": {"weight_groups": list(label), **WIDE} for label in ("AAAA", "AABB", "ABAC")},
    "one width, onward": {
        **{"model_hidden_dim": 6, "interpreter_start": "onward", "weight_groups": list("AAAA")},
        **{"add_last_context_token": True, "share_lm_head": True, "mixing": "add"},
    },
    "no base state": {"use_base_lm": False, "interpreter_start": "onward", "mixing": "thought"},
    "gate, with a floor": {"mixing": "gate", "gate_floor": 0.5},
    "residual": {"mixing": "residual", "model_hidden_dim": 5},
    "attended": {"mixing": "attend", "reward": "contribution", "baseline": "none", "trice_samples": 3},
    "attended by scores": {
        **{"mixing": "attend", "attend_by": "scores", "baseline": "value", "value_sees": "target", **WIDE},
        **{"reward": "contribution", "thought_vocab": None, "coherence_beta": 0.5},
    },
    "zero length": {"max_reasoning_len": 0},
    "gaussian": {"thoughts": "gaussian", "prior_beta": 0.1, "objective": "ppo_clip", "inner_steps": 2},
    "gaussian, a path": {"thoughts": "gaussian", **PATH},
    "state, onward": {"thoughts": "state", "interpreter_start": "onward", "prior_beta": 0.1},
    "gumbel": {"thoughts": "gumbel", **PATH},
    "deterministic, onward": {"thoughts": "deterministic", "interpreter_start": "onward", **PATH},
    "lengths": {
        **{"variable_len": True, "length_penalty": 0.1, "punish_unfinished": 0.2, "max_reasoning_len": 3},
        **{"interpreter_start": "onward", "thought_kl_beta": 0.1, "reference": "initial"},
    },
    "lengths of the task": {
        **{"task": Iterate(n=4, k=3, curriculum=0.0), "adaptive_len": True, "max_reasoning_len": 3},
        "data_loader_batch_size": 8,
    },
    "depths": {"task": Depo(n=5, k=2), "adaptive_len": True, "data_loader_batch_size": 8},
    "depths to come": {"task": Group(positions=4), "data_loader_batch_size": 8},
    "hard positions": {"think_at": "hard", "hard_quantile": 0.5},
    "tokens ahead": {"n_tokens_ahead": 3, "ahead": "continue", "teacher_forcing_weight": 0.5, **MARKOV},
    "tokens ahead, persisting": {"n_tokens_ahead": 2, "ahead_decay": 0.9, **MARKOV},
    "tokens together": {"n_tokens_ahead": 3, "ahead": "joint", "objective": "multi_sample", **MARKOV},
    "an oracle": {"reward": "kl_forward", "reference": "oracle", **MARKOV},
    "no thought as reference": {"reward": "log_ratio", "reference": "no_thought", "base_nll_beta": 0.5},
    "an average as reference": {"reward": "log_ratio", "reference": "ema", "thought_kl_beta": 0.1},
    "a critic": {"baseline": "value", "value_sees": "context"},
    "a critic of the target": {"baseline": "value", "value_sees": "target", "advantage_scale": "none"},
    "the greedy thought": {"baseline": "greedy_thought", "interpreter_start": "onward"},
    "a moving mean": {"baseline": "ema", "advantage_scale": "positive_only"},
    "a spread of rewards": {"objective": "vargrad", "temperature_scale": "spread"},
    "a spread, with meters": {"objective": "logz_mse", "temperature_scale": "spread", "trice_samples": 5},
    "shuffled rewards": {"shuffle_rewards": True},
    "shuffled, scaled by group": {"shuffle_rewards": True, "advantage_scale": "group_std"},
    "another sampler": {"sampler": "tempered", "objective": "vargrad"},
    "shuffled, with meters": {"shuffle_rewards": True, "objective": "logz_mse", **FOUR},
    "credit": {"credit": "prefix", "variable_len": True, "length_penalty": 0.1, "max_reasoning_len": 3},
    "credit, shuffled": {"credit": "prefix", "shuffle_rewards": True, "interpreter_start": "onward"},
    "credit, clipped": {"credit": "prefix", "objective": "ppo_clip", "clip_each": "symbol", "inner_steps": 2},
    "all steps rewarded": {"reward": "trajectory", "trajectory_alpha": 1.0, "max_reasoning_len": 3, **FOUR},
    "prefixes trained": {"prefix_nll_beta": 0.5, "thoughts": "gaussian", "interpreter_start": "onward"},
    "prefixes trained, hard": {"prefix_nll_beta": 0.5, "think_at": "hard", "hard_quantile": 0.5},
    "two micro-batches": {"grad_acc": 2, "data_loader_batch_size": 10},
    "one of two counts": {"train_nll_num": 1},
    "no thoughts": {"use_reasoner": False},
    "steps alone, of lengths": {
        **{"markov_reasoner": True, "interpreter_reads": "last", "thought_logits": "cosine"},
        **{"hide_last_token": True, "max_reasoning_len": 3, "variable_len": True, "use_base_lm": False},
    },
    "right thoughts": {"warm_start": 3, "data_loader_batch_size": 10, "grad_acc": 2, "max_reasoning_len": 3},
    "right thoughts of lengths": {
        **{"warm_start": 3, "task": Iterate(n=4, k=3, curriculum=0.0), "adaptive_len": True},
        **{"data_loader_batch_size": 8, "max_reasoning_len": 3},
    },
    "labels": {
        **{"warm_start": 3, "warm_start_as": "labels", "max_reasoning_len": 3},
        **{"thoughts": "deterministic", "interpreter_start": "onward", **PATH, "base_nll_beta": 0.5},
    },
    "labels, every step trained": {
        **{"warm_start": 3, "warm_start_as": "labels", "prefix_nll_beta": 0.5, "max_reasoning_len": 3},
        **{"thought_vocab": 1, "interpreter_start": "onward"},
    },
    "labels of a position": {"warm_start": 3, "warm_start_as": "labels", "use_reasoner": False},
    "no thoughts, tokens together": {"use_reasoner": False, "n_tokens_ahead": 2, "ahead": "joint"},
    "handed on": {"thought_into": "state", "variable_len": True, "length_penalty": 0.1},
    "handed on in turn": {"thought_into": "state", "weight_groups": list("AAAA"), **WIDE},
}


def gradients(
    settings: RunConfig, seeds: list[int], **cut: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a step's gradients, and its values, in pieces of this size."""
    model = build_model(settings, seeds)
    objective, params = build_objective(settings), replace(build_training_params(settings), **cut)
    reference_model = build_reference_model(settings, model)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape[1:], generator=generator, dtype=parameter.dtype)
        parameter.data = parameter.data + 0.2 * noise
    batch = next(draw_batches(settings.task, seeds, params, next(model.parameters())))
    batch = at_step(batch, params, 1)
    if params.inner_steps:
        batch = sample_thoughts(model, batch, size=params.sequences)
    weights = {name: weight.at(0.3) for name, weight in params.weights.items()}
    mean = torch.full((len(seeds),), -0.5, dtype=torch.float64)
    values = accumulate(model, objective, batch, weights, params, mean, 0.2, reference_model)
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return found, values


def furthest(settings: RunConfig, seeds: list[int], cut: dict[str, Any]) -> float:
    """Return how far pieces are from the whole, as a share of each parameter's largest gradient."""
    (whole, values), (parts, others) = gradients(settings, seeds), gradients(settings, seeds, **cut)
    assert values.keys() == others.keys()
    pairs = [(whole[name], parts[name]) for name in whole] + [(values[name], others[name]) for name in values]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-2)) for a, b in pairs)


def _slow(name: str) -> bool:
    """Tell whether a case shows what one of a quicker objective, symbol or reference does too."""
    quick_ones = ("reinforce", "ppo_clip", "multi_sample", "logz_learned", *NEEDED)
    return name.startswith("objective") and not name.endswith(quick_ones)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if _slow(name) else []) for name in CASES]
)
def test_pieces_have_the_gradient_of_the_whole(name: str) -> None:
    settings = quick(dtype="float64", **CASES[name])
    whole = settings.think_at == "hard" or settings.hands_on
    for cut in CUTS:
        if not (whole and "chunk_positions" in cut):
            assert furthest(settings, [4, 5], cut) < TOLERANCE, cut


@pytest.mark.parametrize(
    ("family", "tolerance", "changes"),
    [
        ("gpt2", TOLERANCE, {"interpreter_start": "onward", "variable_len": True}),
        pytest.param("gpt2", TOLERANCE, {"gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param("llama", 1e-6, {}, marks=pytest.mark.slow),  # the library's norm is in float32
    ],
)
def test_pieces_of_a_transformer(family: str, tolerance: float, changes: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    changes = {"weight_groups": list("ABBC"), "model_hidden_dim": 4, "backbone": family, **changes}
    settings = quick(dtype="float64", data_loader_batch_size=4, model_n_layer=1, **changes)
    for cut in CUTS[:2]:
        assert furthest(settings, [4], cut) < tolerance, cut


def test_a_context_is_read_once_however_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    read, seen = LatentReasoner.read, []
    monkeypatch.setattr(LatentReasoner, "read", lambda *args: seen.append(1) or read(*args))
    settings = quick(advantage_scale="none")
    gradients(settings, [1], chunk_positions=1)
    assert len(seen) == 1
    gradients(settings, [1], sequences=3, chunk_positions=1)
    assert len(seen) == 1 + 3


@pytest.mark.slow
def test_a_training_in_pieces_ends_where_the_whole_does() -> None:
    settings = quick(dtype="float64", max_steps=30, objective="ppo_clip", inner_steps=2)
    ends = []
    for cut in ({}, {"sequences": 5, "chunk_positions": 2}):
        model, params = build_model(settings, [1, 2]), replace(build_training_params(settings), **cut)
        data = draw_batches(settings.task, [1, 2], params, next(model.parameters()))
        seen: list[dict[str, Tensor]] = []
        train(
            model, build_objective(settings), data, params, lambda _, values, seen=seen: seen.append(values)
        )
        measured = [values["policy_snr"] for values in seen if "policy_snr" in values]
        ends.append(torch.cat([*(p.detach().flatten() for p in model.parameters()), *measured]))
    assert not torch.equal(*ends)
    torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-8)


ALONE = lambda known, asked, function, *tensors: function(*tensors)  # noqa: E731
WRONG = {
    "a statistic of each piece": ("_joint", ALONE, {}),
    "a context without gradient": ("_detached", lambda value, leaves: _cut_off(value), {}),
    "all pieces alike": ("_joined", lambda calls: [calls[0][0](*calls[0][1])] * len(calls), {}),
    "an exchange within pieces": (
        *("_joint", ALONE),
        {"shuffle_rewards": True, "advantage_scale": "none"},
    ),
    "a spread of each piece": (
        *("_joint", ALONE),
        {"objective": "vargrad", "temperature_scale": "spread"},
    ),
}


def _cut_off(value: Any) -> Any:
    if isinstance(value, tuple):
        parts = [_cut_off(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value.detach() if isinstance(value, Tensor) else value


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_would_be_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, wrong, changes = WRONG[name]
    settings = quick(dtype="float64", data_loader_batch_size=8, **changes)
    assert furthest(settings, [4], {"chunk_positions": 2}) < TOLERANCE
    monkeypatch.setattr(pieces, attribute, wrong)
    assert furthest(settings, [4], {"chunk_positions": 2}) > 1e-4


@pytest.mark.parametrize(
    ("coupled", "changes"),
    [
        (True, {"learned_reward": True}),
        (True, {"baseline": "average_thought"}),
        (True, {"baseline": "value", "value_sees": "average_thought"}),
        (False, {"baseline": "value", "value_sees": "context"}),
        (False, {}),
    ],
)
def test_a_model_says_whether_its_positions_are_compared(coupled: bool, changes: dict[str, Any]) -> None:
    settings = quick(**changes)
    assert build_model(settings, [0]).couples_positions is coupled
    assert settings.compares_positions is coupled


def test_a_function_of_all_positions_is_of_one_piece_where_there_is_no_other() -> None:
    x = torch.arange(6.0).view(1, 2, 3)
    assert Batch(x.long(), x.long(), x, x > 0).over_pieces(torch.mul, x, x).equal(x * x)
