"""One run under several spellings: equal keys, and the columns that its settings become."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_inactive import WITHOUT, ZERO
from tests.keys import BASE, OTHER, Text, key, same
from toyqs.config.identity import canonical, settings
from toyqs.config.keys import OUTSIDE_KEY
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.texts.char_text import CharText


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"baseline": "trice"}, {"baseline": "group_mean"}),
        ({"weight_groups": list("BAAA")}, {"weight_groups": list("ABBB")}),
        ({"interpreter_hidden_dim": None}, {"interpreter_hidden_dim": RunConfig().reasoner_hidden_dim}),
        ({"train_nll_num": None}, {"train_nll_num": RunConfig().trice_samples}),
        ({"simple_lm_head": True}, {"mixing": "add"}),
        ({"mixing": "auto"}, {"mixing": "concat"}),
        ({"mixing": "auto", "use_base_lm": False}, {"mixing": "thought", "use_base_lm": False}),
        ({"simple_lm_head": True, "use_base_lm": False}, {"mixing": "add", "use_base_lm": False}),
        ({"debug_cfg": "seperateInterpreter"}, {"weight_groups": list("AAAB")}),
        ({"model_hidden_dim": 9}, {"base_lm_hidden_dim": 9, "reasoner_hidden_dim": 9}),
        ({"thought_vocab": None, "meta_token_init": "2"}, {"thought_vocab": None, "meta_token_init": 2}),
        ({"clip_gradients": 0}, {"clip_gradients": 0.0}),
        ({"reasoner_lr": 1}, {"reasoner_lr": 1.0}),
        ({"policy_loss_beta": -0.0}, {"policy_loss_beta": 0.0}),
        ({"task": RevProg(label_noise=0)}, {"task": RevProg(label_noise=0.0)}),
    ],
)
def test_two_spellings_of_one_run(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert same(first, second)


def test_canonical_is_settled() -> None:
    for changed in (OTHER, WITHOUT, ZERO, {"use_base_lm": False}, {"debug_cfg": "seperateInterpreter"}):
        once = canonical(replace(BASE, **changed))
        assert canonical(once) == once


def test_resolved_leaves_the_given_config_alone() -> None:
    config = replace(BASE, model_hidden_dim=16)
    assert resolved(config).base_lm_hidden_dim == 16
    assert config.base_lm_hidden_dim == RunConfig().base_lm_hidden_dim


def test_mixing() -> None:
    assert BASE.mixer == "concat"
    assert replace(BASE, simple_lm_head=True).mixer == "add"
    assert replace(BASE, mixing="gate").mixer == "gate"
    assert replace(BASE, use_base_lm=False).mixer == "thought"
    assert replace(BASE, use_base_lm=False, simple_lm_head=True).mixer == "add"


def test_settings_are_flat_columns() -> None:
    row = settings(replace(BASE, info="label", seed=[7, 8]), 8)
    assert json.loads(json.dumps(row)) == row
    assert all(value is None or isinstance(value, int | float | str) for value in row.values())
    assert (row["task"], row["task.p"], row["seed"]) == ("rev_prog", RevProg().p, 8)
    assert (row["weight_groups"], row["mixing"], row["info"]) == ("ABCD", "concat", "label")
    assert not set(OUTSIDE_KEY) & set(row)


def test_a_text_is_known_by_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    assert same({"task": Text(path="a.txt")}, {"task": Text(path="b.txt")})
    before = key(task=Text())
    monkeypatch.setattr(Text, "content", "abd")
    assert key(task=Text()) != before


def test_the_same_text_elsewhere_is_the_same_run(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    for file in (first, second):
        file.write_text("to be or not to be " * 20)
    assert same({"task": CharText(path=str(first))}, {"task": CharText(path=str(second))})
    second.write_text("to be or not to bee " * 20)
    assert not same({"task": CharText(path=str(first))}, {"task": CharText(path=str(second))})
