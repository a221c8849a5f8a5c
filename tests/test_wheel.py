"""The package as its users get it: built, installed alone, tried from another folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.test_edges import ROOT
from tests.test_house import SKIPPED
from toyqs.model.backbones.kernels import library

BUILD = (
    "import sys; from setuptools import build_meta; getattr(build_meta, f'build_{sys.argv[1]}')(sys.argv[2])"
)


def built(kind: str, source: Path, out: Path) -> Path:
    """Build a wheel or an sdist from a folder with the source, without a network; return its path."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    (file,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return file


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of the checkout."""
    source = tmp_path_factory.mktemp("a checkout") / "toyqs, a Füße"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*SKIPPED, "*.egg-info", ".*_cache"))
    return built("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return source


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that it builds."""
    return built("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_an_sdist_has_every_file_of_the_checkout(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    parts = ("analysis", "bench", "conf", "docs", "hydra_plugins", "tests", "toyqs")
    files = {file for part in parts for file in (ROOT / part).rglob("*") if file.is_file()}
    files |= {file for file in ROOT.iterdir() if file.is_file() and not file.name.startswith(".")}
    wanted = {str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts}
    assert wanted - held == set()


def test_a_wheel_has_the_files_that_it_needs_each_once(wheel: Path) -> None:
    places = {"toyqs": "toyqs", "conf": "toyqs/conf", "analysis": "toyqs/analysis"}
    places["hydra_plugins"] = "hydra_plugins"
    wanted = {
        f"{inside}/{file.relative_to(ROOT / folder)}": file.read_bytes()
        for folder, inside in places.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    held = contents(wheel)
    assert {name for name in held if ".dist-info/" not in name} == wanted.keys()
    assert {name for name in wanted if held[name] != wanted[name]} == set()


@pytest.mark.skipif(
    not any(map(shutil.which, library.COMPILERS)) or not library.suits_many_processors(),
    reason="there is no C++ compiler here, or no processor of that kind",
)
def test_a_wheel_for_one_kind_of_machine_brings_the_kernels_along(
    unpacked: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOYQS_PREBUILT", "1")
    found = built("wheel", unpacked, tmp_path)
    assert found.name == wheel.name.replace("any.whl", f"{sysconfig.get_platform().replace('-', '_')}.whl")
    (more,) = {name for name in contents(found).keys() - contents(wheel).keys()}
    with zipfile.ZipFile(found) as archive:
        archive.extractall(tmp_path)
    code = "from toyqs.model.backbones.kernels import library; print(library.description())"
    nothing = {"PATH": str(tmp_path), "PYTHONPATH": str(tmp_path), "TOYQS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=nothing, capture_output=True, text=True, check=False
    )
    assert not done.returncode and re.search(r"\d", done.stdout), done.stderr
    (tmp_path / more).unlink()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=nothing, capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("there is no C++ compiler (none of c++, g++, clang++)\n")


def test_an_editable_installation_is_a_path_to_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    """A finder would come after all paths, on which a folder toyqs without any file is a package too."""
    held = contents(built("editable", unpacked, tmp_path))
    files = {name: content for name, content in held.items() if ".dist-info/" not in name}
    assert [content.decode().strip() for content in files.values()] == [str(unpacked)]
    assert next(iter(files)).endswith(".pth")
    (names,) = (content.decode() for name, content in held.items() if name.endswith("entry_points.txt"))
    assert "toyqs = toyqs.__main__:main" in names


def test_a_fresh_installation_trains_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Use the packages of this environment, but not its toyqs, which a .pth file there would lead to."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (packages,) = tmp_path.glob("venv/lib/*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "venv/bin/python")]
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    done = subprocess.run(
        ["bash", str(ROOT / ".ci/try"), str(tmp_path / "venv/bin")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("trains, sweeps, lists, draws, and is called from Python\n")
