"""Controls as settings: what each changes, and that matched ones match."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model, count_parameters
from toyqs.config.checks.values import check
from toyqs.config.controls import matched_controls, matched_width, unmatched_controls
from toyqs.config.identity import canonical, run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.objectives.rewards import OWN_LOSS, REWARDS
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate

POSITIONS = "cores.A.backbone.decoder.weights.wpe.weight"  # the table of positions of a GPT-2
BEFORE = ["no_reasoner", "zero_length", "state_handed_on", "pause"]  # policy_off


def thinking(**changes: object) -> RunConfig:
    return resolved(replace(RunConfig(), max_steps=10, **changes))


def changed(config: RunConfig, control: RunConfig) -> dict[str, object]:
    pairs = ((x.name, getattr(config, x.name), getattr(control, x.name)) for x in fields(config))
    return {name: new for name, old, new in pairs if old != new}


def test_each_control_changes_what_its_name_says():
    config = thinking()
    controls = unmatched_controls(config) | matched_controls(config, count_cost, count_parameters)
    assert list(controls) == [*BEFORE, "policy_off", "compute_matched", "param_matched"]
    changes = {name: changed(config, control) for name, control in controls.items()}
    assert changes["no_reasoner"] == {"use_reasoner": False}
    assert changes["zero_length"] == {"max_reasoning_len": 0}
    assert changes["state_handed_on"] == {"max_reasoning_len": 0, "interpreter_start": "onward"}
    assert changes["pause"] == {
        **{"thought_vocab": 1, "interpreter_start": "onward", "trice_samples": 1, "train_nll_num": 1},
        **{"policy_loss_beta": 0.0, "entropy_encouragement_coef": 0.0},
    }
    assert changes["policy_off"] == {"policy_loss_beta": 0.0}
    assert set(changes["compute_matched"]) == {"use_reasoner", "max_steps"}
    assert set(changes["param_matched"]) == {"use_reasoner", "base_lm_hidden_dim"}
    assert len({run_key(control, 0) for control in [config, *controls.values()]}) == 8


@pytest.mark.parametrize("kind", ["gaussian", "gumbel", "deterministic", "state"])
def test_along_a_path_there_is_no_policy_to_turn_off(kind):
    config = thinking(thoughts=kind, objective="pathwise")
    assert list(unmatched_controls(config)) == BEFORE
    off = replace(config, policy_loss_beta=0.0)
    assert run_key(off, 0) == run_key(config, 0)


def test_zero_length_is_one_run_for_every_kind_of_thought():
    controls = [
        unmatched_controls(thinking(thoughts=kind, objective=objective))["zero_length"]
        for kind, objective in (
            ("token", "vargrad"),
            ("gaussian", "reinforce"),
            ("deterministic", "pathwise"),
        )
    ]
    assert len({run_key(control, 0) for control in controls}) == 1
    assert len({count_cost(control) for control in controls}) == 1


KINDS: list[dict[str, object]] = [
    {"objective": "multi_sample"},
    {"thoughts": "gaussian", "objective": "pathwise", "prior_beta": 0.1},
    {"thoughts": "deterministic", "objective": "pathwise"},
    {"reward": "kl_forward", "reference": "oracle", "task": HiddenMarkov()},
    {"thought_vocab": None, "share_lm_head": True, "meta_token_init": 1},
    {"variable_len": True, "length_penalty": 0.1, "punish_unfinished": 0.1},
    {"objective": "ppo_clip", "inner_steps": 2, "policy_loss_beta": 0.0},
    {"thought_kl_beta": 0.1, "reference": "initial", "learned_reward": True},
    {"random_thoughts": True, "sampler": "tempered"},
]


@pytest.mark.parametrize("changes", KINDS)
@pytest.mark.parametrize("name", ["pause", "constant", "deterministic"])
def test_what_is_not_sampled_is_one_run_for_every_kind_of_thought(name, changes):
    kept = {x: changes[x] for x in ("task", "reward", "reference") if "task" in changes}
    plain = unmatched_controls(thinking(controls="all", **kept))[name]
    control = unmatched_controls(thinking(controls="all", **changes))[name]
    check(control)
    assert run_key(control, 0) == run_key(plain, 0)


@pytest.mark.parametrize("reward", REWARDS)
def test_every_control_with_thoughts_keeps_the_predictors_own_loss(reward):
    config = thinking(reward=reward, reference="oracle", task=HiddenMarkov(), controls="all")
    losses = {name: canonical(control).reward for name, control in unmatched_controls(config).items()}
    rewarded = (
        "random",
        "reward_shuffled",
        "policy_reversed",
    )  # whose policy loss, if any, reads the reward too
    own = reward if reward in OWN_LOSS else "likelihood"
    assert {name: loss for name, loss in losses.items() if name not in rewarded} == dict.fromkeys(
        [*BEFORE, "policy_off", "deterministic", "constant"], own
    )


def test_only_a_constant_thought_does_not_tell_by_its_length_what_the_task_says():
    config = thinking(adaptive_len=True, task=Iterate(), controls="all")
    lengths = {name: canonical(control).lengths_vary for name, control in unmatched_controls(config).items()}
    silent = {"no_reasoner", "zero_length", "state_handed_on", "constant"}
    assert {name for name, vary in lengths.items() if not vary} == silent
    constant = unmatched_controls(config)["constant"]
    assert constant.max_reasoning_len == config.max_reasoning_len


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"base_lm_hidden_dim": 64},
        {"base_lm_hidden_dim": 64, "trice_samples": 2, "train_nll_num": 1, "max_reasoning_len": 1},
        {"base_lm_hidden_dim": 2, "reasoner_hidden_dim": 40},
    ],
)
def test_compute_matched_spends_the_compute_of_thinking(changes):
    config = thinking(**changes)
    matched = matched_controls(config, count_cost, count_parameters)["compute_matched"]
    spent, given = (count_cost(x).flops_per_step * x.max_steps for x in (config, matched))
    assert given == pytest.approx(spent, rel=0.05)
    assert matched.max_steps > config.max_steps


@pytest.mark.parametrize("reasoner", [40, 64, 100])
def test_param_matched_is_within_two_percent(reasoner):
    config = thinking(reasoner_hidden_dim=reasoner, interpreter_hidden_dim=reasoner)
    matched = matched_controls(config, count_cost, count_parameters)["param_matched"]
    assert matched.base_lm_hidden_dim >= 50
    assert count_parameters(matched) == pytest.approx(count_parameters(config), rel=0.02)


@pytest.mark.parametrize("target", [0, 1, 60, 61, 999, 1000, 10**6])
def test_matched_width_is_the_nearest(target):
    def parameters(config: RunConfig) -> int:
        return 6 * config.base_lm_hidden_dim**2

    width = matched_width(thinking(), target, parameters)
    best = min(range(1, 1000), key=lambda w: abs(6 * w * w - target))
    assert width == best


@pytest.mark.parametrize(("backbone", "unit"), [("gpt2", 4), ("llama", 8)])
def test_matched_width_is_one_that_the_heads_divide(backbone, unit):
    plain = thinking(backbone=backbone, model_n_head=4)
    for target in (0, 999, 10**6):
        width = matched_width(plain, target, lambda config: 6 * config.base_lm_hidden_dim**2)
        assert width == min(range(unit, 1000, unit), key=lambda w: abs(6 * w * w - target))


def test_without_a_base_the_plain_controls_have_one():
    config = thinking(use_base_lm=False)
    controls = unmatched_controls(config) | matched_controls(config, count_cost, count_parameters)
    plain = [controls[name] for name in ("no_reasoner", "compute_matched", "param_matched")]
    assert all(control.use_base_lm for control in plain)
    assert not controls["zero_length"].use_base_lm


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({}, {}),
        ({"backbone": "llama", "base_lm_hidden_dim": 8}, {}),
        ({"backbone": "gpt2"}, {name: {POSITIONS} for name in (*BEFORE[:3], "compute_matched")}),
        ({"backbone": "gpt2", "positions_up_to": 40}, {}),
    ],
)
def test_arms_start_their_base_lm_from_the_same_weights_but_for_a_table_of_another_size(changes, others):
    """As docs/results.md says; the base LM of param_matched has another width."""
    config = thinking(controls="all", model_n_layer=1, **changes)
    known = unmatched_controls(config) | matched_controls(config, count_cost, count_parameters)
    (start, *rest) = (base_lm(config), *((name, base_lm(arm)) for name, arm in known.items()))
    differing = {
        name: {key for key, weight in weights.items() if not torch.equal(weight, start[key])}
        for name, weights in rest
        if name != "param_matched"
    }
    assert {name: keys for name, keys in differing.items() if keys} == others
    assert len(differing) == 11 and all(weights.keys() == start.keys() for _, weights in rest)


def base_lm(config: RunConfig) -> dict[str, torch.Tensor]:
    weights = build_model(canonical(config), [0]).named_parameters()
    return {name: weight.detach() for name, weight in weights if name.startswith("cores.A.")}
