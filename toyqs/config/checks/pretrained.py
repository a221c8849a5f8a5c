"""Which settings go with a checkpoint."""

from __future__ import annotations

from importlib.util import find_spec

from toyqs.assets.pretrained import Architecture, architecture
from toyqs.config.errors import Refusal, refusing
from toyqs.config.resolve import sizes_of, with_checkpoint
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.backbone import FAMILIES


def check_pretrained(config: RunConfig) -> None:
    """Refuse a checkpoint that cannot be used, and settings that contradict it.

    Args:
        config: as typed, not resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    name = config.pretrained
    if name is None and config.lora_rank:
        raise Refusal(
            f"lora_rank={config.lora_rank}: adapters learn beside a checkpoint's frozen weights, and none "
            "is given; give pretrained=FOLDER or lora_rank=0"
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
        raise Refusal(f"pretrained={name}: is of the family {found.family}; give one of {known}")
    if found.window is not None:
        raise Refusal(
            f"pretrained={name}: attends within a window of {found.window}, which branches cannot; give a "
            "checkpoint without one"
        )
    _check_typed(config, found)
    _check_vocabulary(with_checkpoint(config, name), found)


def _check_typed(config: RunConfig, found: Architecture) -> None:
    """Sizes typed beside a checkpoint."""
    sizes = sizes_of(found) | {"model_hidden_dim": found.width}
    for key, size in sizes.items():
        given = getattr(config, key)
        if given not in (getattr(RunConfig, key), size):
            raise Refusal(
                f"{key}={given}: pretrained={config.pretrained} says {size}; leave {key} out, or give "
                "pretrained=null"
            )


def _check_vocabulary(config: RunConfig, found: Architecture) -> None:
    """What reads and predicts the checkpoint's tokens."""
    given = f"pretrained={config.pretrained}"
    refusing(lambda: config.task.check(config.seq_len))
    if config.task.vocab_size != found.vocab_size:
        raise Refusal(
            f"{given}: has {found.vocab_size} tokens of its own, and task={config.task.name} "
            f"{config.task.vocab_size}; give task=token_text"
        )
    if config.longest_sequence > found.positions:
        raise Refusal(
            f"{given}: knows {found.positions} positions, and a sequence with its thought has "
            f"{config.longest_sequence}; give a smaller seq_len or max_reasoning_len"
        )
    if not config.linear_lm_head:
        raise Refusal(f"linear_lm_head=false: {given} has an LM head of its own; give linear_lm_head=true")
    if config.use_reasoner and config.mixer == "concat":
        raise Refusal(
            f"mixing=concat: the LM head of {given} has no rows for a reading beside the base state; give "
            "mixing=logits, sum, hidden, gate, residual, add or thought"
        )
