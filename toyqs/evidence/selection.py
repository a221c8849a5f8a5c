"""The choice of a folder's cells for a figure, and their names."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from toyqs.evidence.cells import Cell
from toyqs.evidence.text import spans, spelled, task_words
from toyqs.files import IDENTITY, Refusal

BASE = "base_lm_hidden_dim"
REASONER, INTERPRETER = "reasoner_hidden_dim", "interpreter_hidden_dim"
# Settings of which one may be a fixed multiple of another: all widths grow together, the loss takes all K.
TOGETHER = ((BASE, REASONER, INTERPRETER), ("trice_samples", "train_nll_num"))
WIDTHS = TOGETHER[0]
# No effect where policy_loss_beta is 0, and in older notes of cells all the same.
POLICY_KEYS = ("reward", "baseline", "advantage_scale")
MOST_VALUES = 8  # of a setting that are listed in one line


def choose(cells: Sequence[Cell], words: Iterable[str]) -> list[Cell]:
    """Return the cells that have every setting asked for.

    Args:
        cells: of a folder.
        words: each KEY=VALUE or KEY=VALUE,VALUE; None, True and False are written null, true, false.

    Raises:
        Refusal: a word is not KEY=VALUE, or no cell has it.
    """
    chosen = list(cells)
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise Refusal(f"{word}: a choice is written KEY=VALUE, such as {BASE}=4")
        values = _values(chosen, name)
        if not any(name in cell.settings for cell in chosen):
            near = difflib.get_close_matches(name, {key for cell in cells for key in cell.settings}, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Refusal(f"{word}: the cells have no such setting{hint}")
        wanted = {text} if text in values else {_respelled(part) for part in text.split(",")}
        if lacking := sorted(wanted - set(values)):
            raise Refusal(f"{name}={','.join(lacking)}: no such cell; there is {name}={_listed(values)}")
        chosen = [cell for cell in _having(chosen, name) if spelled(cell.settings.get(name)) in wanted]
    return chosen


def _respelled(text: str) -> str:
    try:
        return spelled(float(text))
    except ValueError:
        return text.lower() if text.lower() in ("true", "false", "null") else text


def _values(cells: Iterable[Cell], name: str) -> dict[str, Any]:
    """Return spelling -> value of a setting in the cells that have it, ascending by value."""
    values = {spelled(value): value for cell in _having(cells, name) for value in [cell.settings.get(name)]}
    return dict(sorted(values.items(), key=lambda item: order(item[1])))


def _having(cells: Iterable[Cell], name: str) -> list[Cell]:
    """Return the cells in which a setting has an effect; a hash of files that a cell lacks is null there."""
    return [cell for cell in cells if name in cell.settings or name.endswith(IDENTITY)]


def _listed(values: Iterable[str]) -> str:
    values = list(values)
    more = [f"… ({len(values)} in all)"] if len(values) > MOST_VALUES else []
    return ",".join([*values[:MOST_VALUES], *more])


def differing(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Return the settings with several values -> their spellings, ascending; the label `info` is left out."""
    names = dict.fromkeys(name for cell in cells for name in cell.settings if name != "info")
    values = {name: list(_values(cells, name)) for name in names}
    return {name: spellings for name, spellings in values.items() if len(spellings) > 1}


def telling_apart(cells: Sequence[Cell], first: Sequence[str]) -> list[str]:
    """Return a few settings whose values tell all cells apart, those of `first` before others."""
    names = differing(cells)
    keys: list[str] = []
    places = 1
    for name in [*(name for name in first if name in names), *(name for name in names if name not in first)]:
        more = len({place_of(cell, [*keys, name]) for cell in cells})
        if more > places:
            keys, places = [*keys, name], more
    return keys


def columns_of(cells: Sequence[Cell], first: Sequence[str] = WIDTHS) -> list[str]:
    """Return the settings that a table of cells has columns for: all that differ, but for what goes without.

    Of settings that are one a fixed multiple of the other, such as all widths, the first is enough; so is
    a file's path where it tells its cells apart as the hash of its content does.

    Args:
        cells: of the table.
        first: settings that stand before the others.
    """
    names = differing(cells)
    keys: list[str] = []
    for name in [*(name for name in first if name in names), *(name for name in names if name not in first)]:
        if not any(_follows(cells, name, key) for key in keys):
            keys.append(name)
    for name in [name for name in keys if name.endswith(IDENTITY)]:
        if _tells_apart(cells, others := [key for key in keys if key != name], keys):
            keys = others
    return keys if _tells_apart(cells, keys, list(names)) else list(names)


def _follows(cells: Sequence[Cell], name: str, other: str) -> bool:
    """Tell whether a setting is a fixed multiple of another in all cells that have it."""
    having = [cell for cell in cells if name in cell.settings]
    return all(other in cell.settings for cell in having) and _multiple(having, name, other) is not None


def _tells_apart(cells: Sequence[Cell], keys: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether some settings tell as many cells apart as others do."""
    places = [{place_of(cell, names) for cell in cells} for names in (keys, others)]
    return len(places[0]) == len(places[1])


def thinking_cells(runs: Path, cells: Sequence[Cell], or_plain: bool = False) -> list[Cell]:
    """Return the cells of thinking runs; plain models in the same folder are their controls at most.

    Args:
        runs: the folder, for the message.
        cells: of the folder.
        or_plain: where no run thinks, return the plain models.

    Raises:
        Refusal: there are none, or none of their runs has finished.
    """
    chosen = [cell for cell in cells if cell.settings.get("use_reasoner", True)]
    if not chosen and not or_plain:
        raise Refusal(f"{runs}: plain models only (use_reasoner=false): no thinking to compare with them", 1)
    chosen = chosen or list(cells)
    if all(frame.empty for cell in chosen for frame in cell.arms.values()):
        raise Refusal(f"{runs}: nothing has finished yet; cells begun: {len(chosen)}", 1)
    return chosen


def one_per_place(runs: Path, cells: Sequence[Cell], keys: Sequence[str], more: str = "") -> list[Cell]:
    """Return the cells in the order of the settings that the figure shows, which must tell them apart.

    A width may be a fixed multiple of another that is shown, and settings of the policy loss may differ where
    its weight is 0, for they have no effect there; no other difference may be hidden.

    Args:
        runs: the folder, for the message.
        cells: of the folder.
        keys: the settings shown.
        more: what the message adds on how to show others.

    Raises:
        Refusal: other settings differ, or only some cells have them; it names them and a choice that leaves
            one cell per place.
    """
    if other := _hidden(cells, keys):
        rest, words = list(cells), []
        while hidden := _hidden(rest, keys):
            name, values = next(iter(hidden.items()))
            words.append(f"{name}={values[0]}")
            rest = choose(rest, words[-1:])
        kinds = "; ".join(f"{name}={_listed(values)}" for name, values in other.items())
        remedy = " ".join(map(shlex.quote, words))
        raise Refusal(
            f"{runs}: the cells differ in more than the figure shows{more}: {kinds}; add, say, {remedy}"
        )
    _check_versions(runs, cells, keys)
    return in_order(cells, keys)


def _check_versions(runs: Path, cells: Sequence[Cell], keys: Sequence[str]) -> None:
    """Refuse two cells at one place, of which one was planned before a setting of the other existed."""
    first: dict[str, Cell] = {}
    for cell in cells:
        other = first.setdefault(place := place_of(cell, keys), cell)
        if new := sorted(cell.settings.keys() ^ other.settings.keys()):
            word = f"{new[0]}={spelled((cell.settings | other.settings)[new[0]])}"
            raise Refusal(
                f"{runs}: two cells at one place ({place}), one of which has no {new[0]}: several versions "
                f"planned them; add, say, {shlex.quote(word)}"
            )


def order(value: Any) -> tuple[bool, float, str]:
    """Return what values of a setting are sorted by: numbers first, then words."""
    number = isinstance(value, int | float)
    return (not number, value if number else 0.0, str(value))


def in_order(cells: Sequence[Cell], keys: Sequence[str]) -> list[Cell]:
    """Return the cells by their values of some settings, ascending."""
    return sorted(cells, key=lambda cell: [order(cell.settings.get(key)) for key in keys])


def _hidden(cells: Sequence[Cell], keys: Sequence[str]) -> dict[str, list[str]]:
    """Return the settings that differ without the figure's showing it -> their spellings."""
    others = {name: values for name, values in differing(cells).items() if name not in keys}
    if "task" in others:  # the knobs of different tasks cannot be compared
        others = {name: values for name, values in others.items() if not name.startswith("task.")}
    if "policy_loss_beta" in keys and any(name in others for name in POLICY_KEYS):
        rewarded = differing([cell for cell in cells if cell.settings.get("policy_loss_beta")])
        others = {n: values for n, values in others.items() if n not in POLICY_KEYS or n in rewarded}
    return {n: values for n, values in others.items() if not any(_multiple(cells, n, key) for key in keys)}


def _multiple(cells: Sequence[Cell], name: str, other: str) -> float | None:
    """Return how many times another setting's value one is, where they go together in all cells."""
    together = any(name in group and other in group for group in TOGETHER)
    if not together or not all({name, other} <= cell.settings.keys() for cell in cells):
        return None
    ratios = {cell.settings[name] / cell.settings[other] for cell in cells}
    return ratios.pop() if len(ratios) == 1 else None


def setting_line(cells: Sequence[Cell]) -> str:
    """Return what all cells share, the task with its knobs and the roles' widths; and their seeds."""
    differ = differing(cells)
    same = {name: value for name, value in cells[0].settings.items() if name not in differ}
    parts = [task_words(same), *([f"base width {same[BASE]}"] if BASE in same else [])]
    thinks = any(cell.settings.get("use_reasoner", True) for cell in cells)
    alike = all(cell.settings.get(REASONER) == cell.settings.get(INTERPRETER) for cell in cells)
    for name, word in ((REASONER, "reasoner"), *([] if alike else [(INTERPRETER, "interpreter")])):
        if thinks and name in same:
            parts.append(f"{word} width {same[name]}")
        elif thinks:
            parts += [f"{word} {beside}" for beside in _beside(cells, name)]
    seeds = {seed for cell in cells for frame in cell.arms.values() if len(frame) for seed in frame["seed"]}
    return ", ".join([*parts, *([f"seeds {spans(seeds)}"] if seeds else [])])


def _beside(cells: Sequence[Cell], name: str) -> list[str]:
    """Return in words that a width goes together with the base's, or else with the reasoner's; or nothing."""
    for other, word in ((BASE, "base"), (REASONER, "reasoner")):
        if other != name and (ratio := _multiple(cells, name, other)):
            return [f"as wide as the {word}" if ratio == 1 else f"{ratio:.3g} × the {word}'s width"]
    return []


def place_of(cell: Cell, keys: Sequence[str]) -> str:
    """Return a cell's name as typed: "base_lm_hidden_dim=4 policy_loss_beta=1"; "" without keys."""
    return " ".join(f"{key}={spelled(cell.settings[key])}" for key in keys if key in cell.settings)


def value_of(cell: Cell, key: str) -> str:
    """Return the spelling of a cell's setting; "–" where it has none, because it has no effect there."""
    return spelled(cell.settings[key]) if key in cell.settings else "–"
