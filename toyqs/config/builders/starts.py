"""RunConfig -> what a run takes over from finished runs before its training begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor

from toyqs.config.builders.model import assemble
from toyqs.config.builders.reference_model import finished_weights
from toyqs.config.finished_run import settings_of
from toyqs.config.keys import STARTS
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.roles import ROLES, WeightGroups

# Setting -> the roles whose weights it hands over.
ROLES_OF: dict[str, tuple[str, ...]] = {
    "start_from": ROLES,
    "infer_pretrained_base": ("base_lm",),
    "infer_pretrained_reasoner": ("base_reasoner", "reasoner", "interpreter"),
    "infer_pretrained_base_reasoner": ROLES,
}
assert tuple(ROLES_OF) == STARTS

# Parts of a model beside its cores -> the role to which they belong; all others belong to none, but the LM
# head from which the reasoner's symbols come (`share_lm_head`).
OF_ROLE = {"thought_head": "reasoner", "interpreter": "interpreter"}


class Start(NamedTuple):
    """What one setting hands over."""

    key: str  # one of ROLES_OF
    folder: str  # of the finished run
    past: RunConfig  # its settings, resolved
    weights: dict[str, Tensor]  # all of its weights (1, ...), by their names there
    sources: dict[str, str]  # name of a weight here -> of the weight that it starts from, of equal shape
    unlike: dict[str, tuple[Size, Size]]  # name here -> both shapes without the seed axis, there and here


def starts(config: RunConfig) -> list[Start]:
    """Find what a run takes over from finished runs.

    A weight starts from the one of the same name and role there, if that has the same shape. A core belongs
    to its roles: where the runs share weights differently, it is taken from the core of the same role.

    Args:
        config: resolved.

    Returns:
        One for each setting of ROLES_OF that is given.

    Raises:
        ValueError: one line with the setting and the remedy, where a run cannot be read.
    """
    given = {key: folder for key in ROLES_OF if (folder := getattr(config, key)) is not None}
    if not given:
        return []
    with torch.device("meta"):
        shapes = {name: p.shape[1:] for name, p in assemble(config, 1).named_parameters()}
    return [_start(key, folder, config, shapes) for key, folder in given.items()]


def _start(key: str, folder: str, config: RunConfig, shapes: Mapping[str, Size]) -> Start:
    past = resolved(settings_of(folder, key))
    weights = finished_weights(folder, past, key)
    letters = {letter: there[0] for letter, there in letters_of(key, config, past).items()}
    roles = OF_ROLE | ({"head": "reasoner"} if past.share_lm_head else {})
    sources = {name: _source(name, key, letters, roles) for name in shapes}
    found = {name: source for name, source in sources.items() if source in weights}
    there = {name: weights[source].shape[1:] for name, source in found.items()}
    unlike = {name: (there[name], shapes[name]) for name in found if there[name] != shapes[name]}
    alike = {name: source for name, source in found.items() if name not in unlike}
    return Start(key, folder, past, weights, alike, unlike)


def letters_of(key: str, config: RunConfig, past: RunConfig) -> dict[str, list[str]]:
    """Find the cores from which those of a run start.

    Returns:
        Letter of a core here -> the letters there of its roles that both runs have and the setting hands
        over, each once, in the order of the roles; absent where there are none.
    """
    here, there = WeightGroups.parse(config.weight_groups), WeightGroups.parse(past.weight_groups)
    found: dict[str, dict[str, None]] = {}
    for role in ROLES_OF[key]:
        if role in config.roles_in_use and role in past.roles_in_use:
            found.setdefault(here.letter(role), {})[there.letter(role)] = None
    return {letter: list(letters) for letter, letters in found.items()}


def _source(name: str, key: str, letters: Mapping[str, str], roles: Mapping[str, str]) -> str:
    """Return the name there of the weight from which one here starts; "": from none."""
    part, _, rest = name.partition(".")
    if part == "cores":
        letter, _, rest = rest.partition(".")
        return f"cores.{letters[letter]}.{rest}" if letter in letters else ""
    role = roles.get(part)
    handed_over = ROLES_OF[key] == ROLES if role is None else role in ROLES_OF[key]
    return name if handed_over else ""


@torch.no_grad()
def take_over(config: RunConfig, model: LatentReasoner) -> dict[str, Any]:
    """Let a model start from finished runs, all of its seeds alike.

    Args:
        config: resolved.
        model: of these settings, with its initial weights; those that nothing is handed over to stay.

    Returns:
        What env.json notes of it: setting -> the run's folder, the names of the weights "taken" (of this
        run), and of those of that run which were "left"; and "new", the weights that start as without it.
        Empty where nothing is handed over.

    Raises:
        ValueError: as `starts`.
    """
    found = starts(config)
    parameters = dict(model.named_parameters())
    for each in found:
        for name, source in each.sources.items():
            parameters[name].copy_(each.weights[source])
    return noted(found, parameters) if found else {}


def noted(found: Iterable[Start], names: Iterable[str]) -> dict[str, Any]:
    """Return what `take_over` notes.

    Args:
        found: from `starts`.
        names: of all weights of the run.
    """
    note: dict[str, Any] = {}
    taken: set[str] = set()
    for each in found:
        left = each.weights.keys() - set(each.sources.values())
        note[each.key] = {"run": each.folder, "taken": sorted(each.sources), "left": sorted(left)}
        taken |= each.sources.keys()
    return note | {"new": sorted(set(names) - taken)}
