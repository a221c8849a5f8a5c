"""The settings of the launchers, `hydra.launcher.KEY`, and what is wrong with them in one line."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toyqs.config.errors import Refusal
from toyqs.files import visible

PREFIX = "hydra.launcher."
SUBMITTING = ("sbatch", "squeue", "scontrol", "srun")  # programs of Slurm that the submitting process needs


@dataclass
class LocalSettings:
    """Those of `hydra/launcher=local`; conf/hydra/launcher/local.yaml says what they mean."""

    processes: int | None = None
    partition: str | None = None


@dataclass
class SlurmSettings:
    """Those of `hydra/launcher=slurm`; conf/hydra/launcher/slurm.yaml says what they mean."""

    partition: str | None = None
    time: int = 240
    memory: str | None = None
    cpus: int = 1
    gpus: int | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    setup: list[str] = field(default_factory=list)
    array_parallelism: int = 256
    max_tasks: int = 1000
    max_timeouts: int = 20
    python: str | None = None


@dataclass
class RaySettings:
    """Those of `hydra/launcher=ray`; conf/hydra/launcher/ray.yaml says what they mean."""

    address: str | None = None
    cpus: int = 1
    gpus: float | None = None
    processes: int | None = None


CLUSTERS: dict[str, type] = {
    "slurm": SlurmSettings,
    "ray": RaySettings,
}  # launchers that train on other machines
LAUNCHERS: dict[str, type] = {"local": LocalSettings, **CLUSTERS}


class Launcher(NamedTuple):
    """A launcher by its name, `hydra/launcher=NAME`, and the settings given to it."""

    name: str
    given: Mapping[str, Any]


def launcher_of(hydra: Any) -> Launcher:
    """Return the launcher that a composed command has chosen, from Hydra's own part of its configuration."""
    given: Any = OmegaConf.to_container(hydra.launcher, resolve=True)
    given.pop("_target_", None)
    return Launcher(hydra.runtime.choices["hydra/launcher"], given)


def checked(launcher: Launcher) -> Any:
    """Return a launcher's settings, an object of its class in LAUNCHERS; None for a launcher not of ours.

    Raises:
        Refusal: one line on an unknown key, a wrong type, a value out of its range, or what is missing here.
    """
    if (kind := LAUNCHERS.get(launcher.name)) is None:
        return None
    for name, value in launcher.given.items():
        if name not in {x.name for x in fields(kind)}:
            raise unknown_launcher_key(f"{PREFIX}{name}")
        if any(
            visible(word) != word
            for word in (value if isinstance(value, list) else [value])
            if _is_text(word)
        ):
            raise Refusal(f"{PREFIX}{name}: holds a character that cannot be shown; give it without")
    try:
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), dict(launcher.given)))
    except OmegaConfBaseException as error:
        name = str(error.full_key).partition("[")[0]
        annotation = next(str(x.type) for x in fields(kind) if x.name == name)
        takes = {"i": "a whole number", "f": "a number", "l": "a list of words"}.get(annotation[0], "a word")
        given = launcher.given.get(name)
        raise Refusal(
            f"{PREFIX}{name}={given}: takes {takes}; see conf/hydra/launcher/{launcher.name}.yaml"
        ) from error
    for x in fields(kind):
        _check_number(x.name, getattr(settings, x.name))
    if launcher.name == "slurm":
        _require_slurm()
    if launcher.name == "ray" and find_spec("ray") is None:
        raise Refusal("hydra/launcher=ray: needs the package ray; give pip install 'toyqs[ray]'")
    return settings


def _check_number(name: str, value: Any) -> None:
    """Refuse a number out of its range."""
    least = 0 if name in ("gpus", "max_timeouts", "processes") else 1
    if isinstance(value, int | float) and not value >= least:
        raise Refusal(f"{PREFIX}{name}={value}: takes at least {least}; give {PREFIX}{name}={least}")
    if isinstance(value, float) and value > 1 and not value.is_integer():
        raise Refusal(f"{PREFIX}{name}={value}: takes a whole number or less than 1; give {PREFIX}{name}=1")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _require_slurm() -> None:
    if find_spec("submitit") is None:
        raise Refusal("hydra/launcher=slurm: needs the package submitit; give pip install 'toyqs[cluster]'")
    if missing := [name for name in SUBMITTING if shutil.which(name) is None]:
        why = f"there is no {' nor '.join(missing)} here"
        raise Refusal(f"hydra/launcher=slurm: {why}; give the command on a node that submits jobs")


def unknown_launcher_key(key: str) -> Refusal:
    """Return the refusal of a key that the chosen launcher lacks, naming the launchers that have it."""
    name = key.removeprefix(PREFIX)
    owners = [launcher for launcher, kind in LAUNCHERS.items() if name in {x.name for x in fields(kind)}]
    if owners:
        return Refusal(f"{key}: is a setting of hydra/launcher={owners[0]}; give that as well")
    known = sorted({x.name for kind in LAUNCHERS.values() for x in fields(kind)})
    near = "".join(f"did you mean {PREFIX}{word}? " for word in get_close_matches(name, known, n=1))
    return Refusal(f"{key}: there is no such setting; {near}those of launchers are {', '.join(known)}")
