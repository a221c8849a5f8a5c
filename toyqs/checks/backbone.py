"""Which settings go with a transformer in place of a GRU; see settings.py."""

from __future__ import annotations

from importlib.util import find_spec

from toyqs.config import RunConfig
from toyqs.refusal import Refusal
from toyqs.traits import goes_on, roles_in_use, thoughts_of, widths

OF_LARGE = ("autocast", "gradient_checkpointing")


def check_backbone(config: RunConfig) -> None:
    """Refuse what a transformer cannot do, or cannot do here.

    Args:
        config: resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.backbone == "gru":
        for name in OF_LARGE:
            if getattr(config, name):
                raise Refusal(
                    f"{name}=true: is for a transformer's layers; give {name}=false, or for example "
                    "backbone=gpt2"
                )
        return
    given = f"backbone={config.backbone}"
    if find_spec("transformers") is None:
        raise Refusal(f"{given}: the package transformers is not installed; pip install -e '.[transformer]'")
    if config.autocast and config.dtype == "float64":
        raise Refusal(
            "autocast=true: takes products in bfloat16, against which dtype=float64 is in vain; give "
            "dtype=float32 or autocast=false"
        )
    for width in {widths(config)[role]: None for role in roles_in_use(config)}:
        _check_heads(config, width)
    if thoughts_of(config) == "state":
        raise Refusal(
            f"thoughts=state: are drawn states of a GRU, and {given} has no such state; give "
            "thoughts=gaussian or backbone=gru"
        )
    if config.use_reasoner and goes_on(config):
        raise Refusal(
            f"ahead=continue: goes on from a reading as a GRU does, and {given} cannot; give ahead=persist "
            "or backbone=gru"
        )


def _check_heads(config: RunConfig, width: int) -> None:
    heads, shared = config.model_n_head, config.model_n_kv_head or config.model_n_head
    if width % heads:
        raise Refusal(
            f"model_n_head={heads}: does not divide a width of {width}; give widths that it divides, or "
            "model_n_head=1"
        )
    if config.backbone == "gpt2":
        return
    if width // heads % 2:
        raise Refusal(
            f"model_n_head={heads}: makes heads {width // heads} wide, and backbone={config.backbone} turns "
            "pairs of numbers; give a width of which each head's share is even"
        )
    if heads % shared:
        raise Refusal(f"model_n_kv_head={shared}: does not divide model_n_head={heads}; give a divisor of it")
