"""The command lines of the research logbook, verbatim in logbook.txt, and the rows they must give.

Source: README.md of github.com/jakob-bjorner/quiet-star-replicate at commit d776d68, its 19 lines that begin
with `python run.py`, in their order. One lacks the blank after -m; one ends in a blank, for it goes on in a
list of what might follow. docs/fidelity.md says what else there was different.
"""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

# For runs on a text, in place of the data set of the preset Logbook, which is downloaded.
README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = ("task.dataset=null", f"task.path='{README}'")  # quoted for Hydra: a checkout may stand anywhere
DIMS = (2, 4, 8, 16, 32, 64)
ALL_SEEDS = (0, 1, 2, 3)  # where none is typed
PATTERNS = (
    *("AAAA", "AAAB", "AABA", "ABAA", "ABBB", "AABB", "ABAB", "ABBA"),
    *("AABC", "ABAC", "ABCA", "ABBC", "ABCB", "ABCC", "ABCD"),
)
ONE_CORE: dict[str, tuple[Any, ...]] = {
    "weight_groups": ("AAAA",),
    "mixing": ("thought",),
    "interpreter_start": ("onward",),
}


def one_width(width: int) -> dict[str, tuple[Any, ...]]:
    """Return the columns of a model whose roles all have one width, with a shared linear head."""
    names = ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")
    return {name: (width,) for name in names} | {"mixing": ("add",), "share_lm_head": (True,)}


PLAIN: dict[str, tuple[Any, ...]] = {"use_reasoner": (False,)}
THINKING: dict[str, tuple[Any, ...]] = {"use_reasoner": (True,)}

NO_BLANK = "no blank"  # the name of the line that is refused

# For each line the columns of its rows that show what was typed: one row for every combination of values.
COLUMNS: dict[str, dict[str, tuple[Any, ...]]] = {
    "capacity": THINKING | {"base_lm_hidden_dim": DIMS, "seed": (7, 8, 9), "reasoner_hidden_dim": (100,)},
    "wide reasoner": THINKING | {"base_lm_hidden_dim": DIMS, "seed": (7,), "reasoner_hidden_dim": (1000,)},
    "recipe": THINKING | {"base_lm_hidden_dim": (100,), "seed": (7, 8, 9), "weight_groups": ("ABCD",)},
    "capacity without thoughts": PLAIN | {"base_lm_hidden_dim": DIMS, "seed": (7,)},
    "one model": ONE_CORE | {"reasoner_hidden_dim": (*DIMS, 128, 256, 512), "seed": (7, 8)},
    "one model without thoughts": PLAIN | {"base_lm_hidden_dim": (*DIMS, 128, 256, 512), "seed": (7, 8)},
    "very wide": {"base_lm_hidden_dim": (2048,), "seed": (7,), "use_reasoner": (True, False)},
    NO_BLANK: {},
    "policy loss": {
        "policy_loss_beta": (10.0, 100.0, 1000.0, 10000.0),
        "use_base_lm": (True, False),
        "seed": ALL_SEEDS,
    },
    "heads": THINKING | {"mixing": ("add", "concat"), "seed": ALL_SEEDS},
    "simple head": THINKING | {"mixing": ("add",), "base_lm_hidden_dim": (32, 64), "seed": ALL_SEEDS},
    "simple head without thoughts": PLAIN | {"base_lm_hidden_dim": (32, 64, 100), "seed": (7, 8, 9)},
    "simple head, broken off": THINKING | {"mixing": ("add",), "linear_lm_head": (True,), "seed": ALL_SEEDS},
    "one core of 32": {"base_lm_hidden_dim": (32,), "seed": (7, 8, 9), "use_reasoner": (True, False)},
    "one core of 64": {"base_lm_hidden_dim": (64,), "seed": (7, 8, 9), "use_reasoner": (True, False)},
    "one core of 100": {"base_lm_hidden_dim": (100,), "seed": (7, 8, 9), "use_reasoner": (True, False)},
    "weight groups of 32": one_width(32) | {"weight_groups": PATTERNS, "seed": (8,)},
    "weight groups of 64": one_width(64) | {"weight_groups": PATTERNS, "seed": (7, 8)},
    "weight groups of 100": one_width(100) | {"weight_groups": PATTERNS, "seed": (7, 8)},
}
OWN_INTERPRETER = {
    "weight_groups": ("AAAB",),
    "interpreter_start": ("afresh",),
    "seed": (7, 8),
    "info": ("seperateInterpreterDEBUG_",),
}


class Line(NamedTuple):
    """A command line and the columns that its rows must have."""

    name: str
    text: str  # as typed in bash
    columns: dict[str, tuple[Any, ...]]

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """Return the values of `columns`, row by row."""
        return list(itertools.product(*self.columns.values()))


def _lines() -> list[Line]:
    texts = (Path(__file__).parent / "logbook.txt").read_text(encoding="utf-8").splitlines()
    return [Line(name, text, columns) for text, (name, columns) in zip(texts, COLUMNS.items(), strict=True)]


LINES = _lines()
(REFUSED,) = (line for line in LINES if line.name == NO_BLANK)
# Those that run, the refused one as its refusal says that it is to be typed.
RUNNING = [
    Line("own interpreter", line.text.replace("-m+", "-m +"), OWN_INTERPRETER) if line == REFUSED else line
    for line in LINES
]


def jobs(words: str) -> list[list[str]]:
    """Split what is typed after `run.py -m` into the words of each of the sweep's jobs."""
    settings = [word.partition("=") for word in shlex.split(words)]
    sweeps = [[f"{key}={x}" for x in re.split(r",(?![^\[]*\])", values)] for key, _, values in settings]
    return [list(job) for job in itertools.product(*sweeps)]
