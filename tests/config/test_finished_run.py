"""A folder of a finished run from elsewhere: its config.json is checked as typed words are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.answers import asked
from tests.config.checks.checking import refused
from tests.run_folders import written
from toyqs.answers.__main__ import main
from toyqs.config.finished_run import settings_of


@pytest.fixture
def folder(tmp_path: Path) -> str:
    settings = asked.config(asked.corpus(tmp_path))
    return written(tmp_path / "run", settings, asked.model(settings)[0])


def said(folder: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that both readers of a folder say of it."""
    assert main(["latency", folder, "--tokens", "2"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"toyqs: {folder}: its config.json is damaged, another run's or of another") or (
        "describes no model" in err or "holds another model" in err
    )
    assert err.count("\n") == 1
    given = {"reward": "log_ratio", "reference": "checkpoint", "reference_run": folder, "seq_len": 8}
    refused(f"reference_run={folder}: its ", **given, task=asked.corpus(Path(folder).parent))
    return err


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"base_lm_hidden_dim": "wide"}, "base_lm_hidden_dim=wide: Value 'wide' of type 'str' could not"),
        ({"base_lm_hidden_dim": 8.5}, "base_lm_hidden_dim=8.5: Value '8.5' of type 'float' could not"),
        ({"base_lm_hidden_dim": None}, "base_lm_hidden_dim=null"),
        ({"base_lm_hidden_dim": [8]}, "base_lm_hidden_dim=[8]"),
        ({"base_lm_hidden_dim": 0}, "base_lm_hidden_dim=0: is too small"),
        ({"base_lm_hidden_dim": 10**30}, "is larger than any number"),
        ({"trice_samples": 10**30}, "is larger than any number"),
        ({"base_lm_hidden_dim": 10**18}, "describes no model"),
        ({"base_lm_hidden_dim": 10**6}, "holds another model"),
        ({"trice_samples": -1}, "trice_samples=-1: is too small"),
        ({"trice_samples": {"a": 1}}, "trice_samples"),
        ({"use_reasoner": "maybe"}, "use_reasoner=maybe"),
        ({"thoughts": "loud"}, "thoughts=loud: is not a choice"),
        ({"thoughts": None}, "thoughts=null"),
        ({"sigma": float("nan")}, "sigma=nan: is not finite"),
        ({"sigma": float("inf")}, "sigma=inf: is not finite"),
        ({"seed": "x"}, "seed=x: takes whole numbers"),
        ({"seed": None}, "seed=null: takes whole numbers"),
        ({"weight_groups": 7}, "weight_groups=7"),
        ({"weight_groups": None}, "weight_groups=null"),
        ({"weight_groups": "AB"}, "weight_groups"),
        ({"dtype": "float16"}, "dtype=float16: is not a choice"),
        ({"wings": 2}, "wings: not a setting of this version"),
        ({"task.wings": 2}, "task.wings: not a setting of this version"),
        ({"task": "chess"}, "task=chess: not a task of this version"),
        ({"task": None}, "task=None: not a task of this version"),
        ({"task": ["char_text"]}, "not a task of this version"),
        ({"task.held_out_fraction": "much"}, "task.held_out_fraction=much"),
        ({"results_version": 99}, "results_version=99: not a version of results"),
        ({"results_version": "two"}, "results_version=two: not a version of results"),
    ],
)
def test_a_value_that_no_word_could_give(
    folder: str, changed: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(folder) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert says in said(folder, capsys)


@pytest.mark.parametrize("name", ["task", "weight_groups", "seed"])
def test_what_is_always_there(folder: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(folder) / "config.json"
    columns = json.loads(file.read_text())
    del columns[name]
    file.write_text(json.dumps(columns))
    assert f"(without {name})" in said(folder, capsys)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b'{"task": 1' + b"0" * 9999 + b"}"],
)
def test_what_is_no_object(folder: str, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(folder) / "config.json").write_bytes(content)
    assert "not a JSON object in UTF-8" in said(folder, capsys)


@pytest.mark.parametrize("alphabet", [7, None, "ba", "aa", ["a", "b"]])
def test_an_alphabet_is_different_characters_in_order(folder: str, alphabet: Any) -> None:
    file = Path(folder) / "config.json"
    columns = json.loads(file.read_text())
    file.write_text(json.dumps(columns | {"task.vocabulary": alphabet}))
    with pytest.raises(ValueError, match=rf"reference_run={folder}: task.vocabulary: is no alphabet"):
        settings_of(folder)


def test_weights_of_another_kind(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(folder) / "model.safetensors"
    whole = load_file(file)
    name = next(iter(whole))
    infinite = whole[name].clone()
    infinite.view(-1)[0] = torch.nan
    for changed, says in (
        (whole[name].half(), "in torch.float16, and its config.json says float64"),
        (whole[name].long(), "in torch.int64, and"),
        (whole[name].repeat(2, *[1] * (whole[name].dim() - 1)), "holds another model"),
        (whole[name][..., :1].clone(), "holds another model"),
        (infinite, f"is not finite in {name}: it diverged"),
    ):
        save_file(whole | {name: changed}, file)
        assert main(["latency", folder]) == 2
        err = capsys.readouterr().err
        assert says in err and folder in err and err.count("\n") == 1
