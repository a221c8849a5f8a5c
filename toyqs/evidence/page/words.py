"""Settings in plain words, and the commands that the page advises."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.evidence.cells import Cell
from toyqs.evidence.selection import BASE, INTERPRETER, REASONER, WIDTHS, value_of
from toyqs.evidence.text import spelled
from toyqs.files import read_json, visible

OF_ITS_OWN = ("seed", "runs_dir", "force")  # words of a command that another sweep has its own of
ALL_WIDTHS = "model_hidden_dim"  # sets every width
FOLDER = "widths"  # of the sweep that is advised


class Words(NamedTuple):
    """What a setting is called, and its value in a sentence."""

    name: str
    value: str  # with {} in the place of the value


PLAIN = {
    "task": Words("task", "{}"),
    "weight_groups": Words("pattern of shared weights", "pattern {}"),
    ALL_WIDTHS: Words("width of all parts", "all parts {} wide"),
    BASE: Words("width of the base LM", "base LM {} wide"),
    REASONER: Words("width of the reasoner", "reasoner {} wide"),
    INTERPRETER: Words("width of the interpreter", "interpreter {} wide"),
    "policy_loss_beta": Words("weight of the policy loss", "policy loss × {}"),
    "entropy_encouragement_coef": Words("weight of the entropy bonus", "entropy bonus × {}"),
    "max_reasoning_len": Words("symbols per thought", "{} symbols per thought"),
    "trice_samples": Words("thoughts per position", "{} thoughts per position"),
    "thought_vocab": Words("symbols to think with", "{} symbols to think with"),
    "thoughts": Words("kind of thoughts", "{} thoughts"),
    "max_steps": Words("training steps", "{} training steps"),
    "base_lr": Words("learning rate", "learning rate {}"),
}


def words_for(key: str) -> Words:
    """Return what a setting is called; its key where there is nothing plainer."""
    return PLAIN.get(key, Words(visible(key), visible(key) + "={}"))


def in_words(cell: Cell, keys: Sequence[str]) -> str:
    """Return a cell's name for people, "pattern AABB, base LM 4 wide"; "" without keys."""
    known = [key for key in keys if key in cell.settings]
    return ", ".join(words_for(key).value.replace("{}", value_of(cell, key)) for key in known)


def width_sweep(runs: Path, cell: Cell) -> dict[str, str]:
    """Return the commands that sweep a width around a cell, all else being as it is, and that show the sweep.

    Args:
        runs: the folder of the runs.
        cell: of which a run has begun; the words are those of the command that began it.

    Returns:
        `name` of the swept setting, `command`, and `report`; empty where no command is noted, or no number
        can be swept.
    """
    by_seed = next(iter(cell.keys.values()), {})
    given = next(filter(None, (_typed(runs / key) for key in by_seed.values())), None)
    swept, own = _swept(cell.settings)
    if given is None or own is None:
        return {}
    if swept in WIDTHS and any(word.startswith(f"{ALL_WIDTHS}=") for word in given):
        swept = ALL_WIDTHS  # which would set the width that is swept
    values = sorted({max(1, round(own * times)) for times in (0.25, 0.5, 1, 2, 4)})
    words = [f"{swept}={','.join(map(str, values))}", f"seed={','.join(map(str, sorted(by_seed)))}"]
    words += _kept(given, cell.settings, (swept, *OF_ITS_OWN, *(WIDTHS if swept == ALL_WIDTHS else ())))
    return {
        "name": words_for(swept).name,
        "command": f"python run.py -m {shlex.join(words)} runs_dir={FOLDER}",
        "report": f"python -m toyqs.evidence report {FOLDER} -o {FOLDER}.html",
    }


def _swept(settings: Mapping[str, Any]) -> tuple[str, int | None]:
    """Return the setting to sweep, a width where one can be, and its value here; None where it has none.

    Roles that share weights are equally wide: where base_lm does, either all widths are swept or none.
    """
    groups = str(settings.get("weight_groups", ""))
    widths = {settings[key] for key in WIDTHS if settings.get(key)}
    if groups.count(groups[:1]) > 1 and widths:
        return (ALL_WIDTHS, *widths) if len(widths) == 1 else ("max_steps", settings.get("max_steps"))
    key = next((key for key in (BASE, REASONER) if settings.get(key)), "max_steps")
    return key, settings.get(key)


def _typed(folder: Path) -> list[str]:
    """Return the words of the command that trained a run, what python calls first; empty if not known."""
    try:
        return shlex.split(str(read_json(folder / "env.json").get("command", "")))
    except (OSError, ValueError):
        return []


def _kept(words: Sequence[str], settings: Mapping[str, Any], others: Sequence[str]) -> Iterator[str]:
    """Yield the words KEY=VALUE of a command, but for some keys; of a swept one the cell's own value."""
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key in others or word == "controls=none":  # a gain needs controls
            continue
        parts = _parts(text)
        if len(parts) > 1 and key in settings:
            own = spelled(settings[key])
            text = next((part for part in parts if own in (part, "".join(_parts(part.strip("[]"))))), own)
        yield f"{key}={text}"


def _parts(text: str) -> list[str]:
    """Return what commas part, but for those in brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        quote = "" if letter == quote else quote or (letter if letter in "'\"" else "")
        depth += (letter in "[({") - (letter in "])}") if not quote else 0
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
