"""Identity: equal keys for equal results, other keys for other ones."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.keys import BASE, OTHER, Text, key, same
from tests.run_folders import written
from toyqs.assets import pretrained
from toyqs.config import finished_run, identity
from toyqs.config.identity import record, run_keys, settings
from toyqs.config.key_table import RESULTS_VERSION, SETTINGS, TABLE_VERSION, TASK_SETTINGS, key_of
from toyqs.config.keys import OUTSIDE_KEY, STARTS, TASKS
from toyqs.config.run_config import RunConfig
from toyqs.tasks.texts.char_text import CharText


@pytest.fixture(autouse=True)
def _content_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretrained model need not be there."""
    monkeypatch.setattr(pretrained, "identity", lambda name: f"content of {name}")


def test_every_key_has_another_value_here() -> None:
    assert set(OTHER) | {*OUTSIDE_KEY, "info", "seed", "plugin"} == {x.name for x in fields(RunConfig)}
    assert not set(finished_run.REMOVED) & {x.name for x in fields(RunConfig)}


# What makes a key matter that else would not.
BESIDE: dict[str, dict[str, Any]] = {
    **{
        name: {"backbone": "llama"}
        for name in (
            *("model_n_layer", "model_n_head", "model_n_kv_head", "autocast", "branch_attention"),
            "qk_clip",
        )
    },
    "adjust_lr_fn": {"optimizer": "muon"},
    "grokfast_alpha": {"grokfast_lambda": 0.5},
    "positions_up_to": {"backbone": "gpt2"},
    "increment_pos_id_for_last_context_token": {"backbone": "llama", "add_last_context_token": True},
    "epochs": {"max_steps": -1},
    "seq_len": {"task": Text()},
    "reward_beta": {"reward": "kl_reverse"},
    "trajectory_alpha": {"reward": "trajectory"},
    "reference": {"reward": "log_ratio"},
    "prediction_kl_beta": {"reference": "initial"},
    "adaptive_by": {"adaptive_len": True},
    "problem_per_symbol": {"adaptive_len": True, "adaptive_by": "problem"},
    "sampler_temperature": {"sampler": "tempered", "objective": "listwise"},
    "reference_decay": {"reward": "log_ratio", "reference": "ema"},
    "reference_run": {"reward": "log_ratio", "reference": "checkpoint"},
    "temperature": {"objective": "vargrad"},
    "temperature_scale": {"objective": "maxent"},
    **{name: {"objective": "ppo_clip"} for name in ("clip_ratio", "clip_each", "inner_steps")},
    "reward_sees": {"learned_reward": True},
    "warm_start_as": {"warm_start": 2},
    "thought_logit_scale": {"thought_logits": "cosine"},
    "value_sees": {"baseline": "value"},
    "critic_loss_beta": {"baseline": "value"},
    "gate_floor": {"mixing": "hidden"},
    "attend_by": {"mixing": "attend", "thought_vocab": None},
    "attend_temperature": {"mixing": "attend", "thought_vocab": None, "attend_by": "scores"},
    "coherence_semantic": {"coherence_beta": 0.5, "base_lm_hidden_dim": 24},
    "coherence_syntactic": {"coherence_beta": 0.5, "thought_vocab": None},
    "coherence_predictive": {"coherence_beta": 0.5},
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
    monkeypatch.setattr(finished_run, "identity", lambda folder, *_: f"content of {folder}")
    base = BESIDE.get(name, {})
    assert not same(base, base | {name: OTHER[name]})


def test_a_default_changes_only_with_the_version_of_results() -> None:
    """A setting at its default must not be hashed, and a changed default must not hide behind an old key."""
    root = {x.name: getattr(RunConfig(), x.name) for x in fields(RunConfig)}
    for name in (*OUTSIDE_KEY, "seed", "info", "task", "plugin"):
        del root[name]
    root["weight_groups"] = "".join(root["weight_groups"])
    tasks = {name: {x.name: getattr(kind(), x.name) for x in fields(kind)} for name, kind in TASKS.items()}
    assert RESULTS_VERSION >= TABLE_VERSION
    assert RESULTS_VERSION > TABLE_VERSION or (root, tasks | TASK_SETTINGS) == (SETTINGS, tasks)


def test_a_new_setting_leaves_old_keys_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setitem(SETTINGS, "novel", 1)
    monkeypatch.setattr(identity, "settings", lambda *given: settings(*given) | {"novel": 1})
    assert key() == before
    monkeypatch.setattr(identity, "settings", lambda *given: settings(*given) | {"novel": 2})
    assert key() != before
    monkeypatch.delitem(SETTINGS, "novel")
    assert key() != before, "a setting that has no line is hashed"


def test_a_default_that_changes_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    changed = {"base_lr": RunConfig().base_lr / 2}
    monkeypatch.setattr(identity, "settings", lambda *given: settings(*given) | changed)
    assert key() != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("info", "label"),
        ("force", True),
        ("controls", "none"),
        ("wandb_mode", "offline"),
        ("tracker", "tensorboard"),
        ("wandb_project", "ours"),
        ("wandb_entity", "us"),
        ("wandb_tags", ["first"]),
        ("runs_dir", "elsewhere"),
        ("processes", 1),
        ("seed", [8, 9]),
    ],
)
def test_what_cannot_matter_leaves_the_key(name: str, value: Any) -> None:
    assert key(**{name: value}) == key()


def test_seeds_differ() -> None:
    keys = run_keys(BASE, range(20))
    assert len({*keys.values()}) == 20
    assert keys == {seed: key_of(settings(BASE, seed), RESULTS_VERSION) for seed in range(20)}


def test_key_is_sixteen_hex_digits_and_the_version_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    assert re.fullmatch("[0-9a-f]{16}", before)
    monkeypatch.setattr(identity, "RESULTS_VERSION", identity.RESULTS_VERSION + 1)
    assert key() != before


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
    label = written(tmp_path / "label", replace(plain, base_lm_hidden_dim=5, info="a label"))
    assert same(runs[0], runs[0] | {"reference_run": label}), "it is the same run under another label"
    weights = Path(first) / "model.safetensors"
    before = key(**runs[0]), settings(replace(BASE, **runs[0]), 0)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert key(**runs[0]) != before[0]
    after = settings(replace(BASE, **runs[0]), 0)
    assert {name for name in after if after[name] != before[1][name]} == {"reference_run.identity"}


def test_what_files_hold_is_in_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only there where there are files."""

    def noted(**changed: Any) -> dict[str, Any]:
        return {x: y for x, y in settings(replace(BASE, **changed), 0).items() if x.endswith(".identity")}

    assert noted() == {} == noted(reference_run="nowhere"), "nothing reads it"
    text = noted(task=Text())
    assert text.keys() == {"task.identity"} and re.fullmatch("[0-9a-f]{16}", text["task.identity"])
    assert text == noted(task=Text(path="b.txt"))
    assert noted(pretrained=OTHER["pretrained"]).keys() == {"pretrained.identity"}
    monkeypatch.setattr(Text, "content", "abd")
    assert noted(task=Text()) != text
    monkeypatch.setattr(Text, "content", "abc")
    monkeypatch.setattr(Text, "name", "other")
    assert noted(task=Text()) != text, "what one task makes of a text is not what another does"


NAMING_FILES = ("pretrained", "reference_run", *STARTS)


def test_a_config_json_gives_the_key_of_its_run(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be " * 20)
    for changed in ({}, OTHER | dict.fromkeys(NAMING_FILES), {"task": CharText(str(path))}):
        columns = json.loads(json.dumps(record(replace(BASE, **changed), 7)))
        assert key_of(columns, columns.pop("results_version")) == key(**changed)
