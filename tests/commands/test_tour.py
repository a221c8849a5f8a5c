"""docs/tour.ipynb runs from its first cell to its last on any folder of runs, and reads them only."""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

import nbformat
from nbclient import NotebookClient

from tests.test_edges import ROOT
from tests.test_house import MACHINE_PATHS
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence import interval, load_cells, reasoning_gain
from toyqs.experiment import run_folder
from toyqs.experiment.tracking import environment
from toyqs.sweep import main
from toyqs.thought_record import NAME

NOTEBOOK = nbformat.read(ROOT / "docs" / "tour.ipynb", 4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train tiny runs, all arms and two seeds, as outside of a checkout; return their folder."""
    folder = tmp_path_factory.mktemp("tour") / "runs"
    sizes = {"base_lm_hidden_dim": 4, "reasoner_hidden_dim": 4, "data_loader_batch_size": 4}
    given = {"max_steps": 3, "eval_sequences": 16, "seed": [0, 1], "processes": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)
        outside = environment() | {"commit": None, "dirty": None}
        patch.setattr(run_folder, "_environment", lambda: outside)  # is remembered in this process
        config = replace(RunConfig(), **sizes, **given, runs_dir=str(folder))
        assert main.main([resolved(config)]) == 0
    return folder


@pytest.fixture
def docs(runs: Path, tmp_path: Path) -> Path:
    """Return a folder beside a copy of the runs."""
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def texts(cell: Any) -> str:
    """Return what a cell printed and showed, as text."""
    return "\n".join(x.get("text") or x.get("data", {}).get("text/plain", "") for x in cell.outputs)


def test_it_runs_and_its_numbers_are_those_of_the_runs(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(docs.parent / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    before = {path: path.stat().st_mtime_ns for path in (docs.parent / "runs").rglob("*")}
    notebook = copy.deepcopy(NOTEBOOK)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys\nprint('torch' in sys.modules)"))
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(docs)}}
    ).execute()
    assert {path: path.stat().st_mtime_ns for path in (docs.parent / "runs").rglob("*")} == before
    *cells, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert texts(last).strip() == "False", "reading needs no torch"
    printed = "\n".join(map(texts, cells))
    assert printed.startswith("\n16 runs at commit not noted, ")
    (cell,) = load_cells(docs.parent / "runs")
    thinking, *controls = cell.arms
    for arm in controls:
        gain = interval(reasoning_gain(cell.arms[thinking], cell.arms[arm]))
        row = re.search(rf"^{arm} +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
        assert row and [float(x) for x in row.groups()] == pytest.approx(
            [gain.mean, gain.lower, gain.upper], abs=6e-4
        )
    for words in (
        "What thoughts stand for, the most frequent first:",
        "Where thinking gained most:",
        "p(right)",
    ):
        assert words in printed
    assert printed.count("<Figure size") == 2


def test_without_runs_or_records_its_first_cell_says_how_to_make_them(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(docs)
    exec(CODE[0].source, {})
    for path in tmp_path.glob(f"runs/*/{NAME}"):
        path.unlink()
    with pytest.raises(
        SystemExit, match=r"lacks records of thoughts: `python -m toyqs.answers record \.\./runs/\*`"
    ):
        exec(CODE[0].source, {})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "runs").rename(tmp_path / "other")
    with pytest.raises(SystemExit, match=r"holds no run that thinks: `python run.py`"):
        exec(CODE[0].source, {})


def test_its_outputs_are_there_and_name_no_machine() -> None:
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    assert all(cell.outputs for cell in CODE[1:])
    assert not any(output.output_type == "error" for cell in CODE for output in cell.outputs)
    assert not MACHINE_PATHS.search("\n".join(map(texts, CODE)))
