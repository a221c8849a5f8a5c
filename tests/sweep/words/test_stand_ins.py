"""Commands that only print import no torch, and print the same; a refusal imports nothing that draws."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import killing, warm

RUN = str(killing.ROOT / "run.py")


def without(packages: tuple[str, ...], words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Start Python where importing any of these packages fails."""
    for name in packages:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('{name} was imported')\n")
    path = {"PYTHONPATH": os.pathsep.join([str(folder), str(killing.ROOT)])}
    return subprocess.run(
        [sys.executable, *words], env=os.environ | path, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["--cfg", "job", "task=s5", "+run_modifier=SilentSTaRRunConfig"]]
)
def test_what_is_printed_is_the_same(tmp_path: Path, words: list[str]) -> None:
    done = without(("torch", "pandas", "matplotlib", "scipy"), [RUN, *words], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert warm.started([RUN, *words], tmp_path / "warm").wait() == 0
    assert (tmp_path / "warm" / "out").read_text() == done.stdout
    assert len(done.stdout.splitlines()) > 50


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--help", "base_lr=x"], "toyqs: base_lr=x: takes a number"),
        (["--cfg", "jobs"], "toyqs: --cfg jobs: prints one of job, hydra, all; give --cfg job"),
        (["-c", "job", "task=s6"], "toyqs: task=s6: there is no such task"),
    ],
)
def test_a_mistake_is_still_one_line(tmp_path: Path, words: list[str], line: str) -> None:
    done = without(("torch",), [RUN, *words], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1, done.stderr


def test_a_plug_in_has_torch_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\n\nREWARDS = {'mine': torch.zeros(1).shape}\n")
    done = without(("torch",), [RUN, "--help", f"plugins={tmp_path / 'mine.py'}"], tmp_path)
    assert done.stderr == "torch was imported\n"


def test_a_refusal_imports_nothing_that_draws(tmp_path: Path) -> None:
    done = without(("pandas", "matplotlib", "scipy"), [RUN, "grad_acc=3"], tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("toyqs: grad_acc=3: does not divide")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "toyqs.evidence", "--help"], "Show what a folder of runs holds."),
        ([RUN, "say", "--help"], "--temperature"),
        ([RUN, "theatre", "-h"], "--against"),
    ],
)
def test_the_commands_of_finished_runs_say_what_they_are(tmp_path: Path, words: list[str], says: str) -> None:
    done = without(("torch", "matplotlib", "scipy"), words, tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and says in done.stdout
