"""The benchmark of steps: every part prints and writes its numbers, and the gate closes where one fell."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import programs, speed, step
from bench.programs import JAX, NATIVE, REFERENCE, TORCH, Gradients
from bench.step import QUICK, WHOLE, Size
from tests.test_edges import ROOT
from toyqs.sweep import step_times


@pytest.fixture(autouse=True)
def without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave JAX out, which takes seconds to compile; tests/bench/test_jax_step.py is about it."""
    right = programs.programs
    monkeypatch.setattr(speed, "programs", lambda config: [name for name in right(config) if name != JAX])
    monkeypatch.setattr(programs, "programs", speed.programs)


def test_every_part_finds_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers, figure = tmp_path / "speed.json", tmp_path / "growth.png"
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    assert speed.main(["--quick", "--rounds", "1", "--json", str(numbers), "--figure", str(figure)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("Gradients equal") == 3
    assert cores is None or os.sched_getaffinity(0) == cores
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert found["torch"] == torch.__version__ and found["commit"] and found["processor"]
    parts = found["parts"]
    assert list(parts) == list(speed.PARTS)
    names = programs.programs(QUICK.sizes[0].config)
    (row,) = parts["table"]
    assert row["size"] == "4/5 2 5 2 2" and list(row["ms"]) == names
    assert list(row["ratios"]) == names[1:] and str(round(row["ratios"][TORCH][0], 2)) in out
    first, *chunked = parts["memory"]
    assert list(first["bytes"]) == names and f"{first['bytes'][REFERENCE]:,.0f}" in out
    assert [row["run"] for row in parts["stacks"] if row["program"] == TORCH] == list(QUICK.runs)
    assert all(list(row["ms"]) == ["1", "3"] for row in parts["stacks"])
    values = [(row["axis"], row["value"]) for row in parts["growth"]]
    assert values[:4] == [("B", 2), ("B", 4), ("B", 8), ("T", 4)] and values[-1] == ("V", 28)
    assert [row.pop("chunk_positions") for row in chunked] == [0, 2] * len({TORCH, NATIVE} & {*names})
    assert all(
        x > 0 for x in _numbers([first, chunked, *(parts[name] for name in parts if name != "memory")])
    )
    assert figure.read_bytes().startswith(b"\x89PNG")


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        values = value.values() if isinstance(value, dict) else value
        return [x for each in values for x in _numbers(each)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("apart", [1e-9, math.nan])
def test_nothing_is_timed_where_gradients_differ(
    apart: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = iter([apart] + [0.0] * 99)
    monkeypatch.setattr(speed, "compare_gradients", lambda *_: {REFERENCE: Gradients(next(found), 1.0)})
    monkeypatch.setattr(speed, "timed", None)
    for words in (["table"], ["growth"], ["--gate"]):
        assert speed.main(words) == 1
        out, err = capsys.readouterr()
        assert "DIFFERENT" in out and err.endswith("so nothing was timed\n")
        found = iter([apart] + [0.0] * 99)


def test_a_difference_of_native_kernels_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = programs._gradients

    def gradients(model: Any, config: Any, batch: Any) -> Any:
        found = right(model, config, batch)
        return {name: (1.001 if config.kernels == NATIVE else 1) * each for name, each in found.items()}

    config = QUICK.sizes[0].config
    if NATIVE not in programs.programs(config):
        pytest.skip("there is no compiler")
    monkeypatch.setattr(programs, "_gradients", gradients)
    assert programs.compare_gradients(config)[NATIVE].difference > 1e-6


GATE = {Size(4, 4, 2, 4, 2, 2, 7): {TORCH: 2.0}, Size(4, 4, 2, 4, 2, 3, 7): {TORCH: 4.0}}


def gated(
    monkeypatch: pytest.MonkeyPatch, ratios: dict[int, list[float]], gate: dict[Size, dict[str, float]] = GATE
) -> tuple[int, list[int]]:
    """Close or open the gate with measured ratios, by L; return the exit code and the rounds of each try."""
    rounds: list[int] = []

    def timed(config: Any, seeds: int, names: Any, number: int, turn: float) -> dict[str, list[float]]:
        rounds.append(number)
        return {REFERENCE: [ratios[config.max_reasoning_len].pop(0)], TORCH: [1.0]}

    monkeypatch.setattr(programs, "programs", lambda config: [REFERENCE, TORCH])
    monkeypatch.setattr(speed, "programs", programs.programs)
    monkeypatch.setattr(speed, "GATE", gate)
    monkeypatch.setattr(speed, "timed", timed)
    return speed.main(["--gate"]), rounds


def test_the_gate_is_open_at_60_per_cent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gated(monkeypatch, {2: [1.21], 3: [2.41]}) == (0, [5, 5])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[:6] for line in lines] == [
        ["4/4", "2", "4", "2", "2", "torch"],
        ["4/4", "2", "4", "2", "3", "torch"],
    ]
    assert lines[0].endswith("committed 2.0") and " 1.21 (" in lines[0]


def test_what_falls_short_is_measured_once_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gated(monkeypatch, {2: [1.1, 1.3], 3: [4.0]}) == (0, [5, 15, 5])
    assert "TOO SLOW" not in capsys.readouterr().out


def test_the_gate_closes_and_says_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gated(monkeypatch, {2: [3.0], 3: [2.3, 2.39]}) == (1, [5, 5, 15])
    out, err = capsys.readouterr()
    (slow,) = [line for line in out.splitlines() if "TOO SLOW" in line]
    assert slow.startswith("4/4 2 4 2 3 ") and err.count("\n") == 1 and "GATE in bench/speed.py" in err


def test_a_step_without_a_committed_ratio_closes_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gated(monkeypatch, {2: [9.0] * 2}, {Size(4, 4, 2, 4, 2, 2, 7): {}})[0] == 1


def test_the_gate_has_all_widths_of_the_table() -> None:
    assert {size[:2] + size[4:] for size in speed.GATE} == {size[:2] + size[4:] for size in WHOLE.sizes}
    assert all(TORCH in ratios for ratios in speed.GATE.values())


def test_the_table_of_step_times_is_what_this_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The committed one has the plan's runs and stacks; what is written in its place is read."""
    copy, right = tmp_path / "step_times.py", Path(step_times.__file__).read_text(encoding="utf-8")
    copy.write_text(right, encoding="utf-8")
    assert list(WHOLE.stacks) == step_times.SEEDS
    plain = sum(not run.use_reasoner for run in WHOLE.runs.values())
    sizes = {"plain": plain, "thinking": len(WHOLE.runs) - plain}
    assert {(kind, kernels): sizes[kind] for kind in sizes for kernels in (TORCH, NATIVE)} == {
        key: len(rows) for key, rows in step_times.ROWS.items()
    }
    ms = {1: 0.5, 3: 1.25}
    rows = [
        {"run": f"{kind}, base 2", "FLOPs": flops, "program": name, "ms": ms}
        for kind, flops in (("thinking", 10_000_000), ("plain", 100_000_000), ("plain", 300))
        for name in (TORCH, NATIVE, JAX)
    ]
    monkeypatch.setitem(speed.PARTS, "stacks", lambda *_: rows)
    monkeypatch.setattr(step, "can_be_native", lambda: True)
    assert speed.main(["stacks", "--table", str(copy)]) == 0
    text = copy.read_text(encoding="utf-8")
    head, _, rest = text.partition('MEASURED = """')
    written, _, tail = rest.partition('"""')
    seeds, found = step_times.rows(written)
    times = (0.5e-3, 3.75e-3)
    assert seeds == [1, 3] and found["plain", NATIVE] == [(300.0, times), (100_000_000.0, times)]
    assert len(found) == 4 and found["thinking", TORCH] == [(10_000_000.0, times)]
    before, _, after = right.partition('MEASURED = """')
    assert head == before and tail == after.partition('"""')[2]
    monkeypatch.setattr(step, "can_be_native", lambda: False)
    assert speed.main(["stacks", "--table", str(copy)]) == 2
    out, err = capsys.readouterr()
    assert "on a machine with a C++ compiler" in err and out.count("\nstacks\n") == 1, "before it measures"
    assert copy.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tabel"], "tabel: no part; give some of table, memory, stacks, growth"),
        (["table", "--figure=x.png"], "--figure x.png: shows growth, which is not measured"),
        (["--gate", "--figure=x.png"], "--gate: has steps of its own"),
        (["--gate", "table"], "--gate: has steps of its own"),
        (["growth", "--table=x.py"], "--table x.py: shows stacks, which is not measured"),
        (["--table=x.py"], "--table: give toyqs/sweep/step_times.py"),
        (["--gate", "--table=x.py"], "--gate: has steps of its own"),
        (["--figure=x.jpg"], "--figure x.jpg: give an ending of .png"),
        (["--json=nowhere/x.json"], "--json nowhere/x.json: there is no folder nowhere"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_measured(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "compare_gradients", None)
    assert speed.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and says in err and err.count("\n") == 1


@pytest.mark.slow
def test_it_runs_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench" / "speed.py"), "--quick", "--rounds=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("equal", "torch", "reference", "S=3", "V = 28", torch.__version__):
        assert word in done.stdout
