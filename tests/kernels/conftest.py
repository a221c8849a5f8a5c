"""Fixtures: no compiler, or a library of a small source, in a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from toyqs.model.backbones.kernels import library


@pytest.fixture
def found_anew() -> Iterator[None]:
    """Let this process look for the library again, here and after the test."""
    library._outcome.cache_clear()
    yield
    library._outcome.cache_clear()


@pytest.fixture
def without_compiler(found_anew: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the compilers away."""
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.delenv("CXX", raising=False)


@pytest.fixture
def cache(found_anew: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of libraries in an empty cache; the sources are about.cpp alone."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "about.cpp").write_bytes((library.SOURCES / "about.cpp").read_bytes())
    monkeypatch.setattr(library, "SOURCES", sources)
    monkeypatch.setenv("TOYQS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"
