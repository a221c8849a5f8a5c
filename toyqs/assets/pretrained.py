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

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)  # owner/model
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
    positions: int  # the longest sequence
    window: int | None  # how far attention reaches back; None: to the beginning


class Weights(NamedTuple):
    """A decoder, its token table and its LM head."""

    decoder: dict[str, Tensor]  # under the library's names
    tokens: Tensor  # (V, D)
    head: Tensor | None  # (V, D); None: it is the token table


def located(name: str, key: str = "pretrained") -> Path:
    """Return the folder of a checkpoint; one that is not on this disk yet is converted or downloaded.

    Args:
        name: a folder, `smollm2.NAME`, or owner/model of the Hugging Face hub.
        key: the setting that names it, for the message.

    Raises:
        ValueError: one line with the remedy.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and name == smollm2.NAME:
        return smollm2.converted(key)
    if not folder.is_dir():
        folder = _from_hub(name, key)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{key}={name}: holds no config.json; give the folder of a pretrained model")
    return folder


@functools.cache
def _from_hub(name: str, key: str) -> Path:
    if not HUB_NAME.fullmatch(name):
        raise ValueError(
            f"{key}={name}: there is no such folder; give the folder of a pretrained model, owner/model of "
            f"the Hugging Face hub, or {smollm2.NAME}"
        )
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub's library has errors of its own, and of several others
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{key}={name}: cannot be fetched from the Hugging Face hub ({reason}); give a folder"
        ) from error


def architecture(name: str) -> Architecture:
    """Read a checkpoint's architecture, from config.json alone.

    Raises:
        ValueError: as in `located`, or config.json does not describe a decoder.
    """
    config = _read_config(name)
    try:
        heads = _one_of(config, "num_attention_heads", "n_head")
        kv_heads = config.get("num_key_value_heads") or heads
        windowed = config.get("use_sliding_window", True)
        return Architecture(
            family=config["model_type"],
            layers=_one_of(config, "num_hidden_layers", "n_layer"),
            heads=heads,
            kv_heads=None if kv_heads == heads else kv_heads,
            width=_one_of(config, "hidden_size", "n_embd"),
            vocab_size=config["vocab_size"],
            positions=_one_of(config, "max_position_embeddings", "n_positions"),
            window=config.get("sliding_window") if windowed else None,
        )
    except KeyError as error:
        raise ValueError(
            f"pretrained={name}: its config.json does not say {error}; give a decoder's checkpoint"
        ) from error


def _one_of(config: dict[str, Any], *names: str) -> int:
    return config[next((name for name in names if name in config), names[0])]


def _read_config(name: str) -> dict[str, Any]:
    path = located(name) / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"pretrained={name}: its config.json is damaged; give another checkpoint") from error
    return config


def weights(name: str) -> Weights:
    """Map a checkpoint's weights from its files: no weight is read before it is used.

    Raises:
        ValueError: as in `located`.
        CheckpointError: its files are missing or damaged, or lack the token table.
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
    tokens = decoder.pop(table)
    return Weights(decoder, tokens, None if _read_config(name).get("tie_word_embeddings") else head)


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
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in _files(name):
        status = file.stat()
        digest.update(_digest(file.resolve(), (status.st_size, status.st_mtime_ns)))
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def _digest(file: Path, version: Sequence[int]) -> bytes:
    """Hash a file's content; `version` is a key of the cache, so that a changed file is hashed again."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
