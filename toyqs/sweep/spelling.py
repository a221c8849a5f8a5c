"""A cell's settings -> the command that runs the same on a transformer."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from toyqs.config.checks.values import check
from toyqs.config.finished_run import config_of
from toyqs.config.identity import canonical
from toyqs.config.run_config import WIDTHS, RunConfig

PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:-]*")  # a word that Hydra reads as text without quotes


class Size(NamedTuple):
    """Of the transformer."""

    backbone: str
    layers: int
    heads: int
    width: int  # of the widest role
    lr: float


def command(settings: Mapping[str, Any], seeds: Sequence[int], controls: str, size: Size) -> str:
    """A line for the shell.

    Args:
        settings: a cell's.
        seeds: of its runs.
        controls: none or fair.
        size: what is added. The other roles keep their width's share of the widest one's, rounded up to what
            the heads divide; all else is carried over as it is.

    Raises:
        Refusal: such a run is none of a transformer's, or the settings are not of this version.
    """
    config = replace(config_of(settings), seed=list(seeds), controls=controls)
    config = on_transformer(config, size)
    check(config)
    return " ".join(["python run.py", *typed_words(config)])


def on_transformer(config: RunConfig, size: Size) -> RunConfig:
    """The same run with a transformer in the place of its GRUs."""
    config = replace(
        config,
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
        plain = {name: getattr(RunConfig, name) for name in WIDTHS}
        return replace(config, model_hidden_dim=scaled[WIDTHS[0]], **plain)
    return replace(config, **scaled)


def typed_words(config: RunConfig) -> list[str]:
    """What has to be typed for a run, quoted for the shell: nothing that is so without it."""
    plain = RunConfig()
    shown, left = config, []
    for name in (x.name for x in fields(RunConfig) if x.name != "task"):
        without = replace(shown, **{name: getattr(plain, name)})
        if canonical(without) == canonical(config):
            shown = without
        else:
            left.append(name)
    typed = [] if config.task.name == plain.task.name else [("task", config.task.name)]
    fresh = type(config.task)()
    knobs = [(f"task.{x.name}", getattr(config.task, x.name)) for x in fields(config.task)]
    typed += [(name, value) for name, value in knobs if value != getattr(fresh, name.partition(".")[2])]
    typed += [(name, getattr(config, name)) for name in left]
    return [shlex.quote(f"{name}={_value(value)}") for name, value in typed]


def _value(value: Any) -> str:
    """As Hydra's grammar has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if not isinstance(value, str):
        return repr(value)
    if PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return value
    text = value.replace("'", "\\'")
    return f"'{text}'"
