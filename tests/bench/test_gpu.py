"""bench/gpu.sh: all its parts in small on the CPU, and what becomes of a part that fails."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import partial
from itertools import chain
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from bench import gpu, gpu_parts
from bench.gpu import Part
from bench.gpu_parts import Asked
from tests import locked, warm

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bench" / "gpu.sh"


def tried(out: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[dict[str, Any]]:
    """The rows of a trial; each has its line in the table."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device=cpu", f"--out={out}", *words])
    assert gpu.main() == 0
    lines = [
        line for line in (out / "gpu.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    found = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    assert found["torch"] == torch.__version__ and re.match(r"[0-9a-f]{40}|not known", found["commit"])
    assert len(lines) == 2 + len(found["rows"])
    for line, row in zip(lines[2:], found["rows"], strict=True):
        assert line.startswith(f"| {row['part']} | {row['what']} | ") and not line.endswith("|  |")
    return found["rows"]


def test_every_part_finds_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    started = partial(
        warm.started, loaded=("bench.gpu_transformer", "transformers.models.gpt2", "torch._dynamo")
    )
    monkeypatch.setattr(gpu, "started", started)
    # "tests" is tried below, where a test fails.
    monkeypatch.setattr(gpu, "PARTS", [part for part in gpu.PARTS if part.name != "tests"])
    rows = tried(tmp_path, monkeypatch)
    by_part = {part.name: [row for row in rows if row["part"] == part.name] for part in gpu.PARTS}
    counts = {"card": 4, "gru": 2, "graphs": 2, "optimisers": 3, "job": 1}
    counts |= {"transformer": 4, "thoughts": 10, "largest": 4}
    assert {name: len(found) for name, found in by_part.items()} == counts
    for row in chain(*by_part.values()):
        numbers = [x for x in row["values"].values() if not isinstance(x, str)]
        assert numbers and all(x > 0 for x in numbers), row
    (job,) = by_part["job"]
    assert re.fullmatch(r"No verdict\. NLL of thinking: 1\.\d+", job["values"]["note"])


ROW = "import sys\nfile = next(x[7:] for x in sys.argv if x.startswith('--rows='))\n"
ROW += """print('{"what": "a thing", "values": {"ms": 2}}', file=open(file, "a"), flush=True)\n"""


def test_a_part_that_fails_hangs_or_dies_is_a_row_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {
        "fails": ROW + "raise ValueError('no such thing')",
        "hangs": ROW + "import time\ntime.sleep(600)",
        "dies": "import os\nos.kill(os.getpid(), 11)",
        "is silent": "",
        "works": ROW,
    }
    parts = []
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program, encoding="utf-8")
        parts.append(Part(name, str(tmp_path / f"{name}.py"), 1.0 if name == "hangs" else 60.0))
    monkeypatch.setattr(gpu, "PARTS", [*parts, Part("waits", "gpu_parts.py", 0.001)])
    monkeypatch.setattr(gpu, "LEAST", 0.5)
    rows = tried(tmp_path / "out", monkeypatch)
    assert [(row["part"], row["values"].get("note", row["what"])) for row in rows] == [
        *[("fails", "a thing"), ("fails", "failed: ValueError: no such thing")],
        *[("hangs", "a thing"), ("hangs", "stopped after 1 s")],
        *[("dies", "ended by signal 11"), ("is silent", "found nothing"), ("works", "a thing")],
        ("waits", "out of time: not run"),
    ]
    logs = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))["logs"]
    assert set(logs) == {"fails"} and logs["fails"].startswith("Traceback")


def test_the_parts_that_time_is_out_for_are_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tried(tmp_path, monkeypatch, "--seconds=5")
    assert [row["part"] for row in rows] == [part.name for part in gpu.PARTS]
    assert {row["values"]["note"] for row in rows} == {"out of time: not run"}


def test_memory_that_runs_out_and_what_else_fails_are_rows(tmp_path: Path) -> None:
    asked = Asked("cpu", tmp_path / "rows", 1.0)

    def fail(error: Exception) -> Any:
        raise error

    assert not asked.measure("large", lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried")))
    assert not asked.measure("wrong", lambda: fail(ValueError("of two\nlines")))
    assert asked.measure("right", lambda: {"ms": 1.0})
    rows = [json.loads(line) for line in asked.rows.read_text(encoding="utf-8").splitlines()]
    assert [(row["what"], *row["values"].values()) for row in rows] == [
        ("large", "out of memory"),
        ("wrong", "failed: ValueError: of two lines"),
        ("right", 1.0),
    ]


def test_each_test_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests" / "gpu").mkdir(parents=True)
    program = """
        import pytest
        pytestmark = pytest.mark.gpu
        def test_a(): pass
        def test_b(): assert 1 + 1 == 3
        def test_c(): pytest.skip("not here")
    """
    (tmp_path / "tests" / "gpu" / "test_it.py").write_text(dedent(program), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n", encoding="utf-8")
    monkeypatch.setattr(gpu_parts, "ROOT", tmp_path)
    asked = Asked("cpu", tmp_path / "rows", 1.0)
    gpu_parts.tests(asked)
    first, second = [json.loads(line) for line in asked.rows.read_text(encoding="utf-8").splitlines()]
    assert first["values"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert second["what"] == "test_b" and "failure: assert (1 + 1) == 3" in second["values"]["note"]


def test_without_scipy_the_thinking_arm_is_trained_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *x: None if name == "scipy" else right(name)
    )
    asked = Asked("cpu", tmp_path / "rows", 1.0)
    gpu_parts.job(asked)
    row = json.loads(asked.rows.read_text(encoding="utf-8"))
    assert row["what"] == "the thinking arm of the default job, device=cpu, max_steps=2"
    assert re.fullmatch(r"NLL 1\.\d{3}; no verdict, for scipy is not installed", row["values"]["note"])


def test_the_verdict_is_the_one_that_is_printed() -> None:
    """Of the main job, as README shows it."""
    printed = (ROOT / "README.md").read_text(encoding="utf-8").partition("## A real text")[0]
    said = gpu_parts.verdict(printed)
    assert re.fullmatch(r"Verdict: [a-z][^.]+\. NLL of thinking: \d\.\d+ ± \d\.\d+", said)
    long = "Verdict: beats the same base, not\npause.\nThe thoughts gain.\n\nthinking   0.170 ± 0.216"
    assert gpu_parts.verdict(long) == (
        "Verdict: beats the same base, not pause. NLL of thinking: 0.170 ± 0.216"
    )


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no_such_setting"):
        gpu_parts.command("cpu", ["no_such_setting=1"], 60.0)


def said(folder: Path, *words: str, **environment: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        ["bash", str(SCRIPT), *words],
        cwd=folder,
        env=os.environ | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_in_a_line(tmp_path: Path) -> None:
    code, lines = said(tmp_path)
    assert code == 1 and len(lines) == 1 and lines[0].startswith("gpu: torch finds no CUDA device here")
    assert not list(tmp_path.iterdir())


def test_a_python_without_packages_is_refused_in_a_line(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    code, (line,) = said(tmp_path, PYTHON=str(bare), PYTHONPATH="")
    assert code == 1 and " has no torch, numpy, " in line
    code, lines = said(tmp_path, "carry", PYTHON=str(bare), PYTHONPATH="")
    assert code == 1 and lines[-1].startswith("gpu: pip could not install hydra-core==")
    assert said(tmp_path, "other") == (2, ["gpu: unknown argument: other (bash bench/gpu.sh --help)"])


def test_what_is_carried_is_locked_and_has_no_need_that_is_not_carried_or_looked_for() -> None:
    """So a new release's new needs are noticed here, not on a machine without a network."""
    (line,) = re.findall(r"^names=\((.*)\)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    carried = set(line.split())
    assert carried <= locked.pins().keys()
    needs = {need for name in carried for need in importlib.metadata.requires(name) or []}
    plain = {re.split(r"[^\w-]", need)[0].lower() for need in needs if ";" not in need}
    assert plain - carried == {"packaging", "pyyaml"}
