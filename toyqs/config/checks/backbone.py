"""Checks of what a transformer can do in place of a GRU."""

from __future__ import annotations

from importlib.util import find_spec

from toyqs.config.errors import Refusal, refuse
from toyqs.config.run_config import RunConfig

# Settings that a GRU has no use for -> the value that it refuses, and the one to give.
KEYS_OF_LAYERS = {
    "autocast": ("true", "false"),
    "gradient_checkpointing": ("true", "false"),
    "branch_attention": ("flex", "dense"),
}
LEAST_HEAD = 16  # of FlexAttention's kernels


def check_backbone(config: RunConfig) -> None:
    """Refuse what the backbone cannot do, or cannot do on this machine.

    Args:
        config: resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    _check_graphs(config)
    if config.backbone == "gru":
        for name, (given, other) in KEYS_OF_LAYERS.items():
            if getattr(config, name) != getattr(RunConfig, name):
                refuse(
                    name,
                    given,
                    "is for a transformer's layers",
                    f"{name}={other}, or for example backbone=gpt2",
                )
        return
    given = f"backbone={config.backbone}"
    if find_spec("transformers") is None:
        raise Refusal(f"{given}: the package transformers is not installed; pip install -e '.[transformer]'")
    if config.autocast and config.dtype == "float64":
        refuse(
            "autocast",
            True,
            "takes products in bfloat16, which makes dtype=float64 useless",
            "dtype=float32 or autocast=false",
        )
    if config.num_positions < config.longest_sequence:
        thought = " with its thought" if config.use_reasoner else ""
        refuse(
            "positions_up_to",
            config.positions_up_to,
            f"a sequence{thought} takes {config.longest_sequence} positions",
            f"positions_up_to={config.longest_sequence} or more",
        )
    for width in {config.widths[role]: None for role in config.roles_in_use}:
        _check_heads(config, width)
    if config.branch_attention == "flex" and config.use_reasoner:
        _check_flex(config)
    if config.symbol_kind == "state":
        refuse(
            "thoughts",
            "state",
            f"are sampled states of a GRU, and {given} has no such state",
            "thoughts=gaussian or backbone=gru",
        )


def _check_graphs(config: RunConfig) -> None:
    if not config.cuda_graphs:
        return
    if config.device != "cuda":
        refuse("cuda_graphs", True, "device=cpu launches no kernels", "device=cuda or cuda_graphs=false")
    if config.backbone != "gru":
        refuse("cuda_graphs", True, "graphs are of a GRU's steps", "backbone=gru or cuda_graphs=false")


def _check_flex(config: RunConfig) -> None:
    """Refuse what FlexAttention's kernels lack: a gradient on a CPU, float64, heads narrower than 16."""
    if config.device != "cuda":
        refuse(
            "branch_attention",
            "flex",
            f"torch's FlexAttention has no gradient on device={config.device}",
            "device=cuda or branch_attention=dense",
        )
    if config.dtype == "float64":
        refuse(
            "branch_attention",
            "flex",
            "adds up in float32, which makes dtype=float64 useless",
            "dtype=float32 or branch_attention=dense",
        )
    width = config.widths["reasoner"] // config.model_n_head
    if width < LEAST_HEAD:
        refuse(
            "branch_attention",
            "flex",
            f"takes heads {LEAST_HEAD} wide or wider, and model_n_head={config.model_n_head} makes them "
            f"{width}",
            "fewer heads, greater widths or branch_attention=dense",
        )


def _check_heads(config: RunConfig, width: int) -> None:
    heads, shared = config.model_n_head, config.model_n_kv_head or config.model_n_head
    if width % heads:
        refuse(
            "model_n_head",
            heads,
            f"does not divide a width of {width}",
            "widths that it divides, or model_n_head=1",
        )
    if config.backbone == "gpt2":
        return
    if width // heads % 2:
        refuse(
            "model_n_head",
            heads,
            f"makes heads {width // heads} wide, and backbone={config.backbone} turns pairs of numbers",
            "a width of which each head's share is even",
        )
    if heads % shared:
        refuse("model_n_kv_head", shared, f"does not divide model_n_head={heads}", "a divisor of it")
