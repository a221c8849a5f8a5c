"""Keys of how a thought is read: refusals, where they are idle, what they build, the names of runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests import tiny
from tests.config.checks.checking import NO_REASONER, ONE_GRU, accepted, refused
from toyqs.config.builders.model import build_model
from toyqs.config.identity import canonical, run_key
from toyqs.config.inactive import inactive_keys
from toyqs.config.run_config import RunConfig
from toyqs.model.interpreter import Onward
from toyqs.model.mixing import Sum

ONWARD = {**ONE_GRU, "interpreter_start": "onward"}
LAST, LATER = "add_last_context_token", "increment_pos_id_for_last_context_token"
KEYS = ("different_eot", LAST, LATER, "use_residual")


def key(**changes: Any) -> str:
    return run_key(replace(RunConfig(), **changes), 0)


def test_defaults_are_what_was_done_before() -> None:
    assert [getattr(RunConfig(), name) for name in KEYS] == [True, False, False, False]
    named = {name: p.shape for name, p in build_model(tiny.config(), [0]).named_parameters()}
    assert named["cores.D.markers.weight"] == (1, 2, 3) and "cores.D.tokens.weight" in named


def test_an_interpreter_afresh_knows_no_context() -> None:
    refused(f"{LAST}=true: .*starts afresh reads.*interpreter_start=onward", **{LAST: True})
    assert accepted(**ONWARD, **{LAST: True, "use_base_lm": False}) != []
    assert accepted(**ONWARD, **{LAST: True}) == []
    assert accepted(**ONWARD, **{LAST: True, "max_reasoning_len": 0}) == []
    assert accepted(**NO_REASONER, **{LAST: True}) == []


def test_sums_of_logits_need_one_width_and_a_base() -> None:
    for given, changes in (("use_residual=true", {"use_residual": True}), ("mixing=sum", {"mixing": "sum"})):
        refused(f"{given}: .* are 12 and 24 wide; give .*model_hidden_dim=12", **changes)
        refused(f"{given}: .*use_base_lm", **ONE_GRU, **changes, use_base_lm=False)
        assert accepted(**ONE_GRU, **changes) == []
    refused("use_residual=true: .*simple_lm_head", **ONE_GRU, use_residual=True, simple_lm_head=True)
    refused("simple_lm_head=true: .*mixing=sum", **ONE_GRU, mixing="sum", simple_lm_head=True)
    for mixing in ("add", "concat", "gate", "hidden", "logits", "residual"):
        refused(f"use_residual=true: .*mixing={mixing} .*mixing=thought", use_residual=True, mixing=mixing)
    for mixing in ("auto", "thought", "sum"):
        assert accepted(**ONE_GRU, use_residual=True, mixing=mixing) == []


def test_residual_is_a_spelling_of_a_mixing() -> None:
    wanted = key(**ONE_GRU, mixing="sum")
    for mixing in ("auto", "thought", "sum"):
        assert key(**ONE_GRU, use_residual=True, mixing=mixing) == wanted
    assert wanted not in (key(**ONE_GRU), key(**ONE_GRU, mixing="thought"))
    settled = canonical(replace(RunConfig(), **ONE_GRU, use_residual=True))
    assert (settled.mixing, settled.use_residual) == ("sum", False) and canonical(settled) == settled


@pytest.mark.parametrize("backbone", ["gru", "gpt2", "llama"])
def test_where_the_position_matters(backbone: str) -> None:
    for last in (False, True):
        config = replace(RunConfig(), **ONWARD, backbone=backbone, **{LAST: last})
        assert (LATER in inactive_keys(config)) == (backbone == "gru" or not last)


@pytest.mark.parametrize("name", KEYS)
def test_each_makes_another_run_and_none_without_thoughts(name: str) -> None:
    changed = {name: not getattr(RunConfig(), name)}
    with_last = {LAST: True, "backbone": "gpt2"} if name == LATER else {}
    assert key(**ONWARD, **with_last) != key(**ONWARD, **(with_last | changed))
    assert key(**NO_REASONER) == key(**NO_REASONER, **changed)


def test_what_is_built() -> None:
    last = tiny.config(interpreter_start="onward", thought_vocab=3, **{LAST: True})
    without = tiny.config(interpreter_start="onward", thought_vocab=3)
    model = build_model(last, [0])
    assert isinstance(model.interpreter, Onward) and model.interpreter.last_token == 0
    added = dict(model.named_parameters()).keys() - dict(build_model(without, [0]).named_parameters()).keys()
    assert added == {"cores.D.tokens.weight"}, "the interpreter's core hears tokens now"
    assert isinstance(build_model(tiny.config(use_residual=True), [0]).mixer, Sum)
