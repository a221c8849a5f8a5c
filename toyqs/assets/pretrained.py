"""Checkpoints of pretrained language models: their folders, architectures and weights.

A checkpoint is a folder as the library transformers writes it: config.json, safetensors, tokenizer.json.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from toyqs.assets import smollm2
from toyqs.assets.cache import digest

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)  # owner/model
# Names that the hub knows without their owner, of the families that can be used.
SHORT_NAMES = {
    **{f"gpt2{size}": f"openai-community/gpt2{size}" for size in ("", "-medium", "-large", "-xl")},
    "distilgpt2": "distilbert/distilgpt2",
}
HUB_FILES = ("config.json", "generation_config.json", "*.safetensors", "tokenizer*.json")
# Entries of a config.json that do not describe the model.
OUTSIDE_IDENTITY = ("_name_or_path", "_model_name_or_path", "transformers_version", "dtype", "torch_dtype")
PREFIXES = ("model.", "transformer.")  # of the decoder's names in a model with an LM head
TOKEN_TABLES = ("embed_tokens.weight", "wte.weight")
LM_HEAD = "lm_head.weight"


class CheckpointError(ValueError):
    """An error for weights that are missing, damaged or another model's: one line with key and remedy."""


class Architecture(NamedTuple):
    """The sizes of a decoder, by its config.json."""

    family: str  # such as llama
    layers: int
    heads: int
    kv_heads: int | None  # None: as many as heads
    width: int  # D
    vocab_size: int  # V
    positions: int  # the longest sequence that its positions allow
    window: int | None  # how far attention reaches back; None: to the beginning

    @property
    def longest(self) -> int:
        """Return how many tokens it can read so that each attends to all before it."""
        return self.positions if self.window is None else min(self.positions, self.window)


class Weights(NamedTuple):
    """A decoder, its token table and its LM head."""

    decoder: dict[str, Tensor]  # under the library's names
    tokens: Tensor  # (V, D)
    head: Tensor | None  # (V, D); None: it is the token table


def located(name: str, key: str = "pretrained") -> Path:
    """Return the folder of a checkpoint; one that is not on this disk yet is converted or downloaded.

    Args:
        name: a folder, `smollm2.NAME`, owner/model of the Hugging Face hub, or one of `SHORT_NAMES`.
        key: the setting that names it, for the message.

    Raises:
        ValueError: one line with the remedy.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and name == smollm2.NAME:
        return smollm2.converted(key)
    if folder.is_file():
        raise ValueError(f"{key}={name}: is a file, not a folder; give the folder of a pretrained model")
    if not folder.is_dir():
        folder = _from_hub(name, key)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{key}={name}: holds no config.json; give the folder of a pretrained model")
    return folder


@functools.cache
def _from_hub(name: str, key: str) -> Path:
    full_name = SHORT_NAMES.get(name, name)
    if not HUB_NAME.fullmatch(full_name):
        raise ValueError(
            f"{key}={name}: there is no such folder; give the folder of a pretrained model, owner/model of "
            f"the Hugging Face hub, {', '.join(SHORT_NAMES)} or {smollm2.NAME}"
        )
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(full_name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub's library has errors of its own, and of several others
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{key}={name}: {full_name} cannot be fetched from the Hugging Face hub ({reason}); give a "
            "folder that holds it"
        ) from error


def architecture(name: str) -> Architecture:
    """Read a checkpoint's architecture, from config.json alone.

    Raises:
        ValueError: as in `located`, or config.json does not describe a decoder.
    """
    config = _read_config(name)

    def size(*names: str) -> int:
        key = next((x for x in names if x in config), names[0])
        if type(config[key]) is not int or config[key] < 1:
            raise ValueError(
                f"pretrained={name}: its config.json says {key}={config[key]!r}, which is no size; give "
                "another checkpoint"
            )
        return int(config[key])

    try:
        heads = size("num_attention_heads", "n_head")
        kv_heads = size("num_key_value_heads") if config.get("num_key_value_heads") else heads
        return Architecture(
            family=config["model_type"],
            layers=size("num_hidden_layers", "n_layer"),
            heads=heads,
            kv_heads=None if kv_heads == heads else kv_heads,
            width=size("hidden_size", "n_embd"),
            vocab_size=size("vocab_size"),
            positions=size("max_position_embeddings", "n_positions"),
            window=_window(config),
        )
    except KeyError as error:
        raise ValueError(
            f"pretrained={name}: its config.json does not say {error}; give a decoder's checkpoint"
        ) from error


def _window(config: dict[str, Any]) -> int | None:
    """Return the window of a family that may have one; an entry that is missing has the library's default."""
    family = config["model_type"]
    if family == "mistral" or (family in ("qwen2", "qwen3") and config.get("use_sliding_window", False)):
        return config.get("sliding_window", 4096)
    return None


def _read_config(name: str) -> dict[str, Any]:
    path = located(name) / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise ValueError(f"pretrained={name}: its config.json is damaged; give another checkpoint") from error
    return config


def weights(name: str) -> Weights:
    """Map a checkpoint's weights from its files: no weight is read before it is used.

    Raises:
        ValueError: as in `located`.
        CheckpointError: its files are missing or damaged, or lack a token table as large as it says.
    """
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    try:
        for file in _files(name):
            tensors |= load_file(file)
    except (OSError, SafetensorError) as error:
        raise _damaged(name) from error
    head = tensors.pop(LM_HEAD, None)
    decoder = {_bare(key): value for key, value in tensors.items()}
    table = next((key for key in TOKEN_TABLES if key in decoder), None)
    if table is None:
        raise CheckpointError(f"pretrained={name}: holds no token table; give a decoder's checkpoint")
    tokens, says = decoder.pop(table), architecture(name)
    head = None if _read_config(name).get("tie_word_embeddings") else head
    for key, found in ((table, tokens), (LM_HEAD, head)):
        if found is not None and found.shape != (says.vocab_size, says.width):
            raise lacks(name, key, (says.vocab_size, says.width))
    return Weights(decoder, tokens, head)


def is_tied(name: str) -> bool:
    """Tell whether the LM head is the token table, by config or as there is no other; reads no weight."""
    if _read_config(name).get("tie_word_embeddings"):
        return True
    try:
        for file in _files(name):
            with safe_open(file, framework="pt") as content:
                if LM_HEAD in content.keys():  # noqa: SIM118, it is no dictionary
                    return False
    except (OSError, SafetensorError) as error:
        raise _damaged(name) from error
    return True


def lacks(name: str, weight: str, shape: Sequence[int]) -> CheckpointError:
    """Return the error for a weight that a checkpoint has not, or not in this shape."""
    sizes = " x ".join(map(str, shape))
    return CheckpointError(f"pretrained={name}: lacks {weight} of the size {sizes}; give another checkpoint")


def _damaged(name: str) -> CheckpointError:
    return CheckpointError(f"pretrained={name}: its safetensors are damaged; give another checkpoint")


def _bare(name: str) -> str:
    return next((name.removeprefix(x) for x in PREFIXES if name.startswith(x)), name)


def _files(name: str) -> list[Path]:
    files = sorted(located(name).glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"pretrained={name}: holds no *.safetensors; give a checkpoint in that format")
    return files


def identity(name: str) -> str:
    """Hash a checkpoint's architecture and weights: the same whatever its folder.

    Raises:
        ValueError: as in `architecture`.
        CheckpointError: it has no weights.
    """
    config = {k: v for k, v in _read_config(name).items() if k not in OUTSIDE_IDENTITY}
    total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in _files(name):
        total.update(digest(file))
    return total.hexdigest()
