"""The jobs of a sweep: every combination of its values, but that keys which `zip` names change together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product
from typing import Any

from hydra.core.override_parser.types import Override

from toyqs.config.errors import Refusal
from toyqs.sweep.words.hydra_errors import all_keys, unknown_key
from toyqs.sweep.words.spelling import value_text

FORM = "takes keys in brackets; give zip=[KEY,KEY], or zip=[[KEY,KEY],[KEY,KEY]] for several groups"


def combinations(overrides: Sequence[Override], of_preset: Any = None) -> list[list[str]]:
    """Return a sweep's jobs, each a list of words KEY=VALUE; the first key's values change most slowly.

        a=2,4 b=8,16                ->   a=2 b=8 | a=2 b=16 | a=4 b=8 | a=4 b=16
        a=2,4 b=8,16 zip=[a,b]      ->   a=2 b=8 zip=null | a=4 b=16 zip=null

    Args:
        overrides: the sweep's words; where a key has several, the last counts.
        of_preset: what a preset gives as `zip`, or a word, which counts more.

    Raises:
        Refusal: `zip` is no list of keys and no list of such lists, or a key in it is named twice, does not
            exist, is not among the words, or has another number of values than those named with it.
    """
    typed = [x for x in overrides if x.key_or_group == "zip"]
    given = _typed(typed) if typed else of_preset
    words = {x.get_key_element(): _words(x) for x in overrides if x.key_or_group != "zip"}
    axes = {key: [(word,) for word in each] for key, each in words.items()}
    for group in _groups(given):
        keys = [key for key in words if _name(key) in group]
        _check(group, {_name(key): len(words[key]) for key in keys}, given)
        axes[keys[0]] = list(zip(*(words[key] for key in keys), strict=True))
        for key in keys[1:]:
            del axes[key]
    used_up = ["zip=null"] if typed or of_preset else []  # of a preset too, which every job has as well
    return [[*chain.from_iterable(chosen), *used_up] for chosen in product(*axes.values())]


def _words(override: Override) -> list[str]:
    swept = override.is_sweep_override()
    values = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
    return [f"{override.get_key_element()}={value}" for value in values]


def _name(key: str) -> str:
    """Return a key without the plus with which presets are typed."""
    return key.lstrip("+")


def _typed(typed: Sequence[Override]) -> Any:
    """Return the value of the word zip=VALUE."""
    if len(typed) > 1:
        given = " ".join(str(override.input_line) for override in typed)
        raise Refusal(f"{given}: zip is given once; give zip=[[KEY,KEY],[KEY,KEY]] for several groups")
    if typed[0].is_sweep_override():
        raise Refusal(f"{typed[0].input_line}: {FORM}")
    return typed[0].value()


def _groups(given: Any) -> list[list[str]]:
    """Return the groups of keys that change together."""
    if given is None or given == []:
        return []
    nested = isinstance(given, list) and all(isinstance(group, list) for group in given)
    groups = given if nested else [given]
    why = ""
    if not all(_is_group(group) for group in groups):
        why = FORM
    else:
        groups = [[_name(key) for key in group] for group in groups]
        names = list(chain.from_iterable(groups))
        if twice := [key for key in names if names.count(key) > 1]:
            why = f"{twice[0]} is named twice; name every key once"
        elif alone := [group for group in groups if len(group) == 1]:
            why = f"{alone[0][0]} alone has nothing to change with; name two keys or more"
    if why:
        raise Refusal(f"zip={value_text(given)}: {why}")
    return groups


def _is_group(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(key, str) for key in given)


def _check(group: Sequence[str], counts: dict[str, int], given: Any) -> None:
    """Refuse a group of which a key has no values, or another number of them than the others."""
    for key in group:
        if key not in counts:
            why = f"{key} is not swept over; give {key}=VALUE,VALUE as well"
            if key == "zip" or key.startswith(("hydra.", "hydra/")):
                why = f"{key} is no setting of a run"
            elif key not in {*all_keys(), "task", "run_modifier"}:
                why = str(unknown_key(key))
            raise Refusal(f"zip={value_text(given)}: {why}")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{key} has {counts[key]}" for key in group)
        raise Refusal(f"zip={value_text(given)}: needs as many values of each key; {listed}")
