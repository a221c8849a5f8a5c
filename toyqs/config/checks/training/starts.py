"""Checks of a run that starts from finished runs, and the line that says what it takes over."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import torch

from toyqs.config.builders.model import assemble
from toyqs.config.builders.starts import ROLES_OF, Start, letters_of, noted, starts
from toyqs.config.checks.reference import check_task
from toyqs.config.contents import identities
from toyqs.config.errors import refuse, refusing, typed
from toyqs.config.finished_run import columns_of
from toyqs.config.inactive import inactive_keys
from toyqs.config.run_config import RunConfig
from toyqs.files import IDENTITY
from toyqs.model.roles import ROLES, WeightGroups

BASE, REASONER, ALL = (f"infer_pretrained_{roles}" for roles in ("base", "reasoner", "base_reasoner"))


def check_starts(config: RunConfig) -> list[str]:
    """Refuse a start from a finished run that cannot be; what a control lacks of it is no fault.

    Args:
        config: resolved and, but for this, checked.

    Returns:
        Lines that say what is handed over, and to which cores that serve other roles too.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    given = {key: value for key in ROLES_OF if (value := getattr(config, key)) is not None}
    idle = [key for key in given if set(ROLES_OF[key]).isdisjoint(config.roles_in_use)]
    notes = [f"{key} has no effect: none of its roles computes anything in this run" for key in idle]
    nothing: dict[str, Any] = dict.fromkeys(idle)
    config = replace(config, **nothing)
    given = {key: value for key, value in given.items() if key not in idle}
    if not given:
        return notes
    for key in ("start_from", ALL):
        if key in given and len(given) > 1:
            other = next(name for name in given if name != key)
            refuse(other, given[other], f"{key}={given[key]} hands over the same weights", "one of both")
    _check_sharing(config, given)
    found = refusing(lambda: starts(config))
    for each in found:
        _check_run(config, each)
        _check_weights(config, each)
    _check_positions(config, next(iter(given)))
    with torch.device("meta"):
        names = [name for name, _ in assemble(config, 1).named_parameters()]
    return notes + _notes(config, found, names)


def _check_sharing(config: RunConfig, given: Collection[str]) -> None:
    """Refuse a reasoner for a core that is base_lm's too: the plain control has one and would lack that."""
    groups, used = WeightGroups.parse(config.weight_groups), config.roles_in_use
    if REASONER not in given or "base_lm" not in used:
        return
    for role in ROLES_OF[REASONER]:
        if role in used and groups.letter(role) == groups.letter("base_lm"):
            refuse(
                REASONER,
                getattr(config, REASONER),
                f"weight_groups={groups.label}: {role} shares a core with base_lm, which this leaves out",
                f"{ALL}=RUN, or {role} another letter",
            )


def _check_run(config: RunConfig, each: Start) -> None:
    """Refuse a run whose weights mean something else here, though their shapes may be the same."""
    key, folder, past = each.key, each.folder, each.past
    refusing(lambda: check_task(f"{key}={folder}", past, config))
    then, now = _checkpoint(columns_of(folder, key)), _checkpoint(identities(config))
    if then != now:
        refuse(
            "pretrained",
            config.pretrained,
            f"{key}={folder} was trained on {_named(past.pretrained, then, now)}",
            f"pretrained={typed(past.pretrained)} or another run",
        )
    for name, there, here in zip(*_meanings(key, past), _meanings(key, config)[1], strict=True):
        if there != here:
            refuse(
                key, folder, f"its {name} is {typed(there)}, and here it is {typed(here)}", "both the same"
            )


def _checkpoint(columns: dict[str, Any]) -> Any:
    return columns.get(f"pretrained{IDENTITY}")


def _named(pretrained: str | None, then: Any, now: Any) -> str:
    if pretrained is None:
        return "no checkpoint"
    return f"pretrained={pretrained}" if now is None else f"another one, pretrained={pretrained} ({then})"


def _meanings(key: str, config: RunConfig) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return settings that say what a weight means whatever its shape is, by their names."""
    transformer, scaled = config.backbone != "gru", config.meta_token_mode == "reparameterise"
    shares = "share_lm_head" not in inactive_keys(config)
    values = {
        "backbone": config.backbone,
        "model_n_head": config.model_n_head if transformer else None,
        "lora_rank": config.lora_rank,
        "share_lm_head": config.share_lm_head if key == REASONER and shares else False,
        "sigma": config.sigma if config.symbol_kind in ("gaussian", "state") else None,
        "meta_token_scale": config.meta_token_scale if config.use_reasoner and scaled else 1.0,
    }
    return tuple(values), tuple(values.values())


def _check_weights(config: RunConfig, each: Start) -> None:
    """Refuse a run that lacks a role, shares its weights otherwise, or has a weight of another shape."""
    key, folder, past = each.key, each.folder, each.past
    here, there = (WeightGroups.parse(x.weight_groups) for x in (config, past))
    wanted = [role for role in ROLES_OF[key] if role in config.roles_in_use]
    lacking = [role for role in wanted if role not in past.roles_in_use]
    if lacking and (key != "start_from" or lacking == wanted):
        refuse(key, folder, f"that run has no {', '.join(lacking)}", "a run that has, or another of its keys")
    if key == "start_from":
        for role in wanted:
            if role in past.roles_in_use and here.letter(role) != there.letter(role):
                why = f"core {here.letter(role)} of weight_groups={here.label} is not that of {role} there, "
                refuse(
                    key, folder, f"{why}where they are {there.label}", f"{ALL}=RUN, which goes by the roles"
                )
    for letter, letters in letters_of(key, config, past).items():
        if len(letters) > 1:
            roles = [role for role in wanted if here.letter(role) == letter]
            refuse(
                key,
                folder,
                f"{', '.join(roles)} share core {letter} of weight_groups={here.label} and are cores "
                f"{', '.join(letters)} there, of which one cannot start from all",
                f"weight_groups=[{','.join(there.label)}] or a run that shares as this one does",
            )
    for name, (then, now) in each.unlike.items():
        refuse(
            key,
            folder,
            f"its {name} has the shape {tuple(then)}, and this run's has {tuple(now)}",
            "a run of the same sizes" + (f", or {BASE}=RUN for base_lm alone" if key == "start_from" else ""),
        )


def _check_positions(config: RunConfig, key: str) -> None:
    """Refuse tables of positions that are shorter in the controls, which could not take them over."""
    if config.learns_positions and config.positions_up_to is None and config.controls != "none":
        refuse(
            "positions_up_to",
            None,
            f"with {key} all arms need tables of positions of one length, that of the run they start from",
            f"positions_up_to={config.num_positions}, or controls=none",
        )


def _notes(config: RunConfig, found: Iterable[Start], names: Collection[str]) -> list[str]:
    """Return a line on each hand-over, and one on each core that serves roles which it does not name."""
    lines = []
    groups = WeightGroups.parse(config.weight_groups)
    new = set(noted(found, names)["new"])
    for each in found:
        left = noted([each], names)[each.key]["left"]
        line = f"{each.key}={each.folder}: {len(each.sources)} of {len(names)} weights are taken over: "
        line += ", ".join(_parts(each.sources, names))
        line += f"; left there: {', '.join(_parts(left, each.weights))}" if left else ""
        lines.append(line)
        for letter in letters_of(each.key, config, each.past):
            shared = [role for role in config.roles_in_use if groups.letter(role) == letter]
            given = set(ROLES_OF[each.key]).intersection(each.past.roles_in_use)
            others = [role for role in shared if role not in given]
            if others:
                lines.append(f"{each.key}: core {letter} is that of {', '.join(others)} too")
    if new:
        lines.append(f"new, as without a start: {', '.join(_parts(new, names))}")
    return lines


def _parts(some: Iterable[str], names: Iterable[str]) -> list[str]:
    """Name weights by the largest parts of the model that hold no others: cores.A, head, head.bias."""
    chosen, others = sorted(some), set(names) - set(some)

    def part(name: str) -> str:
        words = name.split(".")
        prefixes = (".".join(words[:end]) for end in range(2 if words[0] == "cores" else 1, len(words) + 1))
        return next(
            x for x in prefixes if not any(other == x or other.startswith(f"{x}.") for other in others)
        )

    return list(dict.fromkeys(map(part, chosen)))


assert ROLES_OF[ALL] == ROLES
