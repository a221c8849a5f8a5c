"""Compare the installed versions with those pinned in requirements.lock, which were tested together."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"


def pins(python: str | None = None) -> dict[str, Requirement]:
    """Return the pinned packages by name, for a Python such as 3.12.0; by default for the running one."""
    environment = {} if python is None else {"python_full_version": python, "python_version": python[:4]}
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    asked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    applied = [one for one in asked if one.marker is None or one.marker.evaluate(environment)]
    found = {one.name: one for one in applied}
    assert len(found) == len(applied), "two pins of one package for one Python"
    return found


@cache
def departures() -> list[str]:
    """List the packages installed in another version than the locked one, in words."""
    versions = {name: version(name) for name in pins()}
    return [
        f"{name} {versions[name]}, not {one.specifier}"
        for name, one in pins().items()
        if versions[name] and not one.specifier.contains(versions[name], prereleases=True)
    ]


def version(name: str) -> str:
    """Return the installed version of a package, empty where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
