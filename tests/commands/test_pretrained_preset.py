"""The preset on a pretrained model: with a small checkpoint of one layer, and with SmolLM2-135M itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from toyqs.config.builders import training

pytest.importorskip("transformers")

import transformers

from tests.commands.test_presets import ROOT
from toyqs.answers.__main__ import main as answers
from toyqs.assets import pretrained, smollm2
from toyqs.config.builders.model import build_model
from toyqs.config.facts.thoughts import EM_DASH
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import load_rows
from toyqs.sweep import main
from toyqs.sweep.words.compose import compose_checked
from toyqs.sweep.words.presets import register
from toyqs.tasks.texts.token_text import TokenText

PRESET = "QuietSTaRPretrainedRunConfig"
TEXT = f"what is two and three ? two and three is five {EM_DASH} so five it is . "


@pytest.fixture
def small(tmp_path: Path) -> str:
    """Write a checkpoint whose tokens are words."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path / "checkpoint"
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=99,
        vocab_size=20,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = {x: i for i, x in enumerate(["<end>", *sorted(set(TEXT.split()))])}
    cut = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<end>"))
    cut.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    cut.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.fixture
def composed(tmp_path: Path) -> Callable[..., RunConfig]:
    (tmp_path / "text.jsonl").write_text((json.dumps({"question": TEXT, "answer": TEXT}) + "\n") * 20)

    def composed(*words: str, preset: str = PRESET) -> RunConfig:
        register()
        with initialize_config_dir(str(ROOT / "conf"), version_base=None):
            given = [
                f"+run_modifier={preset}",
                f"task.path={tmp_path / 'text.jsonl'}",
                f"runs_dir={tmp_path}/runs",
            ]
            return compose_checked(compose("config", [*given, *words]))[0]

    return composed


def test_it_trains(
    small: str, composed: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)
    config = composed(f"pretrained={small}", "max_steps=3", "eval_every=3", "processes=1")
    assert main.main([config]) == 0
    (row,) = load_rows(tmp_path / "runs").to_dict("records")
    assert row["train_steps"] == 3 and row["lora_rank"] == 8 and row["backbone"] == "llama"
    assert all(0 < row[x] < 20 for x in ("nll", "nll_ahead", "nll_no_thought", "nll_shuffled", "gate"))


def test_gaussian_thoughts_train_speak_and_are_timed(
    small: str,
    composed: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SilentSTaR: one adapter set for all roles, a value that sees the greedy thought, rewards of 0 and 1."""
    monkeypatch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)
    words = (f"pretrained={small}", "max_steps=3", "eval_every=3", "processes=1")
    assert main.main([composed(*words, preset="SilentSTaRPretrainedRunConfig")]) == 0
    (row,) = load_rows(tmp_path / "runs").to_dict("records")
    settings = ("thoughts", "reward", "baseline", "value_sees", "advantage_scale", "lora_rank")
    assert [row[x] for x in settings] == ["gaussian", "accuracy", "value", "greedy_thought", "none", 8]
    run = tmp_path / "runs" / row["key"]
    curve = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (trained,) = (x for x in curve if x["kind"] == "train")
    assert 0 <= trained["reward"] <= 1 and trained["critic"] >= 0
    learnt = load_file(run / "model.safetensors")
    assert {name.split(".")[0] for name in learnt} >= {"cores", "critic", "mixer", "thought_head"}
    assert not any("tokens" in name for name in learnt)  # the checkpoint's own are frozen
    capsys.readouterr()
    assert answers(["say", str(run), "two and three", "--tokens", "2", "--temperature", "0"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("done thinking.") == 2 and not re.search(r"Thinking… \d", printed)  # no lengths
    assert "4 thoughts before each token, of 2 symbols each (vectors: the nearest tokens" in printed
    assert answers(["latency", str(run), "--tokens", "1", "--context", "4"]) == 0
    assert "after a context of 4 + 1 tokens" in capsys.readouterr().out


def test_a_large_vocabulary_is_evaluated_in_smaller_parts(
    small: str, composed: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(f"pretrained={small}")
    assert training.build_training_params(config).eval_chunk == training.THOUGHTS
    monkeypatch.setattr(TokenText, "vocab_size", 2**16)
    assert training.build_training_params(config).eval_chunk == 2**26 // (2**16 * 4)


@pytest.mark.skipif(
    not (smollm2.cache_folder() / smollm2.NAME).is_dir(),
    reason="SmolLM2-135M is not converted: python -m toyqs.assets.smollm2",
)
@pytest.mark.slow
def test_smollm2_predicts_english(tmp_path: Path) -> None:
    """Compare the library's model from the cache with ours without thoughts, on a sentence."""
    name = smollm2.NAME
    shape = pretrained.architecture(name)
    assert (shape.family, shape.layers, shape.width, shape.vocab_size) == ("llama", 30, 576, 49152)
    text = tmp_path / "text.txt"
    text.write_text("The capital of France is Paris, and the capital of Italy is Rome. " * 9)
    task = TokenText(path=str(text), tokenizer=name)
    ids = task.ids[:64].long()
    assert task.symbols([int(task.encode(EM_DASH)[0])]) == [EM_DASH]
    config = RunConfig(pretrained=name, task=task, use_reasoner=False, max_steps=1, seq_len=16)
    model = build_model(resolved(config), [0])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(pretrained.located(name)).eval()
    with torch.no_grad():
        ours = model.talk(model.read(ids[None, None], None), None).logits[0, :, :, 0, 0]
        wanted = theirs(ids[None]).logits
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-3)
    nll = torch.nn.functional.cross_entropy(wanted[0, :-1], ids[1:])
    assert nll < 0.3 * math.log(49152)
