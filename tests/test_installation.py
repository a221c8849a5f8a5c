"""How commands are typed, in a checkout and installed; the words that one may begin with."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

import toyqs
from toyqs import installation
from toyqs.answers import __main__ as answers
from toyqs.evidence import __main__ as evidence
from toyqs.installation import VERBS, program, scripts, source

ROOT = Path(__file__).resolve().parents[1]


def commands(parser: argparse.ArgumentParser) -> set[str]:
    (action,) = (x for x in parser._actions if isinstance(x, argparse._SubParsersAction))
    return set(action.choices)


def test_the_verbs_are_those_of_the_rooms() -> None:
    for room in (answers, evidence):
        name = room.__name__.removesuffix(".__main__")
        assert commands(room._parser()) == {verb for verb, its_room in VERBS.items() if its_room == name}
    assert not VERBS.keys() & scripts().keys()
    assert scripts() == {file.stem: file for file in (ROOT / "analysis").glob("*.py")}


@pytest.mark.parametrize(
    ("called", "checkout", "spelled"),
    [
        ("run.py", True, ["python run.py", "python -m toyqs.evidence", "python analysis/budget.py"]),
        ("toyqs", True, ["toyqs", "toyqs", "toyqs budget"]),
        ("toyqs budget", True, ["toyqs", "toyqs", "toyqs budget"]),
        ("script.py", False, ["toyqs", "toyqs", "toyqs budget"]),
    ],
)
def test_commands_are_spelled_as_they_are_typed(
    called: str, checkout: bool, spelled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    if not checkout:
        monkeypatch.setattr(installation, "PACKAGE", tmp_path / "toyqs")
        (tmp_path / "analysis").symlink_to(ROOT / "analysis")
    assert [program(), program("toyqs.evidence"), program("budget")] == spelled
    assert source("keys.py") == ("toyqs/keys.py" if checkout else str(tmp_path / "toyqs/keys.py"))


def test_the_version_is_in_one_place() -> None:
    """The file for those who cite it has its own, which must be the same."""
    assert f"version: {toyqs.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert not re.search(
        r"^version = \"", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )


def type_words(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Call `python run.py` with some words in a folder."""
    command = [sys.executable, str(ROOT / "run.py"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_version_is_toyqs_s_own(tmp_path: Path) -> None:
    done = type_words("--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"toyqs {toyqs.__version__}\n", "")


def test_a_verb_is_its_room_s_command_and_a_script_is_called_by_its_name(tmp_path: Path) -> None:
    done = type_words("list", "gone", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("toyqs: gone: there is no such folder")
    done = type_words("capacity_vs_gain", "gone", "--over", "seed", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("run.py capacity_vs_gain: gone: there is no such folder")


def test_a_verb_that_there_is_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    done = type_words("repot", "runs", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "toyqs: repot: is not KEY=VALUE; did you mean report? see --help\n"


def test_the_package_shows_its_names_and_has_no_others() -> None:
    assert {"run", "run_sweep", "__version__"} <= set(dir(toyqs))
    with pytest.raises(AttributeError, match="module 'toyqs' has no attribute 'rum'"):
        toyqs.rum  # noqa: B018


def test_importing_the_package_imports_nothing_slow() -> None:
    code = "import sys, toyqs; sys.exit(not {'hydra', 'numpy', 'torch'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
