"""The library of native kernels: compiled once for a machine, made again where its file is damaged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.test_edges import ROOT
from toyqs.model.backbones.kernels import library
from toyqs.model.backbones.kernels.library import Unavailable

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, library.COMPILERS)), reason="there is no C++ compiler here"
)
needs_no_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def loaded_anew() -> str:
    """Load the library as a new process does; return what it says about itself."""
    library._outcome.cache_clear()
    return library.description()


def stand_in(folder: Path, script: str) -> str:
    """Write a program, a compiler's stand-in; return its path."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def why() -> str:
    """Return why there is no library."""
    library._outcome.cache_clear()
    with pytest.raises(Unavailable) as caught:
        library.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"(GCC|Clang|Apple|Debian) .*\d.*", loaded_anew())
    (file,) = cache.iterdir()
    monkeypatch.setattr(library, "_compile", lambda *_: pytest.fail("it is there already"))
    assert loaded_anew() and library.load() is library.load()
    assert list(cache.iterdir()) == [file]


def test_what_a_library_is_made_of_names_its_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another source, compiler, version, flag or processor: another file; none is taken for another."""
    changes = {
        "SOURCES": cache.parent,
        "COMPILERS": (shutil.which(library._compiler()[0]),),
        "FLAGS": (*library.FLAGS, "-Wall"),
        "_version": lambda compiler: "another version",
        "_processor": lambda: "flags : of another processor",
    }
    names = [library._made_of(library._compiler())]
    for name, other in changes.items():
        with monkeypatch.context() as changed:
            changed.setattr(library, name, other)
            names.append(library._made_of(library._compiler()))
    assert len(set(names)) == len(changes) + 1
    header = library.SOURCES / "more.h"
    for content in ("// a header\n", "// another\n"):
        header.write_text(content, encoding="utf-8")
        names.append(library._made_of(library._compiler()))
    assert len(set(names)) == len(changes) + 3


DAMAGE = {"cut": lambda x: x[: len(x) // 2], "empty": lambda x: b"", "changed": lambda x: x[:-1] + b"?"}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_made_again(cache: Path, name: str) -> None:
    loaded_anew()
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.unlink()  # this process has it in memory
    file.write_bytes(DAMAGE[name](whole))
    assert loaded_anew()
    (again,) = cache.iterdir()
    assert again.stem.endswith(library._hash(again.read_bytes()))


def test_a_file_that_cannot_be_loaded_is_passed_over(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole one of the right name, as where a folder holds nothing that may run."""
    cache.mkdir(parents=True)
    content = b"not of this machine"
    foreign = cache / f"{library._made_of(library._compiler())}-{library._hash(content)}.so"
    foreign.write_bytes(content)
    assert loaded_anew() and len([*cache.iterdir()]) == 2
    monkeypatch.setattr(library, "_compile", lambda *_: pytest.fail("it is there already"))
    assert loaded_anew()


def test_many_processes_at_once(cache: Path) -> None:
    """Each has a library, and what they leave is whole."""
    code = (
        "import sys; from pathlib import Path; from toyqs.model.backbones.kernels import library;"
        f"library.SOURCES = Path({str(library.SOURCES)!r}); print(library.description());"
        "assert 'torch' not in sys.modules"
    )

    def start(_: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout

    with ThreadPoolExecutor(6) as pool:
        said = set(pool.map(start, range(6)))
    assert said == {f"{loaded_anew()}\n"}
    assert all(file.stem.endswith(library._hash(file.read_bytes())) for file in cache.iterdir())


def test_without_a_compiler_there_is_one_line(without_compiler: None) -> None:
    assert why() == "there is no C++ compiler (none of c++, g++, clang++)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("no-such-compiler -O2", "CXX=no-such-compiler -O2 names a compiler that is not there"),
        ("'", "CXX=' is no command: No closing quotation"),
    ],
)
def test_a_compiler_that_is_named_must_be_there(
    cache: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.setenv("CXX", given)
    assert why() == said


def test_a_compiler_that_fails_says_why_in_a_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", stand_in(tmp_path, "echo 'You have not agreed to the licence.' >&2; exit 69"))
    assert why().endswith("compiler --version fails: You have not agreed to the licence.")
    monkeypatch.delenv("CXX")
    (library.SOURCES / "wrong.cpp").write_text("int f( {\n", encoding="utf-8")
    assert re.match(r"\S+ fails: .*wrong.cpp:1:\d+: error: ", why())
    assert not cache.exists()


def test_a_compiler_that_knows_no_native_processor(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = shutil.which(library._compiler()[0])
    picky = f'case "$*" in *{library.FOR_THIS_PROCESSOR}*) exit 1;; esac; echo >>"$0.calls"; exec {real} "$@"'
    monkeypatch.setenv("CXX", f"{stand_in(tmp_path, picky)} -O2")
    assert loaded_anew()
    assert len((tmp_path / "compiler.calls").read_text().splitlines()) == 2, "--version, and the second try"


def test_without_a_folder_to_write_to_it_is_compiled_for_this_process(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache.parent.write_text("a file, not a folder", encoding="utf-8")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert loaded_anew()
    assert [*scratch.iterdir()] == [] and cache.parent.is_file()


@needs_no_root
def test_a_cache_of_another_user(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o555)
    assert loaded_anew()
    assert [*cache.iterdir()] == []
