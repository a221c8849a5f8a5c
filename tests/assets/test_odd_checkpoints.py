"""Checkpoints as the hub has them: a window, entries that are no weights, tokens without a row."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, PretrainedConfig, Qwen2Config

from tests.assets.test_pretrained import SIZES, THINKING, config_of, silent, some_inputs
from toyqs.answers.loaded.predictor import Predictor
from toyqs.assets.pretrained import CheckpointError, architecture
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import thought_sizes
from toyqs.config.errors import Refusal
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.texts.token_text import TokenText

KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
KEYS += ("max_position_embeddings", "initializer_range", "vocab_size")
LONGEST = (
    RevProg().length(0) + 2 + 2 + 1
)  # with a thought of two symbols, both markers and the token predicted


def saved(folder: Path, config: PretrainedConfig) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(copy.deepcopy(config)).save_pretrained(folder)
    return folder


def windowed(family: type[PretrainedConfig], window: int, **more: Any) -> PretrainedConfig:
    like = {key: getattr(SIZES["llama"], key) for key in KEYS}
    return family(**like, rms_norm_eps=1e-3, sliding_window=window, **more)


WINDOWED = [(MistralConfig, {}), (Qwen2Config, {"use_sliding_window": True, "max_window_layers": 1})]


@pytest.mark.parametrize(("family", "more"), WINDOWED)
def test_a_window_that_no_sequence_leaves_is_none(family: Any, more: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "windowed", windowed(family, LONGEST, **more))
    model, inputs = build_model(config_of(path, **THINKING), [0]), some_inputs()
    library = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    assert library.config.sliding_window == LONGEST
    torch.testing.assert_close(silent(model, inputs), logits(library, inputs), rtol=0, atol=1e-5)
    ours, theirs = readings(model, library, inputs)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    of = Predictor(model, thought_sizes(config_of(path, **THINKING)))
    assert of.longest == LONGEST  # though it has more positions
    narrow = saved(tmp_path / "narrow", windowed(family, LONGEST - 1, **more))
    with pytest.raises(Refusal, match=f"a window of {LONGEST - 1}, .* has {LONGEST}; give a smaller seq_len"):
        config_of(narrow, **THINKING)
    library.config.sliding_window = library.model.layers[-1].self_attn.sliding_window = 3
    assert (logits(library, inputs) - silent(model, inputs)).abs().max() > 1e-3, (
        "a window makes no difference"
    )


@torch.no_grad()
def logits(library: Any, inputs: Tensor) -> Tensor:
    return library(inputs[0]).logits


@torch.no_grad()
def readings(model: LatentReasoner, library: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the readings (B, K, D) of thoughts at the last position, ours and the library's."""
    core, last = model.cores["A"], torch.full((1, len(inputs[0]), 1), inputs.shape[2] - 1)
    noise = torch.rand(1, len(inputs[0]), 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    thoughts = model.think(model.read(inputs, last), noise)
    table, rows, found = core.token_rows()[0], core.thought_rows()[0], []
    for tokens, each in zip(inputs[0], thoughts.symbols[0, :, 0], strict=True):
        for own in each:
            sequence = torch.cat([table[tokens], rows[[0, *(own + 2).tolist(), 1]]])
            found.append(library.model(inputs_embeds=sequence[None]).last_hidden_state[0, -1])
    return model.interpreter(thoughts)[0, :, 0], torch.stack(found).unflatten(0, (-1, 2))


def test_a_window_that_config_json_leaves_out_is_the_library_s(tmp_path: Path) -> None:
    for family, says, window in (
        ("mistral", {}, 4096),
        ("mistral", {"sliding_window": None}, None),
        ("qwen2", {"sliding_window": 9}, None),
        ("qwen3", {"sliding_window": 9, "use_sliding_window": True}, 9),
        ("llama", {"sliding_window": 9}, None),
    ):
        path = tmp_path / "config.json"
        sizes = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 4, "vocab_size": 5}
        path.write_text(json.dumps(sizes | {"max_position_embeddings": 10**5, "model_type": family} | says))
        assert architecture(str(tmp_path)).window == window, (family, says)
        library = AutoConfig.from_pretrained(tmp_path)
        assert family == "llama" or library.sliding_window == window


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("family", SIZES)
def test_entries_that_are_no_weights_are_left_alone(family: str, rank: int, tmp_path: Path) -> None:
    """As in gpt2 itself: the causal masks of its layers; older Llamas hold their rotary frequencies."""
    path = saved(tmp_path / "checkpoint", SIZES[family])
    file, inputs = path / "model.safetensors", some_inputs()
    wanted = silent(build_model(config_of(path, lora_rank=rank, use_reasoner=False), [0]), inputs)
    extra = {"gpt2": "transformer.h.0.attn.bias", "llama": "model.layers.0.self_attn.rotary_emb.inv_freq"}
    save_file(load_file(file) | {extra[family]: torch.ones(1, 1, 8, 8)}, file, metadata={"format": "pt"})
    model = build_model(config_of(path, lora_rank=rank, use_reasoner=False), [0])
    torch.testing.assert_close(silent(model, inputs), wanted, rtol=0, atol=0)


def cutting(folder: Path, count: int) -> Path:
    """Write a tokeniser of this many tokens, letters first, and a text."""
    names = {chr(33 + i) if i < 90 else f"<{i}>": i for i in range(count)}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "text.txt").write_text("".join(chr(33 + i * 7 % 80) for i in range(300)))
    return folder


def speaking(path: Path, **more: Any) -> RunConfig:
    task = TokenText(path=str(path / "text.txt"), **more)
    return config_of(path, task=task, seq_len=8, use_reasoner=False, controls="none")


def embedding(rows: int) -> PretrainedConfig:
    config = copy.deepcopy(SIZES["llama"])
    config.vocab_size = rows
    return config


def test_tokens_without_a_row_in_the_embedding(tmp_path: Path) -> None:
    """Check that the remedies help: a larger embedding, and the checkpoint's own tokeniser."""
    path = cutting(saved(tmp_path / "checkpoint", embedding(99)), 102)
    with pytest.raises(Refusal, match=r"has 102 tokens, and its embedding rows for 99 .*embeddings.102."):
        speaking(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    model.resize_token_embeddings(102, mean_resizing=False)
    model.save_pretrained(path)
    assert build_model(speaking(path), [0]).cores["A"].tokens.weight.shape == (1, 102, 16)
    other = cutting(saved(tmp_path / "other", embedding(105)), 105)
    with pytest.raises(Refusal, match=f"task.tokenizer={other}: has 105 .* 102; leave it out"):
        speaking(path, tokenizer=str(other))


@pytest.mark.parametrize("end", [98, 101])
def test_a_token_that_the_text_may_not_hold(tmp_path: Path, end: int) -> None:
    path = cutting(saved(tmp_path, embedding(99)), 99)
    edit(path, eos_token_id=end)
    if end < 99:
        assert int(speaking(path).task.ids.max()) == end
        return
    with pytest.raises(Refusal, match=r"puts a token 101 into the text, and has only 99 .*eos_token_id"):
        speaking(path)


def test_a_damaged_tokeniser(tmp_path: Path) -> None:
    path = cutting(saved(tmp_path, embedding(99)), 99)
    (path / "tokenizer.json").write_text("{}")
    with pytest.raises(Refusal, match=r"its tokenizer.json is damaged; give another"):
        speaking(path)


def edit(path: Path, **says: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | says))


@pytest.mark.parametrize(
    ("says", "fault"),
    [
        ({"num_attention_heads": 0}, "says num_attention_heads=0, which is no size"),
        ({"hidden_size": "16"}, "says hidden_size='16', which is no size"),
        ({"vocab_size": None}, "says vocab_size=None, which is no size"),
        ({"num_key_value_heads": True}, "says num_key_value_heads=True, which is no size"),
    ],
)
def test_sizes_that_are_none(tmp_path: Path, says: dict[str, Any], fault: str) -> None:
    path = saved(tmp_path, SIZES["llama"])
    edit(path, **says)
    with pytest.raises(Refusal, match=fault):
        config_of(path)
    (path / "config.json").write_text("[]")
    with pytest.raises(Refusal, match=r"its config.json is damaged"):
        config_of(path)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    ("says", "fault"),
    [
        ({"vocab_size": 12}, "lacks embed_tokens.weight of the size 12 x 16"),
        ({"intermediate_size": 32}, "lacks layers.0.mlp.gate_proj.weight of the size 32 x 16"),
        ({"rope_parameters": {"rope_type": "no"}}, "no decoder that transformers can build .KeyError: 'no'"),
    ],
)
def test_weights_of_another_model(tmp_path: Path, says: dict[str, Any], fault: str, rank: int) -> None:
    path = saved(tmp_path, SIZES["llama"])
    config = config_of(path, lora_rank=rank, use_reasoner=False)
    edit(path, **says)
    with pytest.raises(CheckpointError, match=fault) as error:
        build_model(config, [0])
    assert "\n" not in str(error.value)
