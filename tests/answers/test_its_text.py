"""A finished run and the text that it was trained on, which may be gone, elsewhere or another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.answers import asked
from tests.run_folders import written
from toyqs.answers.__main__ import main
from toyqs.answers.loaded.load import load
from toyqs.config.identity import run_key
from toyqs.tasks.texts.char_text import CharText


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A run's folder, named by its key, and its text, which it knows by a path relative to its folder."""
    monkeypatch.chdir(tmp_path)
    asked.corpus(tmp_path)
    settings = asked.config(CharText(path="text.txt"))
    folder = tmp_path / "runs" / run_key(settings, 3)
    return written(folder, settings, asked.model(settings)[0]), tmp_path / "text.txt"


def answers(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["choose", folder, asked.lines(tmp_path / "choices.jsonl", asked.CHOICES)]) == 0
    assert main(["latency", folder, "--tokens", "2"]) == 0
    return capsys.readouterr().out.partition("ms of a prediction")[0]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_questions_need_the_alphabet_alone(
    trained: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, text = trained
    before = answers(folder, tmp_path, capsys)
    text.write_text("!" + text.read_text().replace("Question", "question"))  # every id is another one
    assert answers(folder, tmp_path, capsys) == before
    text.unlink()
    assert answers(folder, tmp_path, capsys) == before
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert answers(folder, tmp_path, capsys) == before


def test_held_out_text_is_the_one_of_the_training(
    trained: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, text = trained
    words, whole = ["tokens", folder, "--count", "60"], text.read_text()
    assert main(words) == 0
    before = capsys.readouterr().out
    then = json.loads((Path(folder) / "config.json").read_text())["task.identity"]
    text.write_text(whole[:-3] + "a" + whole[-2:])
    err = refusal(words, capsys)
    assert (
        f"task.path=text.txt: has changed since {folder} was trained with it: its hash was {then} and is "
        in err
    )
    text.unlink()
    err = refusal(words, capsys)
    assert (
        "task.path=text.txt: cannot be read" in err
        and "ask in the folder in which the run was trained" in err
    )
    text.write_text(whole)
    assert main(words) == 0 and capsys.readouterr().out == before


def test_a_run_of_before_texts_were_noted_is_asked_with_the_text_there_is(
    trained: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    file = Path(folder) / "config.json"
    now, columns = answers(folder, tmp_path, capsys), json.loads(file.read_text())
    new = ("results_version", "task.identity", "task.vocabulary")
    file.write_text(json.dumps({name: value for name, value in columns.items() if name not in new}))
    assert answers(folder, tmp_path, capsys) == now
    assert main(["tokens", folder, "--count", "60"]) == 0


def test_settings_are_those_of_the_folder_s_key(
    trained: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    file = Path(folder) / "config.json"
    columns = json.loads(file.read_text())
    changes: list[dict[str, Any]] = [{"max_reasoning_len": 1}, {"task.identity": "0" * 16}, {"seed": 4}]
    for changed in changes:
        file.write_text(json.dumps(columns | changed))
        err = refusal(["latency", folder], capsys)
        assert f"{folder}: its config.json is damaged, another run's" in err and Path(folder).name in err
    file.write_text(
        json.dumps(columns | {"info": "renamed", "task.path": "moved.txt", "shard_optimiser": False})
    )
    assert load(folder).config.info == "renamed"
    copied = Path(folder).rename(Path(folder).parent / "best")
    file = copied / "config.json"
    file.write_text(json.dumps(columns | {"trice_samples": 2}))
    assert load(str(copied)).config.trice_samples == 2, "only a key says what the settings are"
