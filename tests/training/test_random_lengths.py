"""Thoughts whose length is drawn anew in every step."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from tests import tiny
from tests.config.checks.checking import accepted, refused
from tests.keys import OTHER
from tests.training.test_loop import quick, same, trained
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model, count_parameters
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.controls import matched_controls
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.experiment import learning_curve, stack
from toyqs.tasks.iterate import Iterate
from toyqs.training.batches import draw_batches
from toyqs.training.evaluation import recording
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.loop import train
from toyqs.types import Batch, Trace

RANDOM = {"length_schedule": "random"}
# Settings that say from which lengths is drawn, or whether there are any; and one that names a missing file.
OF_LENGTHS = {"length_schedule", "min_reasoning_len", "max_reasoning_len", "use_reasoner", "pretrained"}


def lengths(steps: int = 200, **changes: Any) -> list[int]:
    numbers = build_training_params(quick(**RANDOM, **{"max_reasoning_len": 6, **changes}))
    return list(map(numbers.length_at, range(steps)))


def test_all_lengths_are_equally_likely_and_none_tells_the_next() -> None:
    drawn = lengths(12_000, min_reasoning_len=2)
    count = Counter(drawn)
    assert sorted(count) == [2, 3, 4, 5, 6]
    assert stats.chisquare(list(count.values())).pvalue > 0.01
    pairs = Counter(zip(drawn[::2], drawn[1::2], strict=True))
    assert len(pairs) == 25 and stats.chisquare(list(pairs.values())).pvalue > 0.01


@pytest.mark.parametrize("name", sorted(OTHER.keys() - OF_LENGTHS))
def test_no_other_setting_changes_the_lengths(name: str) -> None:
    assert lengths(40, **{name: OTHER[name]}) == lengths(40)


def seen_by_step(settings: RunConfig, seeds: list[int]) -> list[Trace]:
    """Return the trace of every step of a training."""
    model, objective, seen = build_model(settings, seeds), build_objective(settings), []

    def watching(trace: Trace, batch: Batch) -> Any:
        seen.append(trace)
        return objective(trace, batch)

    numbers = build_training_params(settings)
    data = draw_batches(settings.task, seeds, numbers, next(model.parameters()))
    reference = build_reference_model(settings, model)
    train(model, watching, data, numbers, lambda step, values: None, reference)
    return seen


PATH = {"objective": "pathwise"}
RUNS: dict[str, dict[str, Any]] = {
    "token": {},
    "onward": {"interpreter_start": "onward"},
    "gaussian": {"thoughts": "gaussian"},
    "state": {"thoughts": "state"},
    "gumbel": {"thoughts": "gumbel", **PATH},
    "deterministic": {"thoughts": "deterministic", **PATH},
    "inner steps": {"objective": "ppo_clip", "inner_steps": 2},
    "off-policy": {"sampler": "uniform", "objective": "vargrad"},
    "accumulated": {"grad_acc": 2, "data_loader_batch_size": 6},
    "ending itself": {"variable_len": True, "length_penalty": 0.01, "punish_unfinished": 0.1},
    "ended by the task": {"adaptive_len": True, "task": Iterate(n=6, k=4, curriculum=0.0)},
    "learned reward": {"learned_reward": True},
    "a reference": {"reference": "ema", "reward": "log_ratio", "thought_kl_beta": 0.1},
    "hard positions": {"think_at": "hard"},
    "transformer": {"backbone": "gpt2", "model_hidden_dim": 4},
    "rotary transformer": {"backbone": "llama", "model_hidden_dim": 4, "interpreter_start": "onward"},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_step_thinks_as_long_as_its_number_says(name: str) -> None:
    """Whatever the seeds."""
    if "backbone" in RUNS[name]:
        pytest.importorskip("transformers")
    settings = quick(**RANDOM, max_steps=9, **{"max_reasoning_len": 4, **RUNS[name]})
    wanted = lengths(9, max_reasoning_len=4)
    assert len(set(wanted)) > 2
    repeated = settings.inner_steps if settings.objective == "ppo_clip" else settings.grad_acc
    for seeds in [[0], [5]] if settings.backbone != "gru" else [[5], [4, 6]]:
        seen = seen_by_step(settings, seeds)
        assert [x.symbols.shape[4] for x in seen] == [x for x in wanted for _ in range(repeated)]
        for trace, longest in zip(seen[::repeated], wanted, strict=True):
            assert bool(trace.logits.isfinite().all())
            if settings.lengths_vary:
                assert int(trace.length.max()) <= longest
            if settings.adaptive_len:
                assert int(trace.length.max()) == min(4, longest)
    if settings.variable_len:
        assert any(bool(trace.unfinished.any()) for trace in seen)


def test_a_seed_alone_and_in_company_is_the_same_run() -> None:
    settings = quick(**RANDOM, max_reasoning_len=4)
    same(trained(settings, [5]), trained(settings, [4, 5, 6]), (0, 1))


def test_the_cost_is_that_of_the_mean_length_and_compute_is_matched_to_it() -> None:
    fixed = [count_cost(tiny.config(max_reasoning_len=length)) for length in (2, 3, 4)]
    settings = tiny.config(**RANDOM, min_reasoning_len=2, max_reasoning_len=4)
    cost = count_cost(settings)
    for name in ("flops_per_token", "recurrent_steps_per_token"):
        assert getattr(cost, name) == pytest.approx(sum(getattr(x, name) for x in fixed) / 3, rel=1e-12)
        assert getattr(cost, name) == pytest.approx(getattr(fixed[1], name), rel=0.02)
    assert cost.parameters == fixed[2].parameters
    assert count_cost(replace(settings, max_steps=3)) == cost, "whatever was drawn"
    plain = count_cost(replace(settings, use_reasoner=False))
    matched = matched_controls(settings, count_cost, count_parameters)["compute_matched"]
    ratio = cost.flops_per_step / plain.flops_per_step
    assert matched.max_steps == pytest.approx(settings.max_steps * ratio, rel=0.05)
    assert matched.max_steps < settings.max_steps * fixed[2].flops_per_step / plain.flops_per_step


def test_a_run_is_measured_at_its_longest_thoughts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watching(model: Any, held_out: Batch, seeds: Any, sizes: Any, *, full: bool, **more: Any) -> Any:
        found = evaluate(model, held_out, seeds, sizes, full=full, **more)
        seen.append((sizes.length, found))
        return found

    for module in (learning_curve, recording):
        monkeypatch.setattr(module, "evaluate", watching)
    settings = quick(**RANDOM, max_reasoning_len=4, max_steps=6, eval_every=2, eval_sequences=8)
    settings = replace(settings, runs_dir=str(tmp_path))
    stack.run_stack(settings, [7], count_cost(settings), lambda step, nll: None)
    assert lengths(6, max_reasoning_len=4)[5] < 4, "the last step is a short one"
    assert [length for length, _ in seen] == [4, 4, 4, 4, 4], "to size the record, the curve, the row"
    row = json.loads((tmp_path / run_key(settings, 7) / "summary.json").read_text())
    assert row["nll"] == float(seen[-1][1]["nll"])
    assert row["final_reasoning_len"] == row["max_reasoning_len"] == 4
    assert (row["length_schedule"], row["min_reasoning_len"]) == ("random", 1)
    assert row["flops_per_step"] == count_cost(settings).flops_per_step


def test_refusals_and_names() -> None:
    refused("length_schedule=random: with max_reasoning_len=0", **RANDOM, max_reasoning_len=0)
    refused("min_reasoning_len=3: ", **RANDOM, min_reasoning_len=3)
    assert accepted(**RANDOM) == []
    config = RunConfig(max_steps=10)
    keys = {run_key(replace(config, length_schedule=name), 0) for name in ("constant", "random")}
    assert len(keys | {run_key(replace(config, **RANDOM, min_reasoning_len=2), 0)}) == 3
    zero = replace(config, max_reasoning_len=0)
    assert run_key(replace(zero, **RANDOM), 0) == run_key(zero, 0)


def test_the_noise_of_all_lengths_is_drawn() -> None:
    """Check that batches and noise are those of a run of fixed length."""
    both = (quick(max_reasoning_len=4), quick(**RANDOM, max_reasoning_len=4))
    streams = [draw_batches(s.task, [3], build_training_params(s), torch.zeros(1)) for s in both]
    for _ in range(40):
        fixed, drawn = map(next, streams)
        assert torch.equal(fixed.noise, drawn.noise) and torch.equal(fixed.inputs, drawn.inputs)
