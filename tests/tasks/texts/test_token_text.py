"""Text through a checkpoint's tokeniser: what is cut where, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import run_folders
from tests.config.checks.checking import accepted, refused
from toyqs.answers.metrics import prompt
from toyqs.assets.documents import read_documents
from toyqs.config.builders.reference_model import finished_model
from toyqs.config.facts.thoughts import EM_DASH
from toyqs.config.finished_run import settings_of
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.task import Task
from toyqs.tasks.texts import token_text
from toyqs.tasks.texts.char_text import CharText
from toyqs.tasks.texts.token_text import TokenText

WORDS = ("<end>", "a", "b", "c", EM_DASH)


@pytest.fixture
def cut(tmp_path: Path) -> str:
    """A checkpoint of words, <end> between documents, and two more tokens in the model than in the text."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({x: i for i, x in enumerate(WORDS)}, unk_token="<end>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    says = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 99}
    (folder / "config.json").write_text(json.dumps(says | {"vocab_size": 7, "eos_token_id": 0}))
    return str(folder)


def written(path: Path, lines: list[Any]) -> str:
    path.write_text("\n".join(json.dumps(x) for x in lines) + "\n")
    return str(path)


def text_of(tmp_path: Path, text: str, **knobs: Any) -> TokenText:
    (tmp_path / "text.txt").write_text(text)
    return TokenText(path=str(tmp_path / "text.txt"), **knobs)


def test_worked_example(tmp_path: Path, cut: str) -> None:
    task: Task = text_of(tmp_path, "a b c a b c a b", tokenizer=cut, think_every=2, held_out_fraction=0.4)
    assert task.ids.tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 0] and task.border == 5
    task.check(3)
    batch = task.sample(torch.Generator().manual_seed(0), 8, 3, "train")
    windows = {tuple(x) for x in torch.cat([batch.inputs, batch.targets[..., -1:]], -1)[0].tolist()}
    assert windows == {(1, 2, 3, 1), (2, 3, 1, 2)}
    assert batch.think[0].tolist() == [[False, True, False]] * 8 and bool(batch.weights.all())
    assert task.sample(torch.Generator(), 2, 3, "held_out").inputs.tolist() == [[[3, 1, 2], [3, 1, 2]]]
    assert task.encode("b a").tolist() == [2, 1] and task.decode([2, 1]) == "b a"
    assert task.vocab_size == 7 and task.symbols([1, 4, 6]) == ["a", EM_DASH, ""]


def test_documents_are_split_whole(tmp_path: Path, cut: str) -> None:
    lines = [{"question": "a b", "answer": "c"}, {"text": "b b b b b"}, {"text": "c"}]
    path = written(tmp_path / "x.jsonl", lines)
    assert read_documents(path)[0].text == f"{prompt('a b')} c", "trained on as toyqs.answers asks it"
    task = TokenText(path=path, tokenizer=cut, held_out_fraction=0.35)
    asked = [0, 0, 1, 2, 0, 0, 3]  # "Question", ":" and "Answer" are no words of this tokeniser
    assert task.ids.tolist() == [*asked, 0, 2, 2, 2, 2, 2, 0, 3, 0]
    assert task.border == 14, "not 10, in the middle of the second"


@pytest.mark.parametrize(
    ("says", "more", "ends"),
    [
        (0, None, (0,)),
        (3, {"eos_token_id": 0}, (3, 0)),
        ([3, 1], {"eos_token_id": [1, 2]}, (3, 1, 2)),
        (None, {"eos_token_id": [2, 0]}, (2, 0)),
        (None, {}, ()),
        (None, None, ()),
    ],
)
def test_the_ends_of_a_document(
    says: Any, more: dict[str, Any] | None, ends: tuple[int, ...], tmp_path: Path, cut: str
) -> None:
    """The checkpoint's in the order of its files; the first stands between documents."""
    file = Path(cut) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": says}))
    if more is not None:
        (Path(cut) / "generation_config.json").write_text(json.dumps(more))
    task = TokenText(path=written(tmp_path / "x.jsonl", [{"text": "a b"}, {"text": "c"}]), tokenizer=cut)
    assert task.ends == ends
    assert task.ids.tolist() == [1, 2, *ends[:1], 3, *ends[:1]]
    assert CharText(path=str(tmp_path / "x.jsonl")).ends == ()
    known = task.vocabulary()
    (Path(cut) / "generation_config.json").write_text('{"eos_token_id": 4}')
    assert known != task.vocabulary(), "answers would end elsewhere"


def test_a_pretrained_run_s_task_takes_its_tokens(
    tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("backbone", "pretrained"):
        monkeypatch.setattr(f"toyqs.config.checks.{module}.find_spec", lambda name: name)
    task = text_of(tmp_path, "a b c " * 40)
    config = RunConfig(pretrained=cut, task=task, seq_len=5, thought_vocab=None, meta_token_init=EM_DASH)
    assert (
        accepted(**{x: getattr(config, x) for x in ("pretrained", "task", "seq_len", "thought_vocab")}) == []
    )
    assert resolved(config).task.tokenizer == cut and resolved(config).marker_start == 4
    refused("task=token_text: .*give pretrained=FOLDER", task=task, seq_len=5)


def test_a_corpus_is_known_by_its_tokens(tmp_path: Path, cut: str) -> None:
    def key(task: TokenText) -> str:
        return run_key(replace(RunConfig(), task=task, max_steps=3), 0)

    one = text_of(tmp_path, "a b c " * 40, tokenizer=cut)
    copy = tmp_path / "copy.txt"
    copy.write_text("a  b c " * 40)
    assert key(one) == key(replace(one, path=str(copy)))
    others = [replace(one, think_every=2), replace(one, held_out_fraction=0.2)]
    assert len({key(x) for x in (one, *others)}) == 3
    copy.write_text("a b b " * 40)
    assert key(one) != key(replace(one, path=str(copy)))


def test_a_finished_run_knows_its_tokeniser_not_its_text(tmp_path: Path, cut: str) -> None:
    task = text_of(tmp_path, "a b c " * 40, tokenizer=cut)
    small = {"base_lm_hidden_dim": 3, "reasoner_hidden_dim": 3, "max_steps": 1, "seq_len": 5}
    folder = run_folders.written(tmp_path / "run", resolved(RunConfig(task=task, **small)))
    (tmp_path / "text.txt").unlink()
    assert finished_model(folder, 1).head is not None
    assert settings_of(folder).task.encode("b a").tolist() == [2, 1]
    file, config = Path(cut) / "tokenizer.json", Path(cut) / "config.json"
    for path, change in ((file, ('"a":1', '"a":2')), (config, ('"eos_token_id": 0', '"eos_token_id": 1'))):
        before = path.read_text()
        after = "".join(before.split()).replace(*("".join(x.split()) for x in change))
        path.write_text(after)
        for cached in (token_text.cutter_of, token_text.encoded):
            cached.cache_clear()
        with pytest.raises(ValueError, match=rf"{folder}: task.tokenizer={cut}: has changed since .* and is"):
            settings_of(folder)
        path.write_text(before)
    settings_of(folder)


def test_refusals(tmp_path: Path, cut: str) -> None:
    task = text_of(tmp_path, "a b c " * 40, tokenizer=cut)

    def say(fault: str, **knobs: Any) -> None:
        with pytest.raises(ValueError, match=fault):
            replace(task, **knobs).check(5)

    task.check(5)
    say("task.think_every=6: leaves no position of seq_len=5", think_every=6)
    say("task.held_out_fraction=1.0: is a fraction", held_out_fraction=1.0)
    say("leave 1 for the held_out split", held_out_fraction=0.01)
    say("needs one corpus", dataset="a/b")
    say("needs one corpus", path=None)
    say("task.path=.*: cannot be read", path=str(tmp_path / "none.jsonl"))
    say("task.tokenizer=none: there is no such folder", tokenizer="none")
    bad = written(tmp_path / "bad.jsonl", [{"question": "a"}])
    for damaged in ("{", "[]", "[" * 9999):
        (Path(cut) / "generation_config.json").write_text(damaged)
        say("task.tokenizer=.*: its generation_config.json is damaged; give another", held_out_fraction=0.2)
    (Path(cut) / "generation_config.json").unlink()
    say("task.path=.*: line 1 is not of this format .it has no answer.; mend the line", path=bad)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    say("holds no tokenizer.json", tokenizer=str(tmp_path / "bare"))


def test_a_hub_s_data_set(cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*names: str | None, split: str) -> list[dict[str, str]]:
        asked.append((*names, split))
        if names[0] == "gone/away":
            raise ConnectionError("offline\nand more")
        return [{"question": "a", "answer": "b"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert TokenText(dataset="openai/gsm8k:main", tokenizer=cut).ids.tolist() == [0, 0, 1, 0, 0, 2, 0]
    assert asked == [("openai/gsm8k", "main", "train")]
    with pytest.raises(
        ValueError, match=r"task.dataset=gone/away: cannot be loaded \(offline\); give task.path"
    ):
        _ = TokenText(dataset="gone/away", tokenizer=cut).ids
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"task.dataset=x/y: the package datasets is not installed"):
        _ = TokenText(dataset="x/y", tokenizer=cut).ids


def test_all_positions_and_some_of_them(tmp_path: Path, cut: str) -> None:
    task = text_of(tmp_path, "a b c " * 40, tokenizer=cut, think_every=2)
    for reasons in (True, False):
        refused(
            r"think_at=all: task\.think_every=2 .* give think_at=marked",
            **{"task": task, "seq_len": 8, "think_at": "all", "use_reasoner": reasons, "controls": "none"},
        )
    assert accepted(task=task, seq_len=8) == []
