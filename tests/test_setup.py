"""setup.sh without a network: what it refuses, which versions it takes; it never takes CUDA unasked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pip
import pytest

from tests import locked

ROOT = Path(__file__).resolve().parents[1]
LOCKED = {name: next(iter(one.specifier)).version for name, one in locked.pins().items()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh copy of what set-up reads; a space in its folder's name, and beside it stand-in programs."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("setup.sh", "setup.py", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (tmp_path / "bin").mkdir()
    return folder


def stand_in(home: Path, name: str, script: str) -> Path:
    """A program of that name that the set-up finds first."""
    path = home.parent / "bin" / name
    path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def python_where(home: Path, change: str, venv: str = "") -> None:
    """A python3 whose `-c` code runs after a change of the interpreter; its -m may be another command."""
    real = f'"{sys.executable}"'
    script = f"""case $1 in -c) exec {real} -c "{change}; $2" ;; -m) {venv} ;; esac; exec {real} "$@" """
    stand_in(home, "python3", script)


def setup(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the copy from another folder, with no index to reach."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") and k != "PYTHON"}
    environment |= {"PATH": f"{home.parent / 'bin'}:{os.environ['PATH']}", "PIP_NO_INDEX": "1", **variables}
    command = ["bash", str(home / "setup.sh"), *arguments]
    return subprocess.run(
        command, cwd=home.parent, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def empty_venv(home: Path) -> None:
    """What `python3 -m venv` makes, in a tenth of the time: pip is this interpreter's.

    It fails to install toyqs itself as it would without an index, but at once.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / ".venv")], check=True)
    python = home / ".venv" / "bin" / "python"
    python.rename(python.with_name("itself"))
    python.write_text('#!/bin/bash\n[[ "$*" = *" -e "* ]] && exit 1\nexec "${0%/*}/itself" "$@"\n')
    python.chmod(0o755)
    (site_packages,) = home.glob(".venv/lib/*/site-packages")
    (site_packages / "pip").symlink_to(Path(pip.__file__).parent)


def wheel(folder: Path, name: str, requires: str = "", version: str = "2.10.0") -> None:
    """A package with nothing in it."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_help_says_how_and_does_nothing(home: Path) -> None:
    done = setup(home, "--help")
    assert done.returncode == 0 and "usage: bash setup.sh [dev]" in done.stdout
    assert not (home / ".venv").exists()


@pytest.mark.parametrize("arguments", [["prod"], ["dev", "now"], [""], ["newest", "dev"], ["dev newest"]])
def test_unknown_arguments_are_refused(home: Path, arguments: list[str]) -> None:
    done = setup(home, *arguments)
    assert done.returncode == 2 and "unknown argument" in done.stderr
    assert not (home / ".venv").exists()


def test_an_old_python_is_refused(home: Path) -> None:
    python_where(
        home, "import sys, platform; sys.version_info = (3, 9, 2); platform.python_version = lambda: '3.9.2'"
    )
    done = setup(home)
    assert done.returncode == 1 and "python3 is 3.9.2, but toyqs needs 3.11 or newer" in done.stderr
    assert done.stderr.count("\n") == 1 and not (home / ".venv").exists()


@pytest.mark.parametrize(
    ("user", "apt", "said"),
    [
        ("1000", "exit 0", "sudo apt-get install python3"),
        ("0", "exit 100", "apt-get could not install python3"),
    ],
)
def test_a_missing_venv_module_is_one_clear_line(home: Path, user: str, apt: str, said: str) -> None:
    python_where(home, "import sys; sys.modules['ensurepip'] = None")
    stand_in(home, "id", f"echo {user}")
    stand_in(home, "apt-get", apt)
    done = setup(home)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (home / ".venv").exists()


def test_root_gets_the_venv_module_by_apt(home: Path) -> None:
    calls = home.parent / "calls"
    python_where(
        home,
        f"import os, sys; os.path.exists('{calls}') or sys.modules.update(ensurepip=None)",
        venv="exit 1",
    )
    stand_in(home, "id", "echo 0")
    stand_in(home, "apt-get", f"""[ "$1" = update ] || printf '%s\\n' "$@" >'{calls}'""")
    done = setup(home)
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    assert package in calls.read_text(encoding="utf-8").split()
    assert "making .venv" in done.stdout  # it went on
    assert done.returncode == 1 and "could not make .venv" in done.stderr


@pytest.mark.parametrize(
    "gpu_packages", ["nvidia_cublas", pytest.param("cuda_toolkit", marks=pytest.mark.slow)]
)
def test_cuda_is_never_taken_where_no_gpu_answers(home: Path, gpu_packages: str) -> None:
    wheel(home.parent, gpu_packages)
    wheel(home.parent, "torch", requires=gpu_packages)
    empty_venv(home)
    stand_in(home, "nvidia-smi", "echo 'No devices were found'; exit 6")
    done = setup(home, PIP_FIND_LINKS=str(home.parent))
    assert done.returncode == 1 and "has torch only with CUDA" in done.stderr
    assert list(home.glob(".venv/lib/*/site-packages/torch*")) == []


@pytest.mark.parametrize(
    "astray", [{}, {"PIP_TARGET": "there", "PYTHONHOME": "/nowhere", "PYTHONPATH": "there"}]
)
def test_a_cpu_build_is_taken_where_no_gpu_answers(home: Path, astray: dict[str, str]) -> None:
    """Also where the environment leads pip and Python away from .venv."""
    wheel(home.parent, "torch")
    empty_venv(home)
    stand_in(home, "nvidia-smi", "exit 9")
    done = setup(home, PIP_FIND_LINKS=str(home.parent), **astray)
    assert not (home / "there").exists()
    assert "installing a CPU build, torch==2.10.0" in done.stdout
    assert list(home.glob(".venv/lib/*/site-packages/torch-2.10.0.dist-info"))


def test_a_gpu_gets_the_index_own_build_and_a_second_call_keeps_it(home: Path) -> None:
    wheel(home.parent, "nvidia_cublas")
    wheel(home.parent, "torch", requires="nvidia_cublas")
    empty_venv(home)
    stand_in(home, "nvidia-smi", "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'")
    assert "an NVIDIA GPU answers" in setup(home, PIP_FIND_LINKS=str(home.parent)).stdout
    assert list(home.glob(".venv/lib/*/site-packages/nvidia_cublas-*"))
    stand_in(home, "nvidia-smi", "exit 9")
    again = setup(home, PIP_FIND_LINKS=str(home.parent))
    assert "keeping the torch that .venv has" in again.stdout


@pytest.mark.parametrize(
    ("versions", "torch", "numpy"),
    [([], LOCKED["torch"], LOCKED["numpy"]), (["lowest"], "2.9", "1.26"), (["newest"], "2.13.9", None)],
)
def test_the_versions_are_those_that_were_asked_for(
    home: Path, versions: list[str], torch: str, numpy: str | None
) -> None:
    """Of torch here; of what comes after it, in what pip is held to."""
    for version in ("2.8", "2.9", "2.10.0", LOCKED["torch"], "2.13.9", "2.14"):
        wheel(home.parent, "torch", version=version)
    empty_venv(home)
    stand_in(home, "nvidia-smi", "exit 9")
    done = setup(home, *versions, PIP_FIND_LINKS=str(home.parent))
    assert f"installing a CPU build, torch=={torch}\n" in done.stdout
    held = (home / ".venv" / "toyqs-constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"torch==={torch}" in held and not [line for line in held if line.startswith("nvidia")]
    pins = [line.partition(" ;")[0] for line in held if line.startswith("numpy==")]
    assert (f"numpy=={numpy}" in pins) if numpy else held == [f"torch==={torch}"]


def test_a_torch_in_range_is_kept_and_newest_asks_for_a_newer_one(home: Path) -> None:
    wheel(home.parent, "torch")
    empty_venv(home)
    stand_in(home, "nvidia-smi", "exit 9")
    assert "no torch==2.9 to be had: looking" in setup(home, "lowest", PIP_FIND_LINKS=str(home.parent)).stdout
    wheel(home.parent, "torch", version="2.11.0")
    kept = setup(home, PIP_FIND_LINKS=str(home.parent)).stdout
    assert "keeping the torch that .venv has" in kept and "installing a CPU build" not in kept
    newer = setup(home, "newest", PIP_FIND_LINKS=str(home.parent)).stdout
    assert "installing a CPU build, torch==2.11.0\n" in newer
    again = setup(home, "newest", PIP_FIND_LINKS=str(home.parent)).stdout
    assert "keeping the torch that .venv has" in again


@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv" or (ROOT / ".venv").is_symlink(),
    reason="this Python is not the one that setup.sh made here",
)
def test_all_in_place_is_seen_at_once() -> None:
    stamp = ROOT / ".venv" / "toyqs-setup"
    before = stamp.stat().st_mtime_ns
    _, _, versions = stamp.read_text(encoding="utf-8").split()
    if versions == "newest":
        pytest.skip("what is newest, only the package index knows")
    for mode in ([], ["dev"]):
        words = [*mode, *([] if versions == "locked" else [versions])]
        done = subprocess.run(
            ["bash", str(ROOT / "setup.sh"), *words],
            env=os.environ | {"PYTHON": "none"},  # so that it stops where it would install
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "all is in place" in done.stdout, done.stderr
    assert stamp.stat().st_mtime_ns == before
