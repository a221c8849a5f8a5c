"""Words and bounds of settings: each setting has them in its line of RunConfig, as metadata of the field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

# Samplers other than the policy itself -> the kinds of symbols that they can draw.
SAMPLERS = {
    "tempered": ("token", "gaussian", "state"),
    "uniform": ("token",),
    "prior": ("gaussian",),
    "inference": ("token",),
}
# References that are a second model, which no gradient trains.
REFERENCE_MODELS = ("ema", "initial", "checkpoint")
REFERENCES = ("oracle", "no_thought", *REFERENCE_MODELS)
VALUE_INPUTS = ("context", "target", "base_prediction", "average_thought", "greedy_thought")
META_TOKEN_MODES = ("none", "reparameterise", "lr_multiplier", "grad_scale")
LENGTH_SCHEDULES = ("constant", "long_to_short", "short_to_long", "random")

# Named variants: what each sets.
DEBUG_VARIANTS: dict[str, dict[str, Any]] = {
    "seperateInterpreter": {
        "weight_groups": ["A", "A", "A", "B"],
        "interpreter_start": "afresh",
        "share_lm_head": False,
    },
}


OPTIONAL = re.compile(r"(?:typing\.)?Optional\[(\w+)\]|None \| (\w+)")


def type_text(annotation: Any) -> str:
    """Return a field's type as it is written here, such as "float | None", however its class has it."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return OPTIONAL.sub(lambda found: f"{found[1] or found[2]} | None", text.strip("'\""))


class Words(Sequence[str]):
    """Words that a key takes: some of its own, and the names in a table when they are asked for."""

    def __init__(self, own: Iterable[str], table: Mapping[str, Any]) -> None:
        self.own, self.table = tuple(own), table

    def __getitem__(self, index: Any) -> Any:
        return (*self.own, *self.table)[index]

    def __len__(self) -> int:
        return len(self.own) + len(self.table)


def one_of(default: str | None, choices: Iterable[str | None], *more: str) -> Any:
    """Return a field that takes one of these words; those of a table may become more, by plug-ins."""
    words = Words(more, choices) if isinstance(choices, Mapping) else (*more, *choices)
    return field(default=default, metadata={"choices": words})


def number(default: float | None, *, at_least: float | None = None, above: float | None = None) -> Any:
    """Return a field of a number with a bound below it; None is let through where it is the default."""
    return field(default=default, metadata={"at_least": at_least, "above": above})
