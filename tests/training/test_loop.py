"""The training loop: seeds side by side, schedules, and the data that arms share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.rng import stream
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.rev_prog import RevProg
from toyqs.training.batches import CHUNK, draw_batches
from toyqs.training.loop import train
from toyqs.training.stacking import stack
from toyqs.types import Batch

Values = list[dict[str, Tensor]]


def quick(**changes: Any) -> RunConfig:
    """Return the settings of a float32 run of 12 steps on rev_prog, of odd sizes by default."""
    plain: dict[str, Any] = {
        "base_lm_hidden_dim": 5,
        "reasoner_hidden_dim": 7,
        "data_loader_batch_size": 9,
        "trice_samples": 3,
        "thought_vocab": None,
        "max_reasoning_len": 2,
        "advantage_scale": "batch_std",
        "entropy_encouragement_coef": 0.1,
        "clip_gradients": 1.0,
        "max_steps": 12,
    }
    return resolved(RunConfig(**(plain | changes)))


def trained(
    settings: RunConfig, seeds: list[int], broken: int | None = None
) -> tuple[dict[str, Tensor], Values]:
    """Return parameters after training and every step's values; one seed's weights may be broken at first."""
    model, numbers = build_model(settings, seeds), build_training_params(settings)
    like = next(model.parameters())
    if broken is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter[broken] = torch.nan
    values: Values = []
    data, reference_model = (
        draw_batches(settings.task, seeds, numbers, like),
        build_reference_model(settings, model),
    )
    train(
        model,
        build_objective(settings),
        data,
        numbers,
        lambda step, seen: values.append(dict(seen)),
        reference_model,
    )
    return {name: p.detach().clone() for name, p in model.named_parameters()}, values


def same(
    a: tuple[dict[str, Tensor], Values], b: tuple[dict[str, Tensor], Values], at: tuple[int, int]
) -> None:
    """Compare one seed's run in two stacks, bit for bit."""
    (parameters, values), (others, other_values) = a, b
    i, j = at
    for name, parameter in parameters.items():
        assert torch.equal(parameter[i], others[name][j]), name
    for step, (here, there) in enumerate(zip(values, other_values, strict=True)):
        assert here.keys() == there.keys()
        for name in here:
            assert torch.equal(here[name][i], there[name][j]), f"{name} at step {step}"


PATH = {"objective": "pathwise"}
RUNS = {
    "plain": {"use_reasoner": False},
    "plain, width 3": {"use_reasoner": False, "base_lm_hidden_dim": 3, "data_loader_batch_size": 7},
    "zero length": {"max_reasoning_len": 0},
    "afresh": {},
    "afresh, even": {"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 32, "data_loader_batch_size": 16},
    "onward": {"interpreter_start": "onward", "data_loader_batch_size": 5},
    "gate": {"mixing": "gate", "trice_samples": 5},
    "gate, width 33": {"mixing": "gate", "reasoner_hidden_dim": 33, "data_loader_batch_size": 17},
    "shared head": {"share_lm_head": True, "mixing": "add", "reasoner_hidden_dim": 3},
    "all shared": {"weight_groups": list("AAAA"), "base_lm_hidden_dim": 7, "interpreter_start": "onward"},
    "mlp head": {"linear_lm_head": False},
    "three linear layers": {"lm_head_layers": 3, "share_lm_head": True},
    "sgd": {"optimizer": "sgd", "weight_decay": 0.1, "base_lr": 0.5},
    "adam, rates": {"optimizer": "adam", "weight_decay": 0.1, "reasoner_lr": 0.003, "base_lm_lr": 0.05},
    "muon": {"optimizer": "muon", "weight_decay": 0.1, "reasoner_lr": 0.003, "mixing": "gate"},
    "muon, filtered": {"optimizer": "muon_grokfast", "grokfast_lambda": 2.0, "reasoner_hidden_dim": 33},
    "a filter": {"grokfast_lambda": 2.0},
    "one sequence": {"data_loader_batch_size": 1, "baseline": "ema"},
    "many symbols": {"task": RevProg(p=17, m=4, k=2), "think_at": "all"},
    "hidden": {"mixing": "hidden", "trice_samples": 5},
    "logits": {"mixing": "logits", "gate_floor": 0.5, "data_loader_batch_size": 5},
    "residual": {"mixing": "residual", "n_tokens_ahead": 2},
    "three tokens ahead": {"n_tokens_ahead": 3, "mixing": "gate", "ahead_decay": 0.9},
    "tokens together": {"n_tokens_ahead": 3, "ahead": "joint", "objective": "multi_sample"},
    "tokens together, weighed": {"n_tokens_ahead": 2, "ahead": "joint", "mixing": "logits"},
    "plain, tokens together": {"n_tokens_ahead": 3, "ahead": "joint", "use_reasoner": False},
    "reading on": {"n_tokens_ahead": 2, "ahead": "continue", "teacher_forcing_weight": 0.5},
    "accumulated": {"data_loader_batch_size": 6, "grad_acc": 2},
    "an average beside it": {"reward": "log_ratio", "reference": "ema", "thought_kl_beta": 0.1},
    "flatter thoughts": {"sampler": "tempered", "objective": "vargrad"},
    "any thoughts": {"sampler": "uniform", "objective": "logz_mse", "trice_samples": 5},
    "any gaussian thoughts": {"sampler": "prior", "objective": "listwise", "thoughts": "gaussian"},
    "gaussian": {"thoughts": "gaussian", "prior_beta": 0.1},
    "gaussian, clipped": {"thoughts": "gaussian", "objective": "ppo_clip", "inner_steps": 2},
    "gaussian, one number": {"thoughts": "gaussian", "latent_dim": 1, "interpreter_start": "onward"},
    "gaussian, a path": {"thoughts": "gaussian", "latent_dim": 19, **PATH},
    "state": {"thoughts": "state", "interpreter_start": "onward", "prior_beta": 0.1},
    "state, a path": {"thoughts": "state", **PATH, "reasoner_hidden_dim": 33},
    "gumbel": {"thoughts": "gumbel", **PATH},
    "gumbel, many symbols": {"thoughts": "gumbel", "thought_vocab": 21, **PATH},
    "credit": {"credit": "prefix", "max_reasoning_len": 3},
    "credit, onward": {"credit": "prefix", "interpreter_start": "onward", "prefix_nll_beta": 0.5},
    "all steps rewarded": {"reward": "trajectory", "trajectory_alpha": 1.0, "variable_len": True},
    "all steps rewarded, gaussian": {"reward": "trajectory", "thoughts": "gaussian"},
    "deterministic": {"thoughts": "deterministic", **PATH},
    "deterministic, onward": {"thoughts": "deterministic", **PATH, "interpreter_start": "onward"},
    "deterministic, every step": {"thoughts": "deterministic", **PATH, "prefix_nll_beta": 1.0},
    "markov": {"markov_reasoner": True, "max_reasoning_len": 3},
    "steps alone": {
        **{"markov_reasoner": True, "interpreter_reads": "last", "thought_logits": "cosine"},
        **{"hide_last_token": True, "max_reasoning_len": 3, "thought_vocab": 21},
    },
    "right thoughts": {"warm_start": 8, "max_reasoning_len": 3, "baseline": "ema"},
    "labels": {"warm_start": 8, "warm_start_as": "labels", "thought_vocab": 1, "max_reasoning_len": 3},
    "labels of a position": {"warm_start": 8, "warm_start_as": "labels", "use_reasoner": False},
    "attended": {"mixing": "attend", "baseline": "none", "reward": "contribution", "trice_samples": 3},
    "attended by scores, paid for coherence": {
        **{"mixing": "attend", "baseline": "none", "attend_by": "scores", "thought_vocab": None},
        **{"coherence_beta": 0.5, "data_loader_batch_size": 5},
    },
    "handed on": {"thought_into": "state", "mixing": "base"},
    "handed on in turn": {
        "thought_into": "state",
        **{"weight_groups": list("AABC"), "base_lm_hidden_dim": 7, "data_loader_batch_size": 5},
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_a_seed_alone_and_in_company_is_the_same_run(name: str) -> None:
    settings = quick(**RUNS[name])
    alone, company = trained(settings, [5]), trained(settings, [4, 5, 6, 7])
    same(alone, company, (0, 1))
    parameters = company[0]
    assert all(not torch.equal(p[0], p[1]) for p in parameters.values()), "seeds differ"


def test_the_same_seed_twice_is_the_same_run() -> None:
    same(trained(quick(), [3, 4]), trained(quick(), [3, 4]), (1, 1))


@pytest.mark.parametrize("name", ["plain", "afresh", "onward", "gate", "shared head", "gaussian", "gumbel"])
def test_a_seed_that_is_not_a_number_touches_no_other(name: str) -> None:
    """Check it for every place in the stack, the last included."""
    settings = quick(**RUNS[name])
    alone = trained(settings, [5])
    for broken, at in ((0, 1), (1, 0)):
        seeds = [6, 5] if at else [5, 6]
        company = trained(settings, seeds, broken)
        same(alone, company, (0, at))
        assert any(bool(p[broken].isnan().any()) for p in company[0].values())


@pytest.mark.parametrize("task", [tiny.Toy(), RevProg(), HiddenMarkov()])
def test_arms_with_one_seed_see_the_same_batches(task: Any) -> None:
    """Check it for different K, L and S."""
    arms = [
        quick(task=task),
        quick(task=task, use_reasoner=False, base_lm_hidden_dim=50),
        quick(task=task, trice_samples=7, max_reasoning_len=4, mixing="gate"),
        quick(task=task, max_reasoning_len=0),
    ]
    streams = [
        draw_batches(task, seeds, build_training_params(arm), torch.zeros(1))
        for arm, seeds in zip(arms, ([3], [3], [2, 3], [3]), strict=True)
    ]
    seen = set()
    for _ in range(40):  # more than are drawn from the task at once
        batches = [next(s).counted for s in streams]
        for batch in batches[1:]:
            for ours, theirs in zip(batches[0][:4], batch[:4], strict=True):
                assert torch.equal(ours[-1], theirs[-1])
        seen.add(str(batches[0].inputs.tolist()))
    assert len(seen) == 40, "every step has a batch of its own"


def test_arms_with_one_seed_start_from_the_same_base_lm() -> None:
    arms = [
        build_model(quick(**changes), [3])
        for changes in ({}, {"use_reasoner": False}, {"max_reasoning_len": 0}, {"mixing": "gate"})
    ]
    for arm in arms[1:]:
        mine, theirs = arms[0].cores["A"].state_dict(), arm.cores["A"].state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_noise_is_drawn_anew_each_step_and_for_each_seed() -> None:
    settings = quick()
    data = draw_batches(settings.task, [0, 1], build_training_params(settings), torch.zeros(1))
    noises = [next(data).noise for _ in range(3)]
    assert noises[0].shape == (2, 9, settings.task.queries, 3, 2)
    assert len({float(noise[s].sum()) for noise in noises for s in range(2)}) == 6


def test_a_task_gets_the_progress_of_the_training() -> None:
    seen: list[tuple[float, int]] = []

    class Watching(tiny.Toy):
        def sample(self, *args: Any) -> Batch:
            seen.append((args[4], args[1]))
            return super().sample(*args)

    settings = quick(task=Watching(), max_steps=80)
    data = draw_batches(settings.task, [0, 1], build_training_params(settings), torch.zeros(1))
    for _ in range(CHUNK * 4):  # more than are asked for
        next(data)
    size = CHUNK * settings.data_loader_batch_size
    assert seen == [(share, size) for share in (0.0, 0.4, 0.8, 1.0) for _ in range(2)]


def test_the_oracle_comes_along_where_every_batch_has_one() -> None:
    task = HiddenMarkov(states=3, vocab=4, positions=5)
    settings = build_training_params(quick(task=task))
    batch = next(draw_batches(task, [3, 8], settings, torch.zeros(1, dtype=torch.float64))).counted
    assert batch.oracle is not None and batch.oracle.shape == (2, 9, 5, 4)
    assert torch.equal(batch.oracle, task.oracle(batch.inputs))
    one, two = (task.sample(stream(seed, "x"), 6, 5, "held_out") for seed in (0, 1))
    both = stack([one, two], torch.zeros(1), False).oracle
    assert both is not None and both.dtype == torch.float32
    assert torch.equal(both[1], two.oracle[0].float())
    assert stack([one, two._replace(oracle=None)], torch.zeros(1), False).oracle is None
    assert stack([x._replace(oracle=None) for x in (one, two)], torch.zeros(1), False).oracle is None
