"""The quick mode of both sweeps: the path from command line to figures, as docs/sweeps.md shows it."""

from __future__ import annotations

import csv
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
WIDTHS = "python run.py -m +run_modifier=Quick base_lm_hidden_dim=2,4,8,16,32,64 seed=7,8"
PATTERNS = "python run.py -m '+run_modifier=[Quick,AllWeightGroups]' policy_loss_beta=1,0.1 seed=7,8"
FIGURES = {
    WIDTHS: ["capacity_vs_gain", "learning_curves"],
    PATTERNS: ["weight_groups"],
}


def typed(line: str, folder: Path) -> str:
    """Run a command line in a folder; return what it prints."""
    _, program, *words = shlex.split(line)
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("sweep", "values", "cells", "arms"),
    [
        (WIDTHS, "2,8", 2, 16),
        pytest.param(WIDTHS, "2,4,8,16,32,64", 6, 48, marks=pytest.mark.slow),
        pytest.param(PATTERNS, "1,0.1", 30, 240, marks=pytest.mark.slow),
    ],
)
def test_from_the_command_line_to_the_figure(
    sweep: str, values: str, cells: int, arms: int, tmp_path: Path
) -> None:
    """Run the lines as docs/sweeps.md has them, by default of fewer values."""
    assert f"\n{sweep}\n" in PAGE
    assert f"{cells} cells: rev_prog" in typed(re.sub(r"=[\d.,]+(?= seed)", f"={values}", sweep), tmp_path)
    for name in FIGURES[sweep]:
        line = f"python analysis/{name}.py runs -o {name}.png"
        assert f"\n{line}\n" in PAGE
        assert "Missing: nothing that was asked for." in typed(line, tmp_path)
        png = (tmp_path / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG") and struct.unpack(">I", png[16:20]) == (2400,)
        rows = list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
        cell = ("base_lm_hidden_dim", "weight_groups", "policy_loss_beta", "arm")
        assert len({tuple(row.get(name) for name in cell) for row in rows}) == arms
