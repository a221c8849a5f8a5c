"""The command lines of the research logbook, verbatim in logbook.txt, and the rows they must give."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

# For runs on a text, in place of the data set of the preset Logbook, which is downloaded.
TEXT = ("task.dataset=null", f"task.path={Path(__file__).resolve().parents[1] / 'README.md'}")
DIMS = (2, 4, 8, 16, 32, 64)  # what <dims> stands for
ALL_SEEDS = (0, 1, 2, 3)  # where none is typed
PATTERNS = (
    *("AAAA", "AAAB", "AABA", "ABAA", "ABBB", "AABB", "ABAB", "ABBA"),
    *("AABC", "ABAC", "ABCA", "ABBC", "ABCB", "ABCC", "ABCD"),
)
OF_32 = {name: (32,) for name in ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")}
ONE_CORE: dict[str, tuple[Any, ...]] = {
    "weight_groups": ("AAAA",),
    "mixing": ("thought",),
    "interpreter_start": ("onward",),
}
PLAIN: dict[str, tuple[Any, ...]] = {"use_reasoner": (False,)}
THINKING: dict[str, tuple[Any, ...]] = {"use_reasoner": (True,)}

# For each line the columns of its rows that show what was typed: one row for every combination of values.
COLUMNS: dict[str, dict[str, tuple[Any, ...]]] = {
    "capacity": THINKING | {"base_lm_hidden_dim": DIMS, "seed": (7, 8, 9), "reasoner_hidden_dim": (100,)},
    "wide reasoner": THINKING | {"base_lm_hidden_dim": DIMS, "seed": (7,), "reasoner_hidden_dim": (1000,)},
    "recipe": THINKING | {"base_lm_hidden_dim": (100,), "seed": (7, 8, 9), "weight_groups": ("ABCD",)},
    "capacity without thoughts": PLAIN | {"base_lm_hidden_dim": DIMS, "seed": (7,)},
    "one model": ONE_CORE | {"reasoner_hidden_dim": (*DIMS, 128, 256, 512), "seed": (7, 8)},
    "one model without thoughts": PLAIN | {"base_lm_hidden_dim": (2, 4, 8), "seed": (7, 8)},
    "very wide": {"base_lm_hidden_dim": (2048,), "seed": (7,), "use_reasoner": (True, False)},
    "own interpreter": {
        "weight_groups": ("AAAB",),
        "interpreter_start": ("afresh",),
        "seed": (7, 8),
        "info": ("seperateInterpreterDEBUG_",),
    },
    "policy loss": {
        "policy_loss_beta": (10.0, 100.0, 1000.0, 10000.0),
        "use_base_lm": (True, False),
        "seed": ALL_SEEDS,
    },
    "heads": THINKING | {"mixing": ("add", "concat"), "seed": ALL_SEEDS},
    "simple head": THINKING | {"mixing": ("add",), "base_lm_hidden_dim": (32, 64), "seed": ALL_SEEDS},
    "simple head without thoughts": PLAIN | {"base_lm_hidden_dim": (32, 64, 100), "seed": (7, 8, 9)},
    "one core": {"base_lm_hidden_dim": (32,), "seed": (7, 8, 9), "use_reasoner": (True, False)},
    "weight groups": OF_32
    | {"weight_groups": PATTERNS, "mixing": ("add",), "share_lm_head": (True,), "seed": (8,)},
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
    filled = [text.replace("<dims>", ",".join(map(str, DIMS))) for text in texts]
    return [Line(name, text, columns) for text, (name, columns) in zip(filled, COLUMNS.items(), strict=True)]


LINES = _lines()


def jobs(words: str) -> list[list[str]]:
    """Split what is typed after `run.py -m` into the words of each of the sweep's jobs."""
    settings = [word.partition("=") for word in shlex.split(words)]
    sweeps = [[f"{key}={x}" for x in re.split(r",(?![^\[]*\])", values)] for key, _, values in settings]
    return [list(job) for job in itertools.product(*sweeps)]
