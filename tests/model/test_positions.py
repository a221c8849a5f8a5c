"""Learned positions: a table of chosen size, and training sequences that begin anywhere in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from scipy import stats
from torch import Tensor

pytest.importorskip("transformers")

from tests import tiny
from tests.training.test_loop import quick, trained
from toyqs.config.builders.model import build_model, count_parameters
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import Training
from toyqs.model.backbones.transformer import TransformerBackbone
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.training.batches import TrainingBatch, chunks, draw_batches, prepare, rank_slice
from toyqs.training.loop import train
from toyqs.types import Trace

ROWS = 20  # of the tables below; a sequence of the toy task has 4 positions, with a thought of 2 symbols 9


def gpt2(**changes: Any) -> RunConfig:
    return tiny.config(
        **{"backbone": "gpt2", "model_hidden_dim": 4, "model_n_layer": 2, "positions_up_to": ROWS} | changes
    )


def shifted(model: LatentReasoner, settings: RunConfig, first: int) -> LatentReasoner:
    """Return the same model, with the rows of its tables of positions moved to the front."""
    other = tiny.model(settings)
    weights = {name: x.detach().clone() for name, x in model.named_parameters()}
    tables = [name for name in weights if name.endswith("wpe.weight")]
    assert tables
    moved = weights | {name: weights[name].roll(-first, 1) for name in tables}
    for name, parameter in other.named_parameters():
        parameter.data = moved[name]
    return other


CASES: dict[str, dict[str, Any]] = {
    "afresh": {},
    "all shared": {"weight_groups": "AAAA"},
    "onward": {"interpreter_start": "onward"},
    "handed on": {"interpreter_start": "onward", "max_reasoning_len": 0},
    "zero length": {"max_reasoning_len": 0},
    "token again": {"interpreter_start": "onward", "add_last_context_token": True},
    "vectors": {"thoughts": "gaussian", "latent_dim": 2},
    "ends": {"variable_len": True},
    "into the state": {"thought_into": "state"},
    "into the state, in turn": {"thought_into": "state", "weight_groups": "AAAA"},
    "tokens ahead": {"n_tokens_ahead": 2, "ahead": "continue"},
    "plain": {"use_reasoner": False},
}


@pytest.mark.parametrize("name", CASES)
def test_a_late_beginning_changes_the_positions_and_nothing_else(name: str) -> None:
    """Compare with a model whose table begins there, bit for bit, values and gradients."""
    settings = gpt2(**CASES[name])
    model, batch, noise = tiny.sampled(settings)
    other, drawn = shifted(model, settings, 5), prepare(batch, noise, settings.num_ahead)
    traces = [
        model(drawn.inputs, drawn.positions, noise, first=5),
        other(drawn.inputs, drawn.positions, noise),
        model(drawn.inputs, drawn.positions, noise),
    ]
    late, wanted, early = (x.logits for x in traces)
    assert torch.equal(late, wanted) and not torch.equal(late, early)
    late.square().sum().backward()
    wanted.square().sum().backward()
    pairs = zip(model.named_parameters(), other.parameters(), strict=True)
    for (parameter, mine), theirs in pairs:
        if mine.grad is not None:
            moved = 5 if parameter.endswith("wpe.weight") else 0
            assert torch.equal(mine.grad, theirs.grad.roll(moved, 1)), parameter


def test_a_table_without_room_to_spare_gives_the_numbers_of_none() -> None:
    changes = {"backbone": "gpt2", "model_hidden_dim": 4, "max_reasoning_len": 2}
    without, with_key = quick(**changes), quick(**changes, positions_up_to=12)
    assert with_key.num_positions == without.num_positions == 12
    (ours, values), (theirs, wanted) = trained(with_key, [3]), trained(without, [3])
    assert all(torch.equal(ours[name], x) for name, x in theirs.items())
    assert all(torch.equal(values[i][name], x) for i, step in enumerate(wanted) for name, x in step.items())
    assert run_key(with_key, 3) != run_key(without, 3), "its controls begin late"


def first_positions(settings: RunConfig, steps: int) -> list[int]:
    return list(map(build_training_params(settings).first_position_at, range(steps)))


def test_sequences_begin_at_every_position_that_leaves_room_equally_often() -> None:
    plain = first_positions(gpt2(use_reasoner=False), 6_800)
    count = Counter(plain)
    assert sorted(count) == list(range(ROWS - 4 + 1))
    assert stats.chisquare(list(count.values())).pvalue > 0.01
    thinking = first_positions(gpt2(), 6_800)
    often = Counter(thinking)
    assert sorted(often) == list(range(ROWS - 9 + 1))
    assert max(often.values()) < 2.5 * min(often.values()), "none is met much more often than the others"


def test_all_arms_begin_at_the_same_positions() -> None:
    """Wherever that leaves room for an arm's thoughts."""
    settings = gpt2(positions_up_to=200)
    plain = first_positions(replace(settings, use_reasoner=False), 300)
    arms = {"thinking": settings} | unmatched_controls(settings)
    assert len(arms) > 4
    for arm, control in arms.items():
        room = 200 - control.longest_sequence
        found = first_positions(control, 300)
        assert max(found) <= room, arm
        assert [x for x, y in zip(found, plain, strict=True) if y <= room] == [x for x in plain if x <= room]
        assert count_table(control) == 200
    other = replace(settings, trice_samples=7, data_loader_batch_size=2, reasoner_hidden_dim=8, max_steps=3)
    assert first_positions(other, 300) == first_positions(settings, 300)


def count_table(settings: RunConfig) -> int:
    """Return the rows of every table of positions of a run, which are equally many."""
    (rows,) = {x.shape[1] for name, x in build_model(settings, [0]).named_parameters() if "wpe" in name}
    return rows


def test_parameters_of_the_whole_table_are_counted() -> None:
    small, large = (count_parameters(gpt2(use_reasoner=False, positions_up_to=rows)) for rows in (10, 25))
    assert large - small == 15 * 4


@contextmanager
def watched() -> Iterator[list[int]]:
    """Collect the first positions of everything that is read, and of every empty memory."""
    seen: list[int] = []
    read, empty = TransformerBackbone.read, TransformerBackbone.empty

    def reading(self: Any, x: Tensor, first: int = 0) -> Any:
        seen.append(first)
        return read(self, x, first)

    def emptied(self: Any, first: int = 0) -> Any:
        seen.append(first)
        return empty(self, first)

    with (
        mock.patch.object(TransformerBackbone, "read", reading),
        mock.patch.object(TransformerBackbone, "empty", emptied),
    ):
        yield seen


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_reasoner": False},
        {"grad_acc": 2},
        {"objective": "ppo_clip", "inner_steps": 2},
        {"think_at": "hard"},
        {"reference": "ema", "reward": "log_ratio", "thought_kl_beta": 0.1},
    ],
)
def test_training_begins_where_its_step_says_and_evaluation_at_0(changes: dict[str, Any]) -> None:
    settings = gpt2(max_steps=3, eval_sequences=8, **changes)
    wanted = first_positions(settings, 3)
    assert len(set(wanted)) == 3
    steps: list[int] = []
    training = Training(settings, [2])
    with watched() as seen:

        def objective(trace: Trace, batch: Any) -> Any:
            steps.append(len(seen))
            return build_objective(settings)(trace, batch)

        like = next(training.model.parameters())
        data = draw_batches(settings.task, [2], training.params, like)
        reference = build_reference_model(settings, training.model)
        train(training.model, objective, data, training.params, lambda step, values: None, reference)
        repeated = len(steps) // 3
        ends = steps[repeated - 1 :: repeated]
        for first, start, end in zip(wanted, [0, *ends], ends, strict=False):
            assert set(seen[start:end]) == {first}
        seen.clear()
        training.evaluate()
        assert set(seen) == {0}


def test_parts_of_a_batch_begin_where_the_whole_does() -> None:
    _, batch, noise = tiny.sampled(gpt2(), size=4)
    drawn: TrainingBatch = prepare(batch, noise)._replace(first=7)
    assert [part.first for part in chunks(drawn, 2)] == [7, 7]
    assert rank_slice(drawn, 1, 2).first == 7


def test_later_positions_are_trained() -> None:
    """Up to the last that a thought can reach; the table has one row more."""
    settings = gpt2(max_steps=40, weight_groups="AAAA", interpreter_start="onward")
    before = dict(build_model(settings, [4]).named_parameters())
    after, _ = trained(settings, [4])
    (table,) = [name for name in after if name.endswith("wpe.weight")]
    assert (after[table] != before[table]).any(-1).tolist() == [[*[True] * (ROWS - 1), False]]


def test_no_other_backbone_has_such_a_table() -> None:
    for backbone in ("gru", "llama"):
        settings = tiny.config(backbone=backbone, model_hidden_dim=4)
        given = replace(settings, positions_up_to=64)
        assert set(first_positions(given, 20)) == {0}
        assert run_key(given, 1) == run_key(settings, 1)
        assert count_parameters(given) == count_parameters(settings)
