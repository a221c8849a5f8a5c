"""thought_into=state as a setting: what is refused, its controls, its parts and its cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.config.checks.checking import accepted, refused
from tests.controls.arms import run, step_gradients
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import objective_of
from toyqs.config.checks.values import check
from toyqs.config.controls import matched_controls, unmatched_controls
from toyqs.config.identity import canonical
from toyqs.config.inactive import inactive_keys
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.chains.chain_reasoner import ChainReasoner
from toyqs.objectives.policy.reinforce import Reinforce, ReinforceInChains
from toyqs.tasks.depo import Depo
from toyqs.tasks.group import Group
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.mano import Mano

STATE = {"thought_into": "state"}
REFUSED: dict[str, dict[str, Any]] = {
    "only the thought is predicted from": {"use_base_lm": False},
    "only the thought is predicted from; ": {"mixing": "thought"},
    "n_tokens_ahead=2": {"n_tokens_ahead": 2},
    "think_at=hard": {"think_at": "hard"},
    "objective=listwise": {"objective": "listwise"},
    "sampler=tempered": {"sampler": "tempered", "policy_loss_beta": 0.0},
    "baseline=value": {"baseline": "value"},
    "baseline=ema is of one prediction": {"baseline": "ema"},
    "learned_reward=true": {"learned_reward": True},
    "credit=prefix, ": {"credit": "prefix"},
    "prefix_nll_beta": {"prefix_nll_beta": 0.5},
    "reward=trajectory": {"reward": "trajectory"},
    "shuffle_rewards=true": {"shuffle_rewards": True},
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_knows_no_chains_is_refused(said: str) -> None:
    refused(f"thought_into=state: .*{said}.*thought_into=prediction", **STATE, **REFUSED[said])


@pytest.mark.parametrize("task", [Iterate(), Mano(), Group(asked="end")])
def test_a_reading_that_nothing_that_counts_comes_after_is_refused(task: Any) -> None:
    refused(f"thought_into=state: task={task.name} counts no position after", **STATE, task=task)
    assert accepted(task=task) == []


@pytest.mark.parametrize("task", [Depo(), Group(), Iterate()])
def test_a_reading_that_a_later_position_can_make_use_of_is_accepted(task: Any) -> None:
    everywhere = {"think_at": "all"} if task.name == "iterate" else {}
    assert accepted(**STATE, task=task, **everywhere) == []


def test_what_goes_together_is_accepted() -> None:
    for more in (
        {"mixing": "base"},
        {"mixing": "thought", "weight_groups": list("AABC"), "base_lm_hidden_dim": 24},
        {"think_at": "all", "variable_len": True, "length_penalty": 0.1},
        {"thoughts": "gumbel", "objective": "pathwise"},
        {"interpreter_start": "onward", "base_nll_beta": 1.0},
        {"controls": "all", "grad_acc": 2},
        {"reward": "log_ratio", "reference": "no_thought"},
    ):
        assert accepted(**STATE, **more) == []


def test_positions_cannot_be_taken_apart() -> None:
    refused("chunk_positions=2: thought_into=state hands", **STATE, chunk_positions=2)
    large = {"trice_samples": 64, "max_reasoning_len": 64, "data_loader_batch_size": 512, "kernels": "torch"}
    free = {"advantage_scale": "none"}
    assert resolved(replace(RunConfig(), **large, **free)).chunk_positions > 0
    assert resolved(replace(RunConfig(), **large, **free, **STATE)).chunk_positions == 0


def test_a_thought_that_nothing_reads_is_refused() -> None:
    refused("mixing=base: .*thought_into=state", mixing="base")


def test_controls_hand_on_what_they_have() -> None:
    """All but those without thoughts. Rewards are not exchanged: later positions' depend on a thought."""
    config = resolved(replace(RunConfig(), **STATE, controls="all", max_steps=3, dtype="float64"))
    controls = unmatched_controls(config) | matched_controls(config, count_cost, lambda c: 1)
    kept = {name: canonical(control).thought_into for name, control in controls.items()}
    plain = {"no_reasoner", "compute_matched", "param_matched"}
    assert {name for name, into in kept.items() if into == "prediction"} == plain
    assert "reward_shuffled" not in kept and "policy_reversed" in kept
    for control in controls.values():
        check(replace(control, controls="none"))
    built = {name: build_model(resolved(control), [0]) for name, control in controls.items()}
    assert {name for name, model in built.items() if not isinstance(model, ChainReasoner)} == plain


def test_what_is_handed_on_starts_no_larger_than_a_transformers_small_embeddings() -> None:
    pytest.importorskip("transformers")
    for backbone, least, most in (("gru", 0.1, 1.0), ("llama", 0.001, 0.02)):
        config = resolved(replace(RunConfig(), **STATE, backbone=backbone, model_hidden_dim=16))
        carried = build_model(config, [0]).carry(torch.ones(1, 1, 16)).detach().std()
        assert least < float(carried) < most


@pytest.mark.parametrize("groups", ["AABC", "ABCD"])
@pytest.mark.parametrize("name", ["state_handed_on", "pause", "zero_length", "deterministic", "random"])
def test_a_control_learns_what_it_hands_on(name: str, groups: str) -> None:
    changes = {"weight_groups": groups, "mixing": "base", **STATE}
    control = resolved(canonical(unmatched_controls(run(**changes))[name]))
    assert float(step_gradients(control)["carry.weight"].abs().max()) > 1e-9


def test_only_thoughts_that_are_paid_for_what_follows_are_summed() -> None:
    config = resolved(RunConfig())
    assert type(objective_of(config)) is Reinforce
    assert type(objective_of(replace(config, **STATE))) is ReinforceInChains
    path = replace(config, **STATE, thoughts="gumbel", objective="pathwise")
    assert objective_of(path).name == "pathwise"


def test_base_lm_reads_once_for_each_chain() -> None:
    """Count state updates per token of seven, four of which think, beside those of today's thoughts."""
    config = resolved(replace(RunConfig(), max_steps=3, kernels="torch"))
    handing = resolved(replace(config, **STATE))
    steps = {x.thought_into: count_cost(x).recurrent_steps_per_token for x in (config, handing)}
    assert 7 * (steps["state"] - steps["prediction"]) == pytest.approx(7 * (config.trice_samples - 1))


def test_without_thoughts_it_does_not_matter() -> None:
    assert "thought_into" in inactive_keys(replace(RunConfig(), **STATE, use_reasoner=False))
    assert "thought_into" not in inactive_keys(replace(RunConfig(), **STATE, max_reasoning_len=0))
