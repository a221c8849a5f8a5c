"""Every command line of the research logbook, typed in bash verbatim but for words that shorten it.

Two of them by default, the others with `-m slow`; but bash splits all of them by default, into the words
that test_compose.py composes.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from tests.logbook import LINES, PATTERNS, REFUSED, RUNNING, Line, jobs
from toyqs.evidence.rows import load_rows
from toyqs.model.roles import WeightGroups

ROOT = Path(__file__).resolve().parents[2]
SHORT = "max_steps=2 data_loader_batch_size=2 eval_sequences=2 trice_samples=2 max_reasoning_len=2"
SHORTENED = {name: SHORT.replace("steps=2", "steps=1") for name in ("wide reasoner", "very wide")}
BY_DEFAULT = "own interpreter"  # values in quotes; the partition of others is in test_command_line.py
TYPED = [
    pytest.param(line, id=line.name, marks=() if line.name == BY_DEFAULT else pytest.mark.slow)
    for line in RUNNING
]


class Ran(NamedTuple):
    """The outcome of a command line."""

    code: int
    err: str
    rows: pd.DataFrame
    left: list[str]  # names in the folder where it was typed, afterwards


def typed(line: Line, folder: Path) -> Ran:
    """Type a line in bash, in an empty folder, with words at its end that shorten it."""
    folder.mkdir()
    words = f"{line.text} {SHORTENED.get(line.name, SHORT)} hydra.launcher.processes=1"
    script = f'python() {{ "$PYTHON" "$ROOT/$1" "${{@:2}}"; }}\n{words}\n'
    names = {"PYTHON": sys.executable, "ROOT": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | names,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = load_rows(folder / "runs") if (folder / "runs").is_dir() else pd.DataFrame()
    left = [path.name for path in folder.iterdir()]
    shutil.rmtree(folder)  # the weights of wide models are large
    return Ran(done.returncode, done.stderr, rows, left)


@pytest.mark.parametrize("line", TYPED)
def test_a_line_runs_as_typed(line: Line, tmp_path: Path) -> None:
    code, err, rows, left = typed(line, tmp_path / "here")
    assert code == 0, err
    assert left == ["runs"]
    assert Counter(rows[[*line.columns]].itertuples(index=False, name=None)) == Counter(line.rows)
    assert set(rows["train_steps"]) <= {1, 2} and rows["nll"].notna().all()
    notes = [text for text in err.splitlines() if "partition=" in text]
    assert notes == (
        [
            "toyqs: hydra.launcher.partition=kargo-lab: this sweep stays on this machine; "
            "add hydra/launcher=slurm to submit it"
        ]
        if "partition" in line.text
        else []
    )


def test_the_line_without_a_blank_is_one_line(tmp_path: Path) -> None:
    code, err, rows, left = typed(REFUSED, tmp_path / "here")
    assert code == 2 and rows.empty and left == []
    word = "-m+run_modifier=QuietSTaRDiscreteRunConfig"
    assert err == f"toyqs: {word}: a blank is missing; give {word.replace('+', ' +')}\n"


def test_the_lines_are_the_logbooks_own() -> None:
    """Check the file against the hash of the 19 lines as they stand in the logbook."""
    data = (ROOT / "tests" / "logbook.txt").read_bytes()
    assert len(LINES) == 19
    assert hashlib.sha256(data).hexdigest() == (
        "25d29b0a4bdd171b318e0287755c1d0dc9910930bf35f13265d746e31c715bf7"
    )


def test_bash_makes_of_every_line_the_words_that_are_composed(tmp_path: Path) -> None:
    script = "python() { printf '%s\\0' \"$@\"; echo; }\n" + "\n".join(line.text for line in LINES)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    words = [printed.split("\0")[:-1] for printed in done.stdout.splitlines()]
    assert words == [shlex.split(line.text)[1:] for line in LINES]


def test_a_line_is_as_many_rows_as_its_product() -> None:
    """Compare the table of columns with the words themselves, so that a row missing in both is found."""
    for line in RUNNING:
        seeds = 1 if "seed=" in line.text else 4
        assert len(line.rows) == seeds * len(jobs(line.text.removeprefix("python run.py -m")))
    counts = [len(line.rows) for line in RUNNING]
    assert counts == [18, 6, 3, 6, 18, 18, 2, 2, 32, 8, 8, 9, 4, 6, 6, 6, 15, 30, 30]


def test_patterns_are_canonical() -> None:
    assert {WeightGroups.parse(list(label)).label for label in PATTERNS} == set(PATTERNS)
    assert WeightGroups.parse(list("BAAA")).label == WeightGroups.parse(list("ABBB")).label == "ABBB"


@pytest.mark.parametrize(
    "quoted", ["'weight_groups=[A,A,A,A],[A,B,C,D]'", "weight_groups='[A,A,A,A],[A,B,C,D]'"]
)
@pytest.mark.parametrize(
    "bare", ["weight_groups=[A,A,A,A],[A,B,C,D]", "weight_groups=['A','A','A','A'],['A','B','C','D']"]
)
def test_the_quoted_form_is_the_same_word_in_bash(quoted: str, bare: str, tmp_path: Path) -> None:
    script = f"printf '%s\\n' {quoted} {bare}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["weight_groups=[A,A,A,A],[A,B,C,D]"] * 2
