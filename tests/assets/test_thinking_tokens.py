"""Thinking tokens added to a checkpoint: their ids, their rows, what learns, and that all else stays."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM

from tests.assets.test_pretrained import APART, EACH, SIZES, THINKING, config_of, silent, trained
from tests.run_folders import written
from toyqs.assets.pretrained import LM_HEAD, TOKEN_TABLES
from toyqs.config.builders.model import build_model, count_parameters
from toyqs.config.builders.reference_model import finished_model
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.tasks.reasoning.thinking_tokens import THINKING_TOKENS
from toyqs.tasks.texts.token_text import TokenText

WORDS, ROWS, WIDTH = ("<end>", "a", "b", "c"), 6, 16  # the model has two rows more than there are words
PLAIN: dict[str, Any] = {"use_reasoner": False}


def checkpoint(folder: Path, family: str, tied: bool, words: tuple[str, ...] = WORDS) -> Path:
    """Write a checkpoint of words, and a text of them with thinking tokens."""
    config = copy.deepcopy(SIZES[family])
    config.vocab_size, config.tie_word_embeddings, config.eos_token_id = ROWS, tied, 0
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    cut = Tokenizer(models.WordLevel({x: i for i, x in enumerate(words)}, unk_token="<end>"))
    cut.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    cut.save(str(folder / "tokenizer.json"))
    text = {"text": "a b <think> <step> a b <reason> c </think> b"}
    (folder / "text.jsonl").write_text((json.dumps(text) + "\n") * 30)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "tiny", "llama", True)


def task_of(folder: Path, thinking: bool = True) -> TokenText:
    return TokenText(str(folder / "text.jsonl"), tokenizer=str(folder), thinking_tokens=thinking)


def settings(folder: Path, thinking: bool = True, **keys: Any) -> RunConfig:
    task = replace(task_of(folder, thinking), tokenizer=None)
    return config_of(folder, task=task, seq_len=8, controls="none", **keys)


def test_ids_follow_the_rows_of_the_checkpoint(tiny: Path) -> None:
    task = task_of(tiny)
    assert task.vocab_size == ROWS + 8 and task.added_tokens == 8
    assert task.encode("a <think> b<step> <doubt>").tolist() == [1, 6, 2, 8, 13]
    assert task.decode([1, 6, 2, 8, 13]) == "a <think> b <step> <doubt>"
    assert task.symbols(range(ROWS + 8)) == [*WORDS, "", "", *THINKING_TOKENS]
    assert task.ids[:10].tolist() == [1, 2, 6, 8, 1, 2, 9, 3, 7, 2]
    plain = task_of(tiny, False)
    assert plain.vocab_size == ROWS and plain.added_tokens == 0
    assert plain.encode("a <think>").tolist() == [1, 0], "a word that it does not know"
    assert plain.encode("a b c").tolist() == task.encode("a b c").tolist()
    features = task.features(task.sample(torch.Generator().manual_seed(0), 2, 8, "train"))
    assert features["letter"].values.shape == (1, 2, 8)


def test_a_token_that_the_tokeniser_has_keeps_its_id(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "has", "llama", True, ("<end>", "a", "<think>", "b"))
    task = task_of(folder)
    assert task.added_tokens == 7 and task.vocab_size == ROWS + 7
    assert task.encode("a <think> </think> b").tolist() == [1, 2, 6, 3]


def test_a_run_is_known_by_whether_they_are_added(tiny: Path) -> None:
    with_them, without = (settings(tiny, thinking, **PLAIN) for thinking in (True, False))
    assert run_key(with_them, 0) != run_key(without, 0)
    assert "thinking_tokens" not in without.task.identity()
    assert task_of(tiny).vocabulary() != task_of(tiny, False).vocabulary()
    nothing = tiny / "nothing.txt"
    nothing.write_text("a b c " * 60)
    other = [replace(x, task=replace(x.task, path=str(nothing))) for x in (with_them, without)]
    assert len({run_key(x, 0) for x in other}) == 2, "though the text has none of them"


def tables(model: LatentReasoner) -> list[Tensor]:
    """Return the token table of each core, and the LM head's rows."""
    return [*(core.tokens.weight[0] for core in model.cores.values()), model.head.table.weight[0]]


@EACH
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("keys", [PLAIN, APART | {"mixing": "residual"}], ids=["plain", "apart"])
def test_old_rows_are_the_checkpoint_s_to_the_bit_and_new_ones_their_mean(
    family: str, tied: bool, rank: int, keys: dict[str, Any], tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "x", family, tied)
    model = build_model(settings(folder, lora_rank=rank, **keys), [3])
    held = load_file(folder / "model.safetensors")
    tokens = next(x for name, x in held.items() if name.endswith(TOKEN_TABLES)).double()
    head = tokens if tied else held[LM_HEAD].double()
    for table, rows in zip(tables(model), [*[tokens] * len(model.cores), head], strict=True):
        assert table.shape == (ROWS + 8, WIDTH) and torch.equal(table[:ROWS], rows)
        mean = rows.mean(0).expand(8, -1)
        torch.testing.assert_close(table[ROWS:], mean, rtol=0, atol=1e-7)
    inputs = torch.tensor([[[1, 2, 3, 1, 0]]])
    with_them = silent(model, inputs).detach()
    without = silent(build_model(settings(folder, False, lora_rank=rank, **keys), [3]), inputs).detach()
    torch.testing.assert_close(with_them[..., :ROWS], without, rtol=0, atol=1e-12)
    assert bool((with_them.softmax(-1)[..., ROWS:] <= 1 / ROWS).all())


@EACH
def test_new_rows_learn_and_frozen_ones_do_not(family: str, tied: bool, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "x", family, tied)
    for rank in (0, 2):
        config = settings(folder, lora_rank=rank, base_lr=0.1, **PLAIN)
        before, after = trained(config, 3)
        names = {name for name, _ in after.named_parameters() if name.endswith("added")}
        if rank:
            assert names == {"cores.A.tokens.added", *(() if tied else ("head.table.added",))}
        for old, new in zip(tables(before), tables(after), strict=True):
            read = sorted({6, 7, 8, 9})  # the thinking tokens of the text
            assert bool((old[read] != new[read]).any(-1).all())
            assert torch.equal(old[:ROWS], new[:ROWS]) == (rank > 0)
        more = 8 * WIDTH * (1 if tied else 2)
        assert (
            count_parameters(config) - count_parameters(settings(folder, False, lora_rank=rank, **PLAIN))
            == more
        )


def test_each_core_has_new_rows_of_its_own(tiny: Path) -> None:
    model = build_model(settings(tiny, lora_rank=2, **APART, mixing="residual"), [0])
    added = {name for name, _ in model.named_parameters() if name.endswith("tokens.added")}
    assert added == {f"cores.{letter}.tokens.added" for letter in model.cores}
    frozen = {core.tokens.rows.weight.data_ptr() for core in model.cores.values()}
    assert len(frozen) == 1, "the frozen rows are there once"


@pytest.mark.parametrize("rank", [0, 2])
def test_a_finished_run_is_read_again(rank: int, tiny: Path, tmp_path: Path) -> None:
    config = settings(tiny, lora_rank=rank, dtype="float32", **THINKING)
    _, model = trained(config, 2)
    again = finished_model(written(tmp_path / "run", config, model), 1)
    inputs = torch.tensor([[[1, 6, 8, 2, 13]]])
    assert torch.equal(silent(again, inputs), silent(model, inputs))
