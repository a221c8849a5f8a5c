"""The versions that were tested together, as requirements.lock pins them, beside those that are installed."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"


def pins(python: str | None = None) -> dict[str, Requirement]:
    """Each package that is pinned, for a Python such as 3.12.0; for the one that runs, if not given."""
    there = {} if python is None else {"python_full_version": python, "python_version": python[:4]}
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    asked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    applied = [one for one in asked if one.marker is None or one.marker.evaluate(there)]
    found = {one.name: one for one in applied}
    assert len(found) == len(applied), "two pins of one package for one Python"
    return found


@cache
def departures() -> list[str]:
    """What is installed in another version than the locked one, as readable words."""
    versions = {name: version(name) for name in pins()}
    return [
        f"{name} {versions[name]}, not {one.specifier}"
        for name, one in pins().items()
        if versions[name] and not one.specifier.contains(versions[name], prereleases=True)
    ]


def version(name: str) -> str:
    """The installed version; empty where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
