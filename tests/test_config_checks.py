"""Refusals: each names the key, the value and the remedy."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from toyqs.config import RunConfig
from toyqs.config_checks import ABOVE_ZERO, AT_LEAST, CHOICES, MIXERS, check
from toyqs.refusal import Refusal
from toyqs.tasks.char_text import CharText
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.rev_prog import RevProg
from toyqs.traits import marker_symbol

FLOATS = [x.name for x in fields(RunConfig) if x.type == "float"]
ONE_GRU = {"weight_groups": ["A"] * 4, "base_lm_hidden_dim": 16, "reasoner_hidden_dim": 16}
NO_REASONER = {"use_reasoner": False, "controls": "none"}


def refused(said: str, **settings: Any) -> None:
    """Refused in one line that holds `said` and the remedy."""
    with pytest.raises(Refusal, match=said) as error:
        check(replace(RunConfig(), **settings))
    assert "\n" not in str(error.value)
    assert "; " in str(error.value)


def accepted(**settings: Any) -> list[str]:
    return check(replace(RunConfig(), **settings))


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
    assert numbers - set(AT_LEAST) == {
        "base_lr",
        "max_steps",
        "policy_loss_beta",
        "temperature",
        "clip_ratio",
        "hard_quantile",
        "sigma",
        "gumbel_temperature",
        "meta_token_scale",
        "sampler_temperature",
    }


@pytest.mark.parametrize("steps", [0, -2])
def test_steps(steps: int) -> None:
    refused(f"max_steps={steps}: ", max_steps=steps)
    assert accepted(max_steps=1) == []


def test_learning_rate_is_above_zero() -> None:
    refused("base_lr=0.0: ", base_lr=0.0)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 1e4])
def test_policy_weight_is_any_finite_number(beta: float) -> None:
    assert accepted(policy_loss_beta=beta) == []


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


def test_onward_needs_the_reasoners_width() -> None:
    refused("interpreter_start=onward: .*24 .*48", interpreter_start="onward", interpreter_hidden_dim=48)
    assert accepted(interpreter_start="onward") == []


def test_without_the_base() -> None:
    refused("use_base_lm=false: ", use_base_lm=False, use_reasoner=False)
    for mixing in sorted(set(MIXERS) - {"thought"}):
        refused(f"mixing={mixing}: .*use_base_lm", use_base_lm=False, mixing=mixing)
    for mixing in ("auto", "thought"):
        assert accepted(use_base_lm=False, mixing=mixing) == []


def test_notes_say_what_is_settled() -> None:
    (note,) = accepted(use_base_lm=False, interpreter_start="onward")
    assert "afresh" in note
    (note,) = accepted(use_base_lm=False, simple_lm_head=True)
    assert "simple_lm_head" in note
    (note,) = accepted(use_reasoner=False, controls="fair")
    assert "controls" in note


@pytest.mark.parametrize("mixing", ["concat", "gate", "thought"])
def test_simple_head_adds(mixing: str) -> None:
    refused(f"simple_lm_head=true: .*mixing={mixing}", simple_lm_head=True, mixing=mixing)
    assert accepted(simple_lm_head=True, mixing="add") == []
    assert accepted(simple_lm_head=True, mixing=mixing, **NO_REASONER) == []


@pytest.mark.parametrize("baseline", ["group_mean", "trice", "leave_one_out"])
def test_one_thought_is_no_group(baseline: str) -> None:
    alone = {"trice_samples": 1, "baseline": baseline}
    refused(f"trice_samples=1: baseline={baseline} .*none or ema", **alone)
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


def test_multi_sample_bounds_the_likelihood() -> None:
    refused("baseline=ema: objective=multi_sample", objective="multi_sample", baseline="ema")
    refused("reward=accuracy: objective=multi_sample", objective="multi_sample", reward="accuracy")
    assert accepted(objective="multi_sample") == []


def test_inner_steps_are_for_ppo() -> None:
    refused("inner_steps=2: only objective=ppo_clip", inner_steps=2)
    assert accepted(inner_steps=2, objective="ppo_clip") == []


@pytest.mark.parametrize("name", ABOVE_ZERO)
def test_what_is_divided_by_is_above_zero(name: str) -> None:
    refused(f"{name}=0.0: is not above 0; give for example {name}=", **{name: 0.0})


@pytest.mark.parametrize("kind", ["gumbel", "deterministic"])
def test_thoughts_without_a_density_have_a_path(kind: str) -> None:
    refused(f"thoughts={kind}: have no density for objective=reinforce .*give objective=path", thoughts=kind)
    for harmless in ({"max_reasoning_len": 0}, NO_REASONER):
        assert accepted(thoughts=kind, **harmless) == []
    refused("objective=pathwise: no gradient passes .*thoughts=gaussian", objective="pathwise")
    for continuous in ("gaussian", "gumbel", "state"):
        assert accepted(thoughts=continuous, objective="pathwise") == []
        assert accepted(thoughts=continuous, objective="pathwise", trice_samples=1) == []


def test_deterministic_thoughts_are_one_and_as_wide_as_their_reader() -> None:
    coconut = {"thoughts": "deterministic", "objective": "pathwise"}
    assert "trice_samples=1" in accepted(**coconut)[0]
    assert accepted(**coconut, trice_samples=1) == []
    refused("thoughts=deterministic: .*24 .*48", **coconut, interpreter_hidden_dim=48)


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


def test_tokens_ahead() -> None:
    assert accepted(n_tokens_ahead=2) == []
    refused("n_tokens_ahead=8: a sequence of task=rev_prog has only 7 tokens", n_tokens_ahead=8)
    for changes in ({"use_base_lm": False}, {"mixing": "thought"}):
        refused("n_tokens_ahead=2: .*ahead=continue", n_tokens_ahead=2, **changes)
        assert accepted(n_tokens_ahead=2, ahead="continue", **changes) == []
    refused(
        "teacher_forcing_weight=0.5: objective=multi_sample",
        n_tokens_ahead=2,
        teacher_forcing_weight=0.5,
        objective="multi_sample",
    )
    assert accepted(n_tokens_ahead=99, **NO_REASONER) == []


def test_markers_begin_as_a_symbol_that_is_there(tmp_path: Path) -> None:
    assert accepted(meta_token_init=5) == []
    for wrong in (6, -1):
        refused(f"meta_token_init={wrong}: .*give an id from 0 to 5", meta_token_init=wrong)
    refused("meta_token_init=a: .*thought_vocab=6 have no names", meta_token_init="a")
    refused("meta_token_init=0.5: takes", meta_token_init=0.5)
    refused("meta_token_init=True: takes", meta_token_init=True)
    text, dash = tmp_path / "text.txt", "\N{EM DASH}"
    for line, known, unknown in (("ab-", ("a", "-", dash), "x"), (f"ab{dash}", (dash, "b"), "-")):
        text.write_text(line * 100, encoding="utf-8")
        task = CharText(path=str(text))
        for name in known:
            settings = {"task": task, "seq_len": 8, "thought_vocab": None}
            assert accepted(meta_token_init=name, **settings) == []
            symbol = marker_symbol(replace(RunConfig(), meta_token_init=name, **settings))
            assert task.alphabet[symbol] == ("-" if name == dash and "-" in line else name)
        refused(f"meta_token_init={unknown}: is none of the 3", meta_token_init=unknown, **settings)


def test_a_gradient_scale_under_adam_is_remarked_on() -> None:
    (note,) = accepted(meta_token_mode="grad_scale")
    assert "Adam" in note and "lr_multiplier" in note
    assert accepted(meta_token_mode="lr_multiplier") == []
    assert accepted(meta_token_mode="grad_scale", **NO_REASONER) == []


def test_a_floor_is_a_weight() -> None:
    refused("gate_floor=1.5: .*give 0 to 1", gate_floor=1.5, mixing="gate")
    assert accepted(gate_floor=1.0, mixing="gate") == []


def test_nll_thoughts_are_among_the_thoughts() -> None:
    refused("train_nll_num=5: .*give 1 to 4", train_nll_num=5, trice_samples=4)
    assert accepted(train_nll_num=4, trice_samples=4) == []


def test_parts_of_a_batch_are_equal() -> None:
    refused("grad_acc=3: .*data_loader_batch_size=64", grad_acc=3, data_loader_batch_size=64)
    assert accepted(grad_acc=4, data_loader_batch_size=64) == []


def test_shared_head_speaks_the_tasks_tokens() -> None:
    task = RevProg(p=6, m=3)
    refused("share_lm_head=true: .*9 tokens.*thought_vocab=6", share_lm_head=True, thought_vocab=6, task=task)
    for vocab in (None, 9):
        assert accepted(share_lm_head=True, thought_vocab=vocab, task=task) == []


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
