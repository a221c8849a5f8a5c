"""Which settings go with a transformer in place of a GRU; see settings.py."""

from __future__ import annotations

from importlib.util import find_spec

from toyqs.config.errors import Refusal
from toyqs.config.run_config import RunConfig

# What a GRU has no use for: key -> its value that is refused there, and the one to give.
OF_LAYERS = {
    "autocast": ("true", "false"),
    "gradient_checkpointing": ("true", "false"),
    "branch_attention": ("flex", "dense"),
}
LEAST_HEAD = 16  # of FlexAttention's kernels


def check_backbone(config: RunConfig) -> None:
    """Refuse what a transformer cannot do, or cannot do here.

    Args:
        config: resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.backbone == "gru":
        for name, (given, other) in OF_LAYERS.items():
            if getattr(config, name) != getattr(RunConfig, name):
                raise Refusal(
                    f"{name}={given}: is for a transformer's layers; give {name}={other}, or for example "
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
    for width in {config.widths[role]: None for role in config.roles_in_use}:
        _check_heads(config, width)
    if config.branch_attention == "flex" and config.use_reasoner:
        _check_flex(config)
    if config.symbol_kind == "state":
        raise Refusal(
            f"thoughts=state: are drawn states of a GRU, and {given} has no such state; give "
            "thoughts=gaussian or backbone=gru"
        )
    if config.use_reasoner and config.interpreter_reads_on:
        raise Refusal(
            f"ahead=continue: goes on from a reading as a GRU does, and {given} cannot; give ahead=persist "
            "or backbone=gru"
        )


def _check_flex(config: RunConfig) -> None:
    """Torch's kernels: they have a gradient on a GPU only, sums in float32, heads of 16 or wider."""
    given = "branch_attention=flex: "
    if config.device != "cuda":
        raise Refusal(
            f"{given}torch's FlexAttention has no gradient on device={config.device}; give device=cuda or "
            "branch_attention=dense"
        )
    if config.dtype == "float64":
        raise Refusal(
            f"{given}adds up in float32, against which dtype=float64 is in vain; give dtype=float32 or "
            "branch_attention=dense"
        )
    width = config.widths["reasoner"] // config.model_n_head
    if width < LEAST_HEAD:
        raise Refusal(
            f"{given}takes heads {LEAST_HEAD} wide or wider, and model_n_head={config.model_n_head} makes "
            f"them {width}; give fewer heads, greater widths or branch_attention=dense"
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
