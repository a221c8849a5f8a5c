"""Spell a run's settings as a command line, the same on a transformer."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from toyqs.config.checks.values import check
from toyqs.config.finished_run import config_of
from toyqs.config.identity import changed
from toyqs.config.keys import RATES, WIDTHS
from toyqs.config.run_config import RunConfig
from toyqs.installation import program

PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:-]*")  # a word that Hydra reads as text without quotes
BEFORE_QUOTE = re.compile(r"(\\+)(?=')")  # backslashes that must be doubled in quotes


class Size(NamedTuple):
    """The size of a transformer, and its learning rate."""

    backbone: str
    layers: int
    heads: int
    width: int  # of the widest role
    lr: float


def command(settings: Mapping[str, Any], seeds: Sequence[int], controls: str, size: Size) -> str:
    """Spell the shell command that runs a cell on a transformer.

    Args:
        settings: the cell's.
        seeds: of its runs.
        controls: none or fair.
        size: of the transformer. The widths keep their ratios, each rounded up to a multiple of what the
            heads need; all other settings stay as they are.

    Raises:
        Refusal: no transformer can run these settings, or they are not of this version.
    """
    config = replace(config_of(settings), seed=list(seeds), controls=controls)
    config = on_transformer(config, size)
    check(config)
    return " ".join([program(), *typed_words(config)])


def on_transformer(config: RunConfig, size: Size) -> RunConfig:
    """Replace a run's GRUs by a transformer; rates of roles keep their ratio to base_lr."""
    factor = size.lr / config.base_lr
    rates = {name: rate * factor for name in RATES if (rate := getattr(config, name))}
    config = replace(
        config,
        **rates,
        kernels="auto",
        backbone=size.backbone,
        model_n_layer=size.layers,
        model_n_head=size.heads,
        base_lr=size.lr,
    )
    unit, widths = config.width_unit, {name: getattr(config, name) for name in WIDTHS}
    widths = {name: width or config.reasoner_hidden_dim for name, width in widths.items()}
    factor = size.width / max(widths.values())
    scaled = {name: unit * math.ceil(width * factor / unit) for name, width in widths.items()}
    if len(set(scaled.values())) == 1:
        defaults = {name: getattr(RunConfig, name) for name in WIDTHS}
        return replace(config, model_hidden_dim=scaled[WIDTHS[0]], **defaults)
    return replace(config, **scaled)


def typed_words(config: RunConfig) -> list[str]:
    """List the words KEY=VALUE that have to be typed for a run, quoted for the shell.

    A key is left out where the run is the same at its default.
    """
    return [shlex.quote(f"{name}={value_text(value)}") for name, value in changed(config).items()]


def value_text(value: Any) -> str:
    """Write a value in Hydra's grammar."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(value_text, value))}]"
    if not isinstance(value, str):
        return repr(value)
    if PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return value
    text = BEFORE_QUOTE.sub(r"\1\1", f"{value}'")[:-1].replace("'", "\\'")
    return f"'{text}'"
