"""Refusals: each names the key, the value and the remedy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.config.checks.checking import NO_REASONER, ONE_GRU, accepted, refused
from toyqs.config.run_config import RunConfig
from toyqs.model.mixing import MIXERS
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.texts.char_text import CharText


def having(name: str) -> dict[str, Any]:
    """Return this entry of the keys' metadata, of those that have it."""
    found = {x.name: x.metadata.get(name) for x in fields(RunConfig)}
    return {key: value for key, value in found.items() if value is not None}


CHOICES, AT_LEAST, ABOVE = having("choices"), having("at_least"), having("above")
FLOATS = [x.name for x in fields(RunConfig) if x.type == "float"]


def test_defaults_pass_without_a_note() -> None:
    assert accepted() == []


@pytest.mark.parametrize("key", CHOICES)
def test_choices_are_listed(key: str) -> None:
    refused(f"{key}=some: is not a choice; give one of .*{CHOICES[key][-1]}", **{key: "some"})


@pytest.mark.parametrize("key", AT_LEAST)
def test_numbers_have_a_least_value(key: str) -> None:
    refused(f"{key}={AT_LEAST[key] - 1}: .* give {key}={AT_LEAST[key]}", **{key: AT_LEAST[key] - 1})


@pytest.mark.parametrize("key", FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite(key: str, value: float) -> None:
    refused(f"{key}={value}: is not finite", **{key: value})


def test_every_number_has_a_range() -> None:
    numbers = {x.name for x in fields(RunConfig) if str(x.type).startswith(("int", "float"))}
    assert numbers - set(AT_LEAST) - set(ABOVE) == {"max_steps", "policy_loss_beta", "hard_quantile"}
    assert len(CHOICES) == 38 and set(ABOVE.values()) == {0}


@pytest.mark.parametrize("steps", [0, -2])
def test_steps(steps: int) -> None:
    refused(f"max_steps={steps}: ", max_steps=steps)
    assert accepted(max_steps=1) == []


def test_learning_rate_is_above_zero() -> None:
    refused("base_lr=0.0: ", base_lr=0.0)


def test_layers_are_of_a_linear_head() -> None:
    mlp = {"linear_lm_head": False}
    refused(
        "lm_head_layers=2: .*linear_lm_head=false is an MLP.*; give linear_lm_head=true",
        lm_head_layers=2,
        **mlp,
    )
    assert accepted(lm_head_layers=1, **mlp) == [] and accepted(lm_head_layers=3) == []


@pytest.mark.parametrize("beta", [-1.0, 0.0, 1e4])
def test_policy_weight_is_any_finite_number(beta: float) -> None:
    assert len(accepted(policy_loss_beta=beta)) == (beta > 10)  # a note


@pytest.mark.parametrize("seed", [[], "7", [1, 1], -1, [0, -1], 1.5, True, None, [[1]]])
def test_seeds(seed: Any) -> None:
    refused("seed=", seed=seed)


@pytest.mark.parametrize("seed", [7, [7], [3, 1, 2]])
def test_good_seeds(seed: Any) -> None:
    assert accepted(seed=seed) == []


def test_one_model_width_meets_no_other() -> None:
    refused("base_lm_hidden_dim=33: model_hidden_dim=16", base_lm_hidden_dim=33, model_hidden_dim=16)
    assert accepted(model_hidden_dim=16, reasoner_hidden_dim=16, weight_groups=["A"] * 4) == []


@pytest.mark.parametrize("letters", [["A", "B", "C"], ["A", "B", "C", "DD"], []])
def test_four_letters(letters: list[str]) -> None:
    refused("weight_groups=", weight_groups=letters)


def test_a_letter_has_one_width() -> None:
    widths = {"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 32}
    refused("base_lm and reasoner|reasoner and base_lm", weight_groups=list("ABAC"), **widths)
    refused("(?=.*base_lm)(?=.*base_reasoner)(?=.*8)(?=.*32)", weight_groups=list("AABC"), **widths)
    refused(
        "(?=.*reasoner)(?=.*interpreter)(?=.*24)(?=.*48)",
        weight_groups=list("ABCC"),
        interpreter_hidden_dim=48,
    )
    assert accepted(weight_groups=list("ABBB"), **widths) == []


def test_a_letter_of_no_role_in_use_may_span_widths() -> None:
    assert accepted(weight_groups=list("AABC"), **NO_REASONER) == []
    assert accepted(weight_groups=list("AABC"), use_base_lm=False) == []


def test_onward_goes_on_in_any_width() -> None:
    for width in (24, 48):
        assert accepted(interpreter_start="onward", interpreter_hidden_dim=width) == []


def test_without_the_base() -> None:
    refused("use_base_lm=false: ", use_base_lm=False, use_reasoner=False)
    for mixing in sorted(set(MIXERS) - {"thought", "add"}):
        refused(f"mixing={mixing}: .*use_base_lm", use_base_lm=False, mixing=mixing)
    for mixing in ("auto", "thought", "add"):
        assert accepted(use_base_lm=False, mixing=mixing) == []
    assert accepted(use_base_lm=False, simple_lm_head=True) == []


def test_notes_say_what_is_settled() -> None:
    (note,) = accepted(use_base_lm=False, interpreter_start="onward")
    assert "by the reasoner's state, not by the symbols alone" in note
    (note,) = accepted(use_reasoner=False, controls="all")
    assert "controls" in note
    assert accepted(use_reasoner=False) == [], "the default was not typed"


@pytest.mark.parametrize("name", ABOVE)
def test_what_is_divided_by_is_above_zero(name: str) -> None:
    refused(f"{name}=0.0: is not above 0; give for example {name}=", **{name: 0.0})


def test_references() -> None:
    for reward in ("log_ratio", "kl_forward", "kl_reverse"):
        refused(f"reward={reward}: needs a reference", reward=reward)
    hidden = HiddenMarkov()
    for reward in ("log_ratio", "kl_forward", "kl_reverse"):
        assert accepted(reward=reward, reference="oracle", task=hidden) == []
    refused(
        "reward=kl_reverse: task=rev_prog holds some tokens impossible",
        reward="kl_reverse",
        reference="oracle",
    )
    assert accepted(reward="kl_forward", reference="oracle") == []
    assert accepted(reward="log_ratio", reference="no_thought") == []
    refused("reference=no_thought: reward=kl_forward", reward="kl_forward", reference="no_thought")
    silent = {"use_base_lm": False}
    refused("reference=no_thought: .*use_base_lm=true", reward="log_ratio", reference="no_thought", **silent)
    refused("baseline=null_thought: .*use_base_lm=true", baseline="null_thought", **silent)


def test_a_text_has_no_oracle(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be " * 100)
    task = CharText(path=str(text))
    refused("reference=oracle: task=char_text", reward="log_ratio", reference="oracle", task=task, seq_len=8)


def test_parts_of_a_batch_are_equal() -> None:
    refused("grad_acc=3: .*data_loader_batch_size=64", grad_acc=3, data_loader_batch_size=64)
    assert accepted(grad_acc=4, data_loader_batch_size=64) == []


def test_cuda_needs_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("device=cuda: .*device=cpu", device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert accepted(device="cuda") == []


def test_the_task_has_its_say(tmp_path: Path) -> None:
    refused("task.k=0: ", task=RevProg(k=0))
    short = tmp_path / "short.txt"
    short.write_text("ab" * 40)
    refused("seq_len=128", task=CharText(path=str(short)))
    assert accepted(task=CharText(path=str(short)), seq_len=4) == []


def test_one_gru_for_all_roles() -> None:
    assert accepted(**ONE_GRU, interpreter_start="onward", mixing="thought") == []


def test_a_run_without_any_loss_is_refused() -> None:
    refused("nll_loss_beta=0: .*nll_loss_beta=1", nll_loss_beta=0.0, use_reasoner=False)
    refused("nll_loss_beta=0: .*controls=none", nll_loss_beta=0.0, controls="fair")


def test_results_need_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for wrong in (file, file / "below"):
        refused(f"runs_dir={wrong}: .*is a file", runs_dir=str(wrong))
