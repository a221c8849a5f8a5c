"""What a transformer in the place of a GRU refuses, and what its controls are."""

from __future__ import annotations

from typing import Any

import pytest

from tests import tiny
from tests.config.checks.checking import accepted, refused
from toyqs.config.builders.model import count_parameters
from toyqs.config.checks import backbone
from toyqs.config.controls import matched_width
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.backbone import FAMILIES


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package transformers were there: the refusals come before it is loaded."""
    monkeypatch.setattr(backbone, "find_spec", lambda name: name)


def test_the_package_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "find_spec", lambda name: None)
    refused(r"backbone=gpt2: the package transformers is not installed; pip install", backbone="gpt2")
    assert accepted(backbone="gru") == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_job_is_accepted(family: str) -> None:
    assert accepted(backbone=family) == []


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("model_n_head=5: does not divide a width of 12; give widths", {"model_n_head": 5}),
    ("model_n_head=5: does not divide a width of 24", {"model_n_head": 5, "base_lm_hidden_dim": 20}),
    ("model_n_head=2: does not divide a width of 7", {"interpreter_hidden_dim": 7}),
    ("model_n_head=4: makes heads 3 wide", {"backbone": "llama", "model_n_head": 4}),
    ("model_n_kv_head=3: does not divide model_n_head=2", {"backbone": "qwen3", "model_n_kv_head": 3}),
    ("thoughts=state: are sampled states of a GRU", {"thoughts": "state"}),
    (
        "positions_up_to=12: a sequence with its thought takes 13 positions; give positions_up_to=13 or more",
        {"positions_up_to": 12},
    ),
    (
        "positions_up_to=6: a sequence takes 7 positions",
        {"positions_up_to": 6, "use_reasoner": False, "controls": "none"},
    ),
]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("said", "settings"), REFUSED, ids=lambda x: str(x)[:24])
def test_what_it_cannot_do_is_one_line(said: str, settings: dict[str, Any]) -> None:
    refused(said, **({"backbone": "gpt2"} | settings))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "settings",
    [
        {"use_reasoner": False, "controls": "none", "reasoner_hidden_dim": 7},  # a width of no use
        {"ahead": "continue"},  # over one token there is nothing to go on over
        {"backbone": "gpt2", "model_n_head": 4},  # learned positions: heads of 3 will do
        {"backbone": "gpt2", "positions_up_to": 13},
        {"backbone": "gpt2", "positions_up_to": 7, "use_reasoner": False, "controls": "none"},
        {"positions_up_to": 1},  # rotary positions are no table
    ],
)
def test_what_cannot_matter_is_let_through(settings: dict[str, Any]) -> None:
    check = {"backbone": "llama"} | settings
    backbone.check_backbone(resolved(RunConfig(**check)))


@pytest.mark.parametrize(("family", "heads", "unit"), [("gru", 2, 1), ("gpt2", 3, 3), ("llama", 3, 6)])
@pytest.mark.parametrize("target", [0, 60, 999, 10**6])
def test_the_width_of_a_control_is_one_that_its_heads_divide(
    family: str, heads: int, unit: int, target: int
) -> None:
    plain = RunConfig(backbone=family, model_n_head=heads)
    width = matched_width(plain, target, lambda config: 6 * config.base_lm_hidden_dim**2)
    assert width == min(range(unit, 2000, unit), key=lambda w: abs(6 * w * w - target))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_plain_model_knows_nothing_of_settings_that_are_idle_in_it(family: str) -> None:
    """GPT-2 learns each position: thoughts that are not there must not lengthen its table."""
    pytest.importorskip("transformers")
    sizes = {"backbone": family, "use_reasoner": False, "base_lm_hidden_dim": 4, "model_n_head": 2}
    found = {
        count_parameters(tiny.config(**sizes, max_reasoning_len=length, n_tokens_ahead=ahead))
        for length, ahead in ((2, 1), (9, 1), (2, 3))
    }
    assert len(found) == 1
