"""Settings that cannot change a run, because of its others, leave its name alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.keys import OTHER, same
from toyqs.assets import pretrained
from toyqs.config import finished_run
from toyqs.tasks.rev_prog import RevProg


@pytest.fixture(autouse=True)
def _content_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretrained model and a finished run need not be there."""
    monkeypatch.setattr(pretrained, "identity", lambda name: f"content of {name}")
    monkeypatch.setattr(finished_run, "identity", lambda folder, *_: f"content of {folder}")


GUMBEL = {"thoughts": "gumbel", "objective": "pathwise"}
COCONUT = {"thoughts": "deterministic", "objective": "pathwise"}
WITHOUT = {"use_reasoner": False}
ZERO = {"max_reasoning_len": 0}


# Settings of thoughts, of their objective, of transformers, and of optimisers other than the default.
OF_THOUGHTS = {
    "objective",
    "reward_beta",
    "trajectory_alpha",
    "credit",
    "prefix_nll_beta",
    "reference",
    "model_n_layer",
    "model_n_head",
    "model_n_kv_head",
    "positions_up_to",
    "autocast",
    "branch_attention",
    "qk_clip",
    "adjust_lr_fn",
    "grokfast_alpha",
    "temperature",
    "temperature_scale",
    "clip_ratio",
    "clip_each",
    "inner_steps",
    "value_sees",
    "critic_loss_beta",
    "gate_floor",
    "attend_by",
    "attend_temperature",
    "coherence_beta",
    "coherence_semantic",
    "coherence_syntactic",
    "coherence_predictive",
    "meta_token_init",
    "meta_token_mode",
    "meta_token_scale",
    "use_residual",
    "different_eot",
    "add_last_context_token",
    "increment_pos_id_for_last_context_token",
    "n_tokens_ahead",
    "ahead",
    "ahead_decay",
    "teacher_forcing_weight",
    "hard_quantile",
    "length_schedule",
    "min_reasoning_len",
    "thoughts",
    "latent_dim",
    "sigma",
    "gumbel_temperature",
    "prior_beta",
    "reference_decay",
    "reference_run",
    "thought_kl_beta",
    "sampler",
    "sampler_temperature",
    "random_thoughts",
    "shuffle_rewards",
    "learned_reward",
    "warm_start_as",
    "hide_last_token",
    "interpreter_reads",
    "markov_reasoner",
    "thought_logits",
    "thought_logit_scale",
    "reward_sees",
    "variable_len",
    "adaptive_len",
    "adaptive_by",
    "problem_per_symbol",
    "length_penalty",
    "punish_unfinished",
    "schedule_punfinished",
    "chunk_positions",
}
IDLE_WITHOUT_REASONER = [
    *("reasoner_hidden_dim", "interpreter_hidden_dim", "weight_groups", "simple_lm_head", "mixing"),
    *("reasoner_lr", "interpreter_lr", "infer_pretrained_reasoner"),
    *(
        "share_lm_head",
        "interpreter_start",
        "thought_into",
        "thought_vocab",
        "think_at",
        "trice_samples",
        "max_reasoning_len",
    ),
    *("reward", "baseline", "advantage_scale", "policy_loss_beta", "entropy_encouragement_coef"),
    *("entropy_schedule", "train_nll_num", "base_nll_beta", *sorted(OF_THOUGHTS)),
]


# Start and end are heard where no symbol is between them, and so may be the token after them.
OF_EMPTY_THOUGHTS = {"different_eot", "add_last_context_token"}
IDLE_AT_ZERO_LENGTH = [
    *("trice_samples", "baseline", "reward", "advantage_scale", "policy_loss_beta", "train_nll_num"),
    *("entropy_encouragement_coef", "entropy_schedule", "thought_vocab", "share_lm_head", "reasoner_lr"),
    *sorted(OF_THOUGHTS - {"n_tokens_ahead", "meta_token_mode", "use_residual"} - OF_EMPTY_THOUGHTS),
]


@pytest.mark.parametrize("name", IDLE_WITHOUT_REASONER)
def test_idle_without_a_reasoner(name: str) -> None:
    assert same(WITHOUT, WITHOUT | {name: OTHER[name]})


@pytest.mark.parametrize("name", sorted(set(OTHER) - set(IDLE_WITHOUT_REASONER)))
def test_not_idle_without_a_reasoner(name: str) -> None:
    if name in ("epochs", "seq_len", "use_base_lm", "use_reasoner", "debug_cfg"):
        return  # idle for other reasons, refused, or the reasoner's alone
    assert not same(WITHOUT, WITHOUT | {name: OTHER[name]})


@pytest.mark.parametrize("name", sorted(set(OTHER) - {"epochs", "seq_len", "max_reasoning_len"}))
def test_idle_at_zero_length(name: str) -> None:
    assert same(ZERO, ZERO | {name: OTHER[name]}) == (name in IDLE_AT_ZERO_LENGTH)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ({"policy_loss_beta": 0.0}, "baseline"),
        ({"policy_loss_beta": 0.0}, "advantage_scale"),
        ({"policy_loss_beta": 0.0}, "reward"),
        ({"policy_loss_beta": 0.0}, "objective"),
        ({"policy_loss_beta": 0.0}, "credit"),
        ({"objective": "maxent"}, "credit"),
        ({"objective": "multi_sample"}, "credit"),
        ({"random_thoughts": True}, "credit"),
        ({}, "trajectory_alpha"),
        ({"policy_loss_beta": 0.0, "reward": "trajectory"}, "trajectory_alpha"),
        ({"objective": "maxent"}, "baseline"),
        ({"objective": "maxent"}, "advantage_scale"),
        ({"objective": "multi_sample"}, "advantage_scale"),
        ({"objective": "plackett_luce"}, "temperature"),
        ({}, "clip_each"),
        ({"entropy_encouragement_coef": 0.0}, "entropy_schedule"),
        ({"use_scheduler": False}, "schedule"),
        ({"max_steps": 100}, "epochs"),
        ({"variable_len": True}, "schedule_punfinished"),
        ({"variable_len": True, "policy_loss_beta": 0.0}, "length_penalty"),
        ({"variable_len": True, "policy_loss_beta": 0.0}, "punish_unfinished"),
        ({"task": RevProg()}, "seq_len"),
        ({"thoughts": "gaussian"}, "thought_vocab"),
        ({"thoughts": "gaussian"}, "gumbel_temperature"),
        ({"thoughts": "state"}, "latent_dim"),
        (GUMBEL, "sigma"),
        (GUMBEL, "prior_beta"),
        (GUMBEL, "policy_loss_beta"),
        (GUMBEL, "shuffle_rewards"),
        ({"policy_loss_beta": 0.0}, "shuffle_rewards"),
        ({"thoughts": "state", "random_thoughts": True}, "sigma"),
        (GUMBEL | {"random_thoughts": True}, "gumbel_temperature"),
        ({"random_thoughts": True}, "share_lm_head"),
        ({"random_thoughts": True}, "policy_loss_beta"),
        ({"random_thoughts": True}, "entropy_encouragement_coef"),
        ({"random_thoughts": True}, "sampler"),
        ({"random_thoughts": True, "thoughts": "gaussian"}, "prior_beta"),
        (GUMBEL, "baseline"),
        (GUMBEL, "reward"),
        (COCONUT, "thought_vocab"),
        (COCONUT, "trice_samples"),
        (COCONUT, "train_nll_num"),
        (COCONUT, "entropy_encouragement_coef"),
        (COCONUT, "entropy_schedule"),
        ({"use_base_lm": False}, "base_lm_hidden_dim"),
        ({"use_base_lm": False}, "base_lm_lr"),
        ({"use_base_lm": False}, "infer_pretrained_base"),
    ],
)
def test_idle_beside_another_setting(base: dict[str, Any], name: str) -> None:
    assert same(base, base | {name: OTHER[name]})


def test_a_rate_that_is_the_others_is_no_rate_of_its_own() -> None:
    assert same({}, {"base_lm_lr": 0.02, "reasoner_lr": 0.02, "interpreter_lr": 0.02})
    assert not same({"base_lr": 0.01}, {"base_lr": 0.01, "reasoner_lr": 0.02})
    onward = ZERO | {"interpreter_start": "onward"}
    assert not same(onward, onward | {"reasoner_lr": 0.01}), "it reads on from base_reasoner's state"


def test_adam_is_adamw_where_nothing_decays() -> None:
    assert same({}, {"optimizer": "adam"}) and not same({}, {"optimizer": "sgd"})
    decays = {"weight_decay": 0.1}
    assert not same(decays, decays | {"optimizer": "adam"})


def test_muon_has_one_name_for_each_thing_that_it_does() -> None:
    filtered = {"optimizer": "muon_grokfast"}
    assert same(filtered, {"optimizer": "muon", "grokfast_lambda": 0.1})
    assert same(filtered, filtered | {"grokfast_lambda": 0.1})
    assert same({"optimizer": "muon"}, filtered | {"grokfast_lambda": 0.0})
    assert not same(filtered, {"optimizer": "muon"}) and not same({}, {"optimizer": "muon"})
    assert not same(filtered, filtered | {"grokfast_lambda": 0.2})
    assert same({}, {"grokfast_lambda": 0.0}) and not same({}, {"grokfast_lambda": 0.1})


KL = {"reward": "kl_forward", "reference": "oracle"}


@pytest.mark.parametrize("beside", [WITHOUT, ZERO, {"policy_loss_beta": 0.0}])
def test_what_the_predictor_learns_from_matters_without_a_policy(beside: dict[str, Any]) -> None:
    assert not same(beside, beside | KL)
    assert same(beside | KL, beside | KL | {"baseline": "ema"})


def test_a_bound_and_inner_steps_matter_with_the_policy_off() -> None:
    off = {"policy_loss_beta": 0.0}
    assert not same(off, off | {"objective": "multi_sample"})
    assert same(off, off | {"objective": "ppo_clip"})
    assert not same(off, off | {"objective": "ppo_clip", "inner_steps": 2})


@pytest.mark.parametrize("policy", [1.0, 0.0])
def test_a_path_matters_whatever_the_weight_of_a_policy(policy: float) -> None:
    gaussian = {"thoughts": "gaussian", "policy_loss_beta": policy}
    assert not same(gaussian, gaussian | {"objective": "pathwise"})
    path = GUMBEL | {"policy_loss_beta": policy}
    assert not same(path, path | {"thoughts": "state"})
    assert not same(path, path | KL)


def test_a_reference_matters_where_something_is_compared_with_it() -> None:
    near, average = {"thought_kl_beta": 0.1, "reference": "initial"}, {"reference": "ema"}
    assert not same(near, near | average)
    assert not same(near | average, near | average | {"reference_decay": 0.5})
    assert same(near, near | {"reference_decay": 0.5})
    held = {"prediction_kl_beta": 0.1, "reference": "initial"}
    for beside in ({}, {"policy_loss_beta": 0.0}, ZERO, WITHOUT):
        assert not same(beside | held, beside | held | average)
        assert same(beside | held, beside | held | {"reference_decay": 0.5})
    assert same(WITHOUT, WITHOUT | held | {"reference": "no_thought"}), "its own prediction"
    assert not same(ZERO, ZERO | held | {"reference": "no_thought"})
    for beside in ({}, {"policy_loss_beta": 0.0} | near, ZERO | near, WITHOUT | near):
        assert same(beside, beside | average)


JOINT = {"n_tokens_ahead": 2, "ahead": "joint"}


def test_tokens_predicted_together_are_those_of_a_plain_model_too() -> None:
    assert not same(WITHOUT, WITHOUT | JOINT) and not same(
        WITHOUT | JOINT, WITHOUT | JOINT | {"n_tokens_ahead": 3}
    )
    assert not same(WITHOUT | JOINT, WITHOUT | JOINT | {"ahead_decay": 0.5})
    assert same(WITHOUT, WITHOUT | {"n_tokens_ahead": 2, "ahead": "continue"})
    assert same(WITHOUT, WITHOUT | {"ahead": "joint"}) and same({}, {"ahead": "joint"})
    assert not same({"n_tokens_ahead": 2}, JOINT) and not same(ZERO, ZERO | JOINT)
