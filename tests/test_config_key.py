"""Identity: equal keys for equal results, other keys for other ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.run_folders import written
from toyqs import config_key, finished, pretrained
from toyqs.config import RunConfig
from toyqs.config_key import ADDED, OUTSIDE_KEY, run_key, settings
from toyqs.tasks.rev_prog import RevProg

BASE = replace(RunConfig(), max_steps=100)
# Another value of every key, on top of settings in which each of them matters.
OTHER: dict[str, Any] = {
    "backbone": "gpt2",
    "pretrained": str(Path(__file__).parent / "checkpoint"),  # a config.json alone
    "lora_rank": 4,
    "model_n_layer": 3,
    "model_n_head": 4,
    "model_n_kv_head": 1,
    "autocast": True,
    "base_lm_hidden_dim": 9,
    "reasoner_hidden_dim": 33,
    "interpreter_hidden_dim": 31,
    "model_hidden_dim": 16,
    "use_reasoner": False,
    "use_base_lm": False,
    "weight_groups": ["A", "B", "B", "C"],
    "simple_lm_head": True,
    "mixing": "gate",
    "linear_lm_head": False,
    "share_lm_head": True,
    "interpreter_start": "onward",
    "use_residual": True,
    "different_eot": False,
    "add_last_context_token": True,
    "increment_pos_id_for_last_context_token": True,
    "thought_vocab": 7,
    "think_at": "all",
    "trice_samples": 5,
    "max_reasoning_len": 2,
    "hard_quantile": 0.5,
    "length_schedule": "long_to_short",
    "min_reasoning_len": 2,
    "thoughts": "gaussian",
    "latent_dim": 3,
    "sigma": 0.2,
    "gumbel_temperature": 0.5,
    "prior_beta": 0.1,
    "variable_len": True,
    "adaptive_len": True,
    "length_penalty": 0.01,
    "punish_unfinished": 0.1,
    "schedule_punfinished": True,
    "objective": "listwise",
    "reward": "accuracy",
    "reward_beta": 0.5,
    "reference": "oracle",
    "reference_decay": 0.9,
    "reference_run": "some/run",
    "thought_kl_beta": 0.1,
    "sampler": "uniform",
    "sampler_temperature": 3.0,
    "learned_reward": True,
    "reward_sees": "prediction",
    "temperature": 0.7,
    "temperature_scale": "spread",
    "clip_ratio": 0.1,
    "inner_steps": 2,
    "value_sees": "context",
    "critic_loss_beta": 2.0,
    "gate_floor": 0.3,
    "meta_token_init": 1,
    "meta_token_mode": "lr_multiplier",
    "meta_token_scale": 3.0,
    "n_tokens_ahead": 2,
    "ahead": "continue",
    "ahead_decay": 0.9,
    "teacher_forcing_weight": 0.5,
    "baseline": "ema",
    "advantage_scale": "none",
    "policy_loss_beta": -1.0,
    "nll_loss_beta": 0.5,
    "entropy_encouragement_coef": 0.3,
    "entropy_schedule": "constant",
    "train_nll_num": 1,
    "base_lr": 0.5,
    "use_scheduler": False,
    "schedule": "linear",
    "clip_gradients": 0.0,
    "max_steps": 101,
    "epochs": 51,
    "data_loader_batch_size": 32,
    "grad_acc": 2,
    "seq_len": 127,
    "debug_cfg": "seperateInterpreter",
    "device": "cuda",
    "dtype": "float64",
    "eval_every": 7,
    "eval_sequences": 17,
    "task": RevProg(k=2),
}


@pytest.fixture(autouse=True)
def _content_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretrained model need not be there."""
    monkeypatch.setattr(pretrained, "identity", lambda name: f"content of {name}")


def key(**changed: Any) -> str:
    return run_key(replace(BASE, **changed), 7)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return key(**first) == key(**second)


@dataclass
class Text:
    """A task whose length follows seq_len and which is hashed by content."""

    name: ClassVar[str] = "text"
    path: str = "a.txt"
    content: ClassVar[str] = "abc"

    def length(self, seq_len: int) -> int:
        return seq_len

    def identity(self) -> dict[str, str]:
        return {"content": self.content}


def test_every_key_has_another_value_here() -> None:
    assert set(OTHER) | {*OUTSIDE_KEY, "info", "seed"} == {x.name for x in fields(RunConfig)}


# What makes a key matter that else would not.
BESIDE: dict[str, dict[str, Any]] = {
    **{
        name: {"backbone": "llama"}
        for name in ("model_n_layer", "model_n_head", "model_n_kv_head", "autocast")
    },
    "increment_pos_id_for_last_context_token": {"backbone": "llama", "add_last_context_token": True},
    "epochs": {"max_steps": -1},
    "seq_len": {"task": Text()},
    "reward_beta": {"reward": "kl_reverse"},
    "reference": {"reward": "log_ratio"},
    "sampler_temperature": {"sampler": "tempered", "objective": "listwise"},
    "reference_decay": {"reward": "log_ratio", "reference": "ema"},
    "reference_run": {"reward": "log_ratio", "reference": "checkpoint"},
    "temperature": {"objective": "vargrad"},
    "temperature_scale": {"objective": "maxent"},
    "clip_ratio": {"objective": "ppo_clip"},
    "inner_steps": {"objective": "ppo_clip"},
    "reward_sees": {"learned_reward": True},
    "value_sees": {"baseline": "value"},
    "critic_loss_beta": {"baseline": "value"},
    "gate_floor": {"mixing": "hidden"},
    "meta_token_scale": {"meta_token_mode": "reparameterise"},
    **{name: {"n_tokens_ahead": 2} for name in ("ahead", "ahead_decay", "teacher_forcing_weight")},
    "hard_quantile": {"think_at": "hard"},
    "min_reasoning_len": {"length_schedule": "short_to_long"},
    "latent_dim": {"thoughts": "gaussian"},
    "sigma": {"thoughts": "state"},
    "prior_beta": {"thoughts": "gaussian"},
    "gumbel_temperature": {"thoughts": "gumbel", "objective": "pathwise"},
    **{name: {"variable_len": True} for name in ("length_penalty", "punish_unfinished")},
    "schedule_punfinished": {"variable_len": True, "punish_unfinished": 0.2},
}


@pytest.mark.parametrize("name", OTHER)
def test_what_matters_changes_the_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "identity", lambda folder: f"content of {folder}")
    base = BESIDE.get(name, {})
    assert not same(base, base | {name: OTHER[name]})


@pytest.mark.parametrize("name", ADDED)
def test_a_setting_added_later_leaves_old_names_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert getattr(RunConfig(), name) == ADDED[name], "a default changes only with RESULTS_VERSION"
    before = key()
    monkeypatch.setattr(
        config_key, "settings", lambda *a: {k: v for k, v in settings(*a).items() if k != name}
    )
    assert key() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("info", "label"),
        ("force", True),
        ("controls", "none"),
        ("wandb_mode", "offline"),
        ("runs_dir", "elsewhere"),
        ("processes", 1),
        ("seed", [8, 9]),
    ],
)
def test_what_cannot_matter_leaves_the_key(name: str, value: Any) -> None:
    assert key(**{name: value}) == key()


def test_seeds_differ() -> None:
    assert len({run_key(BASE, seed) for seed in range(20)}) == 20


def test_key_is_sixteen_hex_digits_and_the_version_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    assert re.fullmatch("[0-9a-f]{16}", before)
    monkeypatch.setattr(config_key, "RESULTS_VERSION", config_key.RESULTS_VERSION + 1)
    assert key() != before


GUMBEL = {"thoughts": "gumbel", "objective": "pathwise"}
COCONUT = {"thoughts": "deterministic", "objective": "pathwise"}
WITHOUT = {"use_reasoner": False}
ZERO = {"max_reasoning_len": 0}
OF_ALL = {"backbone", "pretrained", "lora_rank"}  # whether a model thinks or not
IDLE_WITHOUT_REASONER = [
    *("reasoner_hidden_dim", "interpreter_hidden_dim", "weight_groups", "simple_lm_head", "mixing"),
    *(
        "share_lm_head",
        "interpreter_start",
        "thought_vocab",
        "think_at",
        "trice_samples",
        "max_reasoning_len",
    ),
    *("reward", "baseline", "advantage_scale", "policy_loss_beta", "entropy_encouragement_coef"),
    *("entropy_schedule", "train_nll_num", *sorted(set(ADDED) - OF_ALL)),
]
# Start and end are heard where no symbol is between them, and so may be the token after them.
OF_EMPTY_THOUGHTS = {"different_eot", "add_last_context_token"}
IDLE_AT_ZERO_LENGTH = [
    *("trice_samples", "baseline", "reward", "advantage_scale", "policy_loss_beta", "train_nll_num"),
    *("entropy_encouragement_coef", "entropy_schedule", "thought_vocab", "share_lm_head"),
    *sorted(set(ADDED) - {"n_tokens_ahead", "meta_token_mode", "use_residual", *OF_ALL} - OF_EMPTY_THOUGHTS),
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
        ({"objective": "maxent"}, "baseline"),
        ({"objective": "maxent"}, "advantage_scale"),
        ({"objective": "multi_sample"}, "advantage_scale"),
        ({"objective": "plackett_luce"}, "temperature"),
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
        (GUMBEL, "baseline"),
        (GUMBEL, "reward"),
        (COCONUT, "thought_vocab"),
        (COCONUT, "trice_samples"),
        (COCONUT, "train_nll_num"),
        (COCONUT, "entropy_encouragement_coef"),
        (COCONUT, "entropy_schedule"),
        ({"use_base_lm": False}, "base_lm_hidden_dim"),
        ({"use_base_lm": False}, "interpreter_start"),
    ],
)
def test_idle_beside_another_setting(base: dict[str, Any], name: str) -> None:
    assert same(base, base | {name: OTHER[name]})


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
    for beside in ({}, {"policy_loss_beta": 0.0} | near, ZERO | near, WITHOUT | near):
        assert same(beside, beside | average)


def test_a_checkpoint_is_known_by_its_content(tmp_path: Path) -> None:
    plain = replace(BASE, use_reasoner=False)
    first, second, third = (
        written(tmp_path / name, replace(plain, base_lm_hidden_dim=width))
        for name, width in (("a", 5), ("b", 5), ("c", 6))
    )
    runs = [
        {"reward": "log_ratio", "reference": "checkpoint", "reference_run": x} for x in (first, second, third)
    ]
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])
    weights = Path(first) / "model.safetensors"
    before = key(**runs[0])
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert key(**runs[0]) != before
