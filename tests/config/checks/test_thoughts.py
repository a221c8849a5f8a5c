"""What is refused of thoughts and objectives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.config.checks.checking import NO_REASONER, accepted, refused
from toyqs.config.run_config import RunConfig
from toyqs.tasks.depo import Depo
from toyqs.tasks.group import Group
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.mano import Mano
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.texts.char_text import CharText


@pytest.mark.parametrize("mixing", ["concat", "gate", "thought"])
def test_simple_head_adds(mixing: str) -> None:
    refused(f"simple_lm_head=true: .*mixing={mixing}", simple_lm_head=True, mixing=mixing)
    assert accepted(simple_lm_head=True, mixing="add") == []
    assert accepted(simple_lm_head=True, mixing=mixing, **NO_REASONER) == []


@pytest.mark.parametrize("baseline", ["group_mean", "trice", "leave_one_out"])
def test_one_thought_is_no_group(baseline: str) -> None:
    alone = {"trice_samples": 1, "baseline": baseline}
    refused(f"trice_samples=1: baseline={baseline} .*one of baseline=none, ema, value", **alone)
    for harmless in ({"policy_loss_beta": 0.0}, {"max_reasoning_len": 0}, {"baseline": "ema"}, NO_REASONER):
        assert accepted(**(alone | harmless)) == []


@pytest.mark.parametrize(
    ("objective", "least"),
    [("listwise", 2), ("plackett_luce", 2), ("maxent", 2), ("vargrad", 2), ("logz_mse", 3)],
)
def test_objectives_that_compare_thoughts_need_some(objective: str, least: int) -> None:
    few = {"objective": objective, "trice_samples": least - 1}
    refused(f"objective={objective}: .*trice_samples={least} or more", **few)
    for harmless in ({"policy_loss_beta": 0.0}, {"max_reasoning_len": 0}, NO_REASONER):
        assert accepted(**(few | harmless)) == []
    assert accepted(**few | {"trice_samples": least}) == []


def test_group_std_of_one() -> None:
    refused(
        "trice_samples=1: advantage_scale=group_std",
        trice_samples=1,
        baseline="none",
        advantage_scale="group_std",
    )


def test_one_thought_has_no_spread() -> None:
    alone = {"trice_samples": 1, "objective": "logz_learned", "temperature_scale": "spread"}
    refused("trice_samples=1: temperature_scale=spread .*temperature_scale=absolute", **alone)
    for harmless in ({"policy_loss_beta": 0.0}, {"temperature_scale": "absolute"}, {"max_reasoning_len": 0}):
        assert accepted(**(alone | harmless)) == []


def test_multi_sample_bounds_the_likelihood() -> None:
    refused("baseline=ema: objective=multi_sample", objective="multi_sample", baseline="ema")
    refused("reward=accuracy: objective=multi_sample", objective="multi_sample", reward="accuracy")
    assert accepted(objective="multi_sample") == []


def test_inner_steps_are_for_ppo() -> None:
    refused("inner_steps=2: only objective=ppo_clip", inner_steps=2)
    assert accepted(inner_steps=2, objective="ppo_clip") == []


@pytest.mark.parametrize("kind", ["gumbel", "deterministic"])
def test_thoughts_without_a_density_have_a_path(kind: str) -> None:
    refused(f"thoughts={kind}: have no density for objective=reinforce .*give objective=path", thoughts=kind)
    for harmless in ({"max_reasoning_len": 0}, NO_REASONER):
        assert accepted(thoughts=kind, **harmless) == []
    refused("objective=pathwise: no gradient passes .*thoughts=gaussian", objective="pathwise")
    for continuous in ("gaussian", "gumbel", "state"):
        assert accepted(thoughts=continuous, objective="pathwise") == []
        assert accepted(thoughts=continuous, objective="pathwise", trice_samples=1) == []


def test_deterministic_thoughts_are_one_and_read_in_any_width() -> None:
    coconut = {"thoughts": "deterministic", "objective": "pathwise"}
    assert "trice_samples=1" in accepted(**coconut)[0]
    assert accepted(**coconut, trice_samples=1) == []
    assert accepted(**coconut, trice_samples=1, interpreter_hidden_dim=48) == []


@pytest.mark.parametrize("kind", ["gaussian", "deterministic", "state"])
def test_no_head_of_tokens_for_continuous_thoughts(kind: str) -> None:
    refused(
        f"share_lm_head=true: thoughts={kind} ",
        thoughts=kind,
        objective="pathwise",
        share_lm_head=True,
        thought_vocab=None,
    )


def test_a_path_alone_is_a_loss_only_through_the_prediction() -> None:
    path = {"thoughts": "gaussian", "objective": "pathwise", "entropy_encouragement_coef": 0.0}
    refused("nll_loss_beta=0: leaves no loss", nll_loss_beta=0.0, **path)
    coconut = {"thoughts": "deterministic", "objective": "pathwise", "trice_samples": 1}
    refused("nll_loss_beta=0: leaves no loss", nll_loss_beta=0.0, **coconut)


def test_tokens_ahead() -> None:
    for critic in ({}, {"baseline": "value"}, {"objective": "logz_learned"}):
        assert accepted(n_tokens_ahead=2, **critic) == []
    refused("n_tokens_ahead=8: a sequence of task=rev_prog has only 7 tokens", n_tokens_ahead=8)
    for changes in ({"use_base_lm": False}, {"mixing": "thought"}):
        refused("ahead=persist: .*all 2 tokens.*give ahead=continue", n_tokens_ahead=2, **changes)
        assert accepted(n_tokens_ahead=2, ahead="continue", **changes) == []
    refused(
        "teacher_forcing_weight=0.5: objective=multi_sample",
        n_tokens_ahead=2,
        teacher_forcing_weight=0.5,
        objective="multi_sample",
    )
    assert accepted(n_tokens_ahead=99, **NO_REASONER) == []


def test_tokens_together() -> None:
    for changes in ({}, {"use_base_lm": False}, {"mixing": "thought"}, {"max_reasoning_len": 0}, NO_REASONER):
        assert accepted(n_tokens_ahead=4, ahead="joint", **changes) == []
        refused("n_tokens_ahead=8: .* only 7 tokens", n_tokens_ahead=8, ahead="joint", **changes)
    oracle = {"reward": "kl_forward", "reference": "oracle"}
    for changes in ({}, NO_REASONER):
        refused("reference=oracle: .*ahead=joint", n_tokens_ahead=2, ahead="joint", **oracle, **changes)
        assert accepted(n_tokens_ahead=1, ahead="joint", **oracle, **changes) == []
    refused("think_at=hard: .*n_tokens_ahead=2", n_tokens_ahead=2, ahead="joint", think_at="hard")


def test_markers_begin_as_a_symbol_that_is_there(tmp_path: Path) -> None:
    assert accepted(meta_token_init=5) == []
    for wrong in (6, -1):
        refused(f"meta_token_init={wrong}: .*give an id from 0 to 5", meta_token_init=wrong)
    refused("meta_token_init=a: .*thought_vocab=6 have no names", meta_token_init="a")
    refused("meta_token_init=0.5: takes", meta_token_init=0.5)
    refused("meta_token_init=true: takes", meta_token_init=True)
    text, dash = tmp_path / "text.txt", "\N{EM DASH}"
    for line, known, unknown in (("ab-", ("a", "-", dash), "x"), (f"ab{dash}", (dash, "b"), "-")):
        text.write_text(line * 100, encoding="utf-8")
        task = CharText(path=str(text))
        for name in known:
            settings = {"task": task, "seq_len": 8, "thought_vocab": None}
            assert accepted(meta_token_init=name, **settings) == []
            symbol = replace(RunConfig(), meta_token_init=name, **settings).marker_start
            assert task.alphabet[symbol] == ("-" if name == dash and "-" in line else name)
        refused(f"meta_token_init={unknown}: is none of the 3", meta_token_init=unknown, **settings)


def test_a_gradient_scale_under_adam_is_remarked_on() -> None:
    (note,) = accepted(meta_token_mode="grad_scale")
    assert "Adam" in note and "lr_multiplier" in note
    assert accepted(meta_token_mode="lr_multiplier") == []
    assert accepted(meta_token_mode="grad_scale", **NO_REASONER) == []


def test_a_heavy_policy_loss_is_remarked_on() -> None:
    (note,) = accepted(policy_loss_beta=100.0)
    assert note.startswith("policy_loss_beta=100 ") and "Adam" in note and "docs/findings.md" in note
    assert accepted(policy_loss_beta=10.0) == []
    path = {"thoughts": "gaussian", "objective": "pathwise"}
    for idle in (NO_REASONER, {"max_reasoning_len": 0}, path):
        assert accepted(policy_loss_beta=100.0, **idle) == []


def test_a_floor_is_a_weight() -> None:
    refused("gate_floor=1.5: .*give 0 to 1", gate_floor=1.5, mixing="gate")
    assert accepted(gate_floor=1.0, mixing="gate") == []


def test_nll_thoughts_are_among_the_thoughts() -> None:
    refused("train_nll_num=5: .*give 1 to 4", train_nll_num=5, trice_samples=4)
    assert accepted(train_nll_num=4, trice_samples=4) == []


def test_shared_head_speaks_the_tasks_tokens() -> None:
    task = RevProg(p=6, m=3)
    refused("share_lm_head=true: .*9 tokens.*thought_vocab=6", share_lm_head=True, thought_vocab=6, task=task)
    for vocab in (None, 9):
        assert accepted(share_lm_head=True, thought_vocab=vocab, task=task) == []


@pytest.mark.parametrize("ahead", ["persist", "joint"])
def test_tokens_ahead_that_never_count_are_refused(ahead: str) -> None:
    """A joint loss of two tokens would be one of a single token, of plain models too."""
    apart: tuple[Any, ...] = (Depo(), Mano(), Iterate(), Group(asked="end"))
    for task in apart:
        said = f"n_tokens_ahead=2: where task={task.name} thinks, token 2 of those ahead never counts; "
        refused(said + "give n_tokens_ahead=1", n_tokens_ahead=2, ahead=ahead, task=task)
    refused("give n_tokens_ahead=4 or fewer", n_tokens_ahead=6, ahead=ahead)
    assert accepted(n_tokens_ahead=4, ahead=ahead) == []
    assert accepted(n_tokens_ahead=2, ahead=ahead, task=Group()) == []
    plain = {"use_reasoner": False, "controls": "none", "n_tokens_ahead": 2, "task": Depo()}
    assert accepted(**plain) == []
    refused("n_tokens_ahead=2: where task=depo", **plain, ahead="joint")
