"""A sweep whose jobs fail in all kinds of ways: the others' rows are whole, each failure is explained."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests import faulty, killing, warm
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.runs import load_folder
from toyqs.sweep import main

SEEDS = [1, 2]
SMALL = killing.SMALL | {"seed": SEEDS, "max_steps": 6}
# Width of the base -> what ends its runs, what is printed, and what the log has.
FAULTS = {
    3: ("exit", r"its process ended with exit code 3", r"exit code 3"),
    4: ("sys.exit", r"SystemExit: 4 \(faulty\.py:\d+\)", r"Traceback[\s\S]+SystemExit: 4"),
    5: (
        "raise",
        r"ValueError: a fault of two lines \(faulty\.py:\d+\)",
        r"ValueError: a fault\nof two lines",
    ),
    6: ("kill", r"its process was killed \(SIGKILL\)[^;]*", r"killed \(SIGKILL\)"),
    7: ("memory", r"MemoryError.*", r"Traceback[\s\S]+MemoryError"),
}
BLOCKED = 8  # a file is in the place of the folder of its first run
HEALTHY = (2, 9)
WIDTHS = sorted([*FAULTS, BLOCKED, *HEALTHY])


def configured(width: int, runs: Path) -> RunConfig:
    return resolved(replace(RunConfig(), **SMALL, base_lm_hidden_dim=width, runs_dir=str(runs), processes=1))


def keys(width: int) -> list[str]:
    return [run_key(configured(width, Path("runs")), seed) for seed in SEEDS]


def typed(folder: Path) -> tuple[int, list[str], Counter[str]]:
    """Run the sweep with all faults; return exit code, stderr, and how often each run was trained."""
    values = {**SMALL, "seed": "1,2", "base_lm_hidden_dim": ",".join(map(str, WIDTHS))}
    words = [f"{name}={value}" for name, value in values.items()]
    counts, faults = folder / "trained", {width: end for width, (end, _, _) in FAULTS.items()}
    command = [faulty.__file__, "-m", *words, "hydra.launcher.processes=2"]
    told = {"FAULTS": json.dumps(faults), "TRAINED": str(counts)}
    code = warm.started(command, folder, **told).wait()
    return code, (folder / "err").read_text().splitlines(), Counter(counts.read_text().split())


def test_jobs_that_fail_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / keys(BLOCKED)[0]).touch()
    code, err, trained = typed(tmp_path)
    assert code == 1, err
    assert not [line for line in err if "Traceback" in line]
    lines = [line for line in err if line.startswith("toyqs: failed: ")]
    assert len(lines) == len(FAULTS) + 1
    for width, (_, reason, logged) in FAULTS.items():
        one, two = keys(width)
        (line,) = (line for line in lines if f"seed 1 (key {one}), 2 (key {two}): " in line)
        found = re.fullmatch(rf"toyqs: failed: thinking \(.*={width}\), seed .*: {reason}; log (\S+)", line)
        assert found, line
        assert re.search(logged, (tmp_path / found[1]).read_text()), width
    (blocked,) = (line for line in lines if keys(BLOCKED)[0] in line)
    assert "FileExistsError" in blocked or "NotADirectoryError" in blocked
    states = {run.key: run.state for run in load_folder(runs).runs}
    for width, (_, reason, _) in FAULTS.items():
        for key in keys(width):
            why = states[key].why.rpartition("; ")[0]
            assert (states[key].word, bool(re.fullmatch(reason, why))) == ("failed", True), why
    assert {states[key].word for width in HEALTHY for key in keys(width)} == {"finished"}
    wanted = undisturbed(tmp_path / "whole")
    assert killing.found_in(tmp_path).rows == {
        key: wanted.rows[key] for width in HEALTHY for key in keys(width)
    }
    assert set(trained.values()) == {1}

    (runs / keys(BLOCKED)[0]).unlink()
    counts = tmp_path / "trained again"
    monkeypatch.setenv("TRAINED", str(counts))
    capsys.readouterr()
    assert main.main([configured(width, runs) for width in WIDTHS]) == 0
    again = Counter(counts.read_text().split())
    assert again == Counter(key for width in (*FAULTS, BLOCKED) for key in keys(width))
    assert "4 of 16 runs are finished already" in capsys.readouterr().out
    assert killing.differences(without_reports(tmp_path), wanted) == [], "no log of a failure is left"


def undisturbed(folder: Path) -> killing.Whole:
    """Train the same runs in this process, without faults."""
    assert main.main([configured(width, folder / "runs") for width in WIDTHS]) == 0
    return without_reports(folder)


def without_reports(folder: Path) -> killing.Whole:
    """Return what a sweep left, without the files of its cells and reports."""
    found = killing.found_in(folder)
    return found._replace(files={name for name in found.files if not name.startswith(("cells", "reports"))})
