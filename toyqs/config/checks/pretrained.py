"""Checks of a pretrained checkpoint and of the settings given with it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NoReturn

from toyqs.assets.pretrained import Architecture, architecture
from toyqs.config.errors import Refusal, refuse, refusing, typed
from toyqs.config.resolve import sizes_of, with_checkpoint
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.backbone import FAMILIES
from toyqs.model.mixing import MIXERS


def check_pretrained(config: RunConfig) -> None:
    """Refuse a checkpoint that cannot be used, and settings that contradict it.

    Args:
        config: as typed, not resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    name = config.pretrained
    if name is None and config.lora_rank:
        refuse(
            "lora_rank",
            config.lora_rank,
            "adapters learn on a checkpoint's frozen weights, and none is given",
            "pretrained=FOLDER or lora_rank=0",
        )
    if name is None:
        return
    if find_spec("transformers") is None:
        raise Refusal(
            f"pretrained={name}: the package transformers is not installed; pip install -e '.[transformer]'"
        )
    refusing(lambda: architecture(name))
    found = architecture(name)
    if found.family not in FAMILIES:
        known = ", ".join(FAMILIES)
        refuse("pretrained", name, f"is of the family {found.family}", f"one of {known}")
    _check_typed(config, found)
    _check_vocabulary(with_checkpoint(config, name), found)


def _check_typed(config: RunConfig, found: Architecture) -> None:
    """Refuse sizes that contradict the checkpoint."""
    if config.positions_up_to is not None:
        refuse(
            "positions_up_to",
            config.positions_up_to,
            f"pretrained={config.pretrained} has the positions that it was trained with",
            "positions_up_to=null or pretrained=null",
        )
    sizes = sizes_of(found) | {"model_hidden_dim": found.width}
    for key, size in sizes.items():
        given = getattr(config, key)
        if given not in (getattr(RunConfig, key), size):
            raise Refusal(
                f"{key}={typed(given)}: pretrained={config.pretrained} says {typed(size)}; leave {key} out, "
                "or give pretrained=null"
            )


def _check_vocabulary(config: RunConfig, found: Architecture) -> None:
    """Refuse a task or a head that does not fit the checkpoint's tokens."""
    given = f"pretrained={config.pretrained}"
    refusing(lambda: config.task.check(config.seq_len))
    if config.task.vocab_size - config.task.added_tokens != found.vocab_size:
        _refuse_tokens(config, found.vocab_size)
    if config.longest_sequence > found.longest:
        known = f"knows {found.positions} positions"
        if found.longest == found.window:  # up to there it is the same as attention to all
            known = f"attends within a window of {found.window}, which branches cannot"
        refuse(
            "pretrained",
            config.pretrained,
            f"{known}, and a sequence with its thought has {config.longest_sequence}",
            "a smaller seq_len or max_reasoning_len",
        )
    for key, other in (("linear_lm_head", True), ("lm_head_layers", 1)):
        if (value := getattr(config, key)) != other:
            refuse(key, value, f"{given} has an LM head of its own", f"{key}={typed(other)}")
    if config.use_reasoner and MIXERS[config.mixer].needs_rows:
        known = ", ".join(name for name in sorted(MIXERS) if not MIXERS[name].needs_rows)
        refuse(
            "mixing",
            config.mixer,
            f"the LM head of {given} has no rows for a reading next to the base state",
            f"one of mixing={known}",
        )


def _refuse_tokens(config: RunConfig, rows: int) -> NoReturn:
    """Refuse a task of more or fewer tokens than the checkpoint has rows for."""
    name, task = str(config.pretrained), config.task
    tokenizer = getattr(task, "tokenizer", None)
    if tokenizer is None:
        refuse(
            "pretrained",
            name,
            f"has {rows} tokens of its own, and task={task.name} {task.vocab_size}",
            "task=token_text",
        )
    count = task.vocab_size - task.added_tokens
    if tokenizer != name:
        raise Refusal(
            f"task.tokenizer={tokenizer}: has {count} tokens, and pretrained={name} {rows}; leave it out, "
            "and the checkpoint's own cuts the text"
        )
    refuse(
        "pretrained",
        name,
        f"its tokenizer.json has {count} tokens, and its embedding rows for {rows} of them",
        f"the folder to which transformers saves it after model.resize_token_embeddings({count}), with the "
        "tokenizer.json",
    )
