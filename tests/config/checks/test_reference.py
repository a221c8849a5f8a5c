"""Refusals about references: which serves which reward and run, and a finished run's folder."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.config.checks.checking import accepted, refused
from tests.run_folders import written
from toyqs.config import finished_run
from toyqs.config.finished_run import settings_of
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.texts.char_text import CharText

PLAIN = {"use_reasoner": False, "controls": "none"}


def run(folder: Path, **settings: Any) -> str:
    return written(folder, resolved(RunConfig(**settings)))


def checkpoint(folder: str, reward: str = "log_ratio", **more: Any) -> dict[str, Any]:
    return {"reward": reward, "reference": "checkpoint", "reference_run": folder} | more


@pytest.mark.parametrize("kind", ["ema", "initial"])
def test_a_models_own_copy_serves_as_its_own_prediction_does(kind: str) -> None:
    assert accepted(reward="log_ratio", reference=kind) == []
    for reward in ("kl_forward", "kl_reverse"):
        refused(f"reference={kind}: reward={reward} .*oracle or checkpoint", reward=reward, reference=kind)
    refused(
        f"reference={kind}: .*no prediction without a thought.*use_base_lm=true",
        reward="log_ratio",
        reference=kind,
        use_base_lm=False,
    )


@pytest.mark.parametrize("decay", [1.0, 1.5])
def test_an_average_moves(decay: float) -> None:
    refused(f"reference_decay={decay}: .*reference=initial", reference_decay=decay)
    assert accepted(reference_decay=0.0) == []


def test_a_finished_run_serves_every_reward(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", **PLAIN, base_lm_hidden_dim=5)
    for reward in ("log_ratio", "kl_forward", "kl_reverse"):
        assert accepted(**checkpoint(folder, reward)) == []
    assert accepted(**checkpoint(folder, "kl_forward"), **PLAIN) == []
    thinking = run(tmp_path / "thinking")
    assert accepted(**checkpoint(thinking), use_base_lm=False) == []
    assert accepted(**checkpoint("nowhere", "likelihood")) == [], "nothing reads it"


def test_a_checkpoint_is_a_finished_run(tmp_path: Path) -> None:
    refused("reference=checkpoint: no run", reward="log_ratio", reference="checkpoint")
    missing = tmp_path / "missing"
    refused(f"reference_run={missing}: there is no such folder", **checkpoint(str(missing)))
    missing.mkdir()
    refused(f"reference_run={missing}: is not the folder .*config.json", **checkpoint(str(missing)))
    folder = Path(run(tmp_path / "run", **PLAIN))
    for name, content in (
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"task": "rev_prog"}'),
        ("config.json", b'{"task": "chess", "weight_groups": "ABCD"}'),
        ("config.json", b'{"task": "rev_prog", "weight_groups": "ABCD", "wings": 2}'),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[" * 100_000),
        ("model.safetensors", b""),
        ("model.safetensors", (folder / "model.safetensors").read_bytes()[:-4]),
    ):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        refused(f"reference_run={folder}: its {name} is damaged", **checkpoint(str(folder)))
        (folder / name).write_bytes(kept)
    assert accepted(**checkpoint(str(folder))) == []
    other = Path(run(tmp_path / "other", **PLAIN, base_lm_hidden_dim=7))
    (other / "model.safetensors").replace(folder / "model.safetensors")
    refused("holds another model than its config.json describes", **checkpoint(str(folder)))
    refused(f"reference_run={other}: .*no model.safetensors|its model.saf", **checkpoint(str(other)))


def test_a_run_of_before_a_key_was_removed_can_be_referred_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path / "run", **PLAIN)
    file = Path(folder) / "config.json"
    monkeypatch.setitem(finished_run.REMOVED, "task.wings", 2)
    now = settings_of(folder)
    columns = json.loads(file.read_text())
    file.write_text(json.dumps(columns | finished_run.REMOVED))
    assert settings_of(folder) == now and accepted(**checkpoint(folder)) == []
    for name, value, said in (
        ("shard_optimiser", True, "true"),
        ("fsdp", 1.5, "1.5"),
        ("train_examples", 512, "512"),
        ("task.wings", 3, "3"),
    ):
        file.write_text(json.dumps(columns | finished_run.REMOVED | {name: value}))
        refused(rf"reference_run={folder}: .*\({name}={said}: this version does not", **checkpoint(folder))


def test_a_checkpoint_knows_the_same_tokens(tmp_path: Path) -> None:
    markov = run(tmp_path / "markov", **PLAIN, task=HiddenMarkov())
    refused(f"reference_run={markov}: was trained on task=hidden_markov", **checkpoint(markov))
    larger = run(tmp_path / "larger", **PLAIN, task=RevProg(p=7))
    refused(f"reference_run={larger}: its tokens are not those", **checkpoint(larger))
    assert accepted(**checkpoint(run(tmp_path / "shorter", **PLAIN, task=RevProg(k=2)))) == []
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be " * 100)
    of_text = run(tmp_path / "of_text", **PLAIN, task=CharText(path=str(text)))
    (tmp_path / "same.txt").write_text("to be or not to be " * 50)
    task = CharText(path=str(tmp_path / "same.txt"))
    assert accepted(**checkpoint(of_text), task=task, seq_len=8) == []
    text.unlink()
    assert accepted(**checkpoint(of_text), task=task, seq_len=8) == [], "its folder holds its alphabet"
    (tmp_path / "same.txt").write_text("to be or not to bee! " * 50)
    refused("its tokens are not those", **checkpoint(of_text), task=replace(task), seq_len=8)


def test_a_checkpoint_predicts_without_a_thought(tmp_path: Path) -> None:
    silent = run(tmp_path / "silent", use_base_lm=False)
    refused(f"reference_run={silent}: .*no prediction without a thought", **checkpoint(silent))


def test_thoughts_stay_near_those_of_a_reference_model(tmp_path: Path) -> None:
    near = {"thought_kl_beta": 0.1}
    for reference in (None, "oracle", "no_thought"):
        refused("thought_kl_beta=0.1: needs a reference model.*ema, initial", reference=reference, **near)
    for reference in ("ema", "initial"):
        assert accepted(reference=reference, **near) == []
        assert accepted(reference=reference, use_base_lm=False, **near) == []
        assert accepted(reference=reference, thoughts="gaussian", **near) == []
    for objective, kind in (("multi_sample", "token"), ("pathwise", "gaussian")):
        said = f"thought_kl_beta=0.1: .*objective={objective}"
        refused(said, reference="ema", objective=objective, thoughts=kind, **near)
    for harmless in ({"max_reasoning_len": 0}, {"policy_loss_beta": 0.0}, PLAIN):
        assert accepted(**near, **harmless) == []


def test_a_checkpoint_scores_thoughts_of_its_own_kind(tmp_path: Path) -> None:
    near = {"thought_kl_beta": 0.1}
    folder = run(tmp_path / "thinking", thought_vocab=None, use_base_lm=False)
    same = checkpoint(folder, "likelihood", **near)
    assert accepted(**same, thought_vocab=9) == [], "as many symbols as tokens"
    refused(f"reference_run={folder}: .*thought_vocab was 9 there and is 6 here", **same)
    refused("max_reasoning_len was 3", **same, thought_vocab=None, max_reasoning_len=2)
    refused("thoughts was token", **same, thoughts="gaussian")
    gaussian = run(tmp_path / "gaussian", thoughts="gaussian")
    refused(
        "latent_dim was 4 there and is 5",
        **checkpoint(gaussian, "likelihood", **near),
        thoughts="gaussian",
        latent_dim=5,
    )
    for name, quiet in (("plain", PLAIN), ("zero", {"max_reasoning_len": 0})):
        refused(
            "has no thoughts to stay near", **checkpoint(run(tmp_path / name, **quiet), "likelihood", **near)
        )


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra transformer")
def test_a_transformer_that_read_shorter_sequences(tmp_path: Path) -> None:
    """Its table of positions ends where its own run's sequences did."""
    text = tmp_path / "text.txt"
    text.write_text("abcde" * 200)
    small = {"backbone": "gpt2", "task": CharText(path=str(text)), "model_hidden_dim": 4}
    past = written(
        tmp_path / "past", resolved(RunConfig(**small, use_reasoner=False, seq_len=16, max_steps=2))
    )
    near = small | {"reward": "log_ratio", "reference": "checkpoint", "reference_run": past, "max_steps": 2}
    assert accepted(**near, seq_len=16) == []
    refused("reference_run=.*: its model knows 16 positions, and 17 are needed", **near, seq_len=17)
    late = near | {"seq_len": 16, "positions_up_to": 40}  # sequences may begin at a position that it lacks
    refused("reference_run=.*: its model knows 16 positions, and 40 are needed", **late)


def test_a_checkpoint_predicts_as_many_tokens_together(tmp_path: Path) -> None:
    plain, joint = {"n_tokens_ahead": 2}, {"n_tokens_ahead": 2, "ahead": "joint"}
    alone, together = run(tmp_path / "alone"), run(tmp_path / "together", **joint)
    assert accepted(**checkpoint(together), **joint) == [] and accepted(**checkpoint(alone), **plain) == []
    refused("that run predicts 2 tokens jointly, this one token by token", **checkpoint(together), **plain)
    refused("that run predicts token by token, this one 2 tokens", **checkpoint(alone), **joint)
    other = joint | {"n_tokens_ahead": 3}
    refused("predicts 2 tokens jointly, this one 3 tokens jointly", **checkpoint(together), **other)
