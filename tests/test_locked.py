"""requirements.lock pins a version in the range of every package, for every Python."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement

from tests import locked


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_every_package_that_is_asked_for_is_pinned_within_its_range(python: str) -> None:
    project = tomllib.loads(locked.LOCK.with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = locked.pins(python)
    tested = locked.LOCK.read_text(encoding="utf-8").splitlines()[1].split("--extra ")[1:]
    wanted = [line for name in tested for line in extras[name.split()[0]]]
    assert len(tested) == 6, "every extra that setup.sh installs for the tests"
    for asked in map(Requirement, project["dependencies"] + wanted):
        (pin,) = found[asked.name].specifier
        assert pin.operator == "==" and asked.specifier.contains(pin.version), asked.name


def test_the_lock_says_how_it_is_made() -> None:
    head = locked.LOCK.read_text(encoding="utf-8").splitlines()[:2]
    assert "uv pip compile --universal" in head[1] and head[1].endswith("pyproject.toml -o requirements.lock")


def test_another_version_than_the_locked_one_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    find = locked.departures.__wrapped__
    pin = str(next(iter(locked.pins()["torch"].specifier)).version)
    installed = {name: str(next(iter(one.specifier)).version) for name, one in locked.pins().items()}
    monkeypatch.setattr(locked, "version", lambda name: installed[name])
    assert find() == []
    installed |= {"torch": f"{pin}+cpu", "triton": ""}  # a CPU build, which needs no triton
    assert find() == []
    installed |= {"numpy": "1.0"}
    (line,) = find()
    assert line.startswith("numpy 1.0, not ==")
