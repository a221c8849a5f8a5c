"""Finding classes by their files."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from toyqs.files import named_classes

BASE = "class Base:\n    name = ''\n"
CHILD = (
    "from {package}.base import Base\nclass {title}(Base):\n    name = '{name}'\nclass Unnamed(Base): ...\n"
)


def base_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **names: str) -> type:
    """The class Base of a new package whose other files define a subclass each: file -> name."""
    package = folder / folder.name
    package.mkdir()
    (package / "base.py").write_text(BASE)
    for file, name in names.items():
        text = CHILD.format(package=package.name, title=file.title(), name=name)
        (package / f"{file}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    base: type = importlib.import_module(f"{package.name}.base").Base
    return base


def test_a_file_is_enough_and_a_class_without_a_name_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = named_classes(base_of(tmp_path, monkeypatch, second="b", first="a"))
    assert [(name, kind.__name__) for name, kind in found.items()] == [("a", "First"), ("b", "Second")]


def test_a_name_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(tmp_path, monkeypatch, first="a", second="a")
    with pytest.raises(ValueError, match=r"second\.py: the name 'a' is already that of another class"):
        named_classes(base)
