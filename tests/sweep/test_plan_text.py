"""plan=true and the line before a sweep: what would be trained, counted once, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sweep.test_main import ARMS, config, no_figure
from toyqs.sweep import estimate, main
from toyqs.sweep.executors.settings import RaySettings, SlurmSettings
from toyqs.sweep.plan_text import counted, duration, number, size
from toyqs.training import distributed

__all__ = ["no_figure"]


@pytest.fixture(autouse=True)
def nothing_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess instead of trying, which other tests do."""
    monkeypatch.setattr(estimate, "_tried", lambda *_: {})


def table_of(printed: str) -> dict[str, list[str]]:
    """Return the words of each line of a plan's table by its arm."""
    lines = [line.split() for line in printed.partition("\n\n")[0].splitlines()[3:]]
    return {line[0]: line[1:] for line in lines}


def test_a_plan_counts_every_run_once_and_writes_nothing(
    no_figure: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    cells = [{"policy_loss_beta": beta, "checkpoint_every": 2} for beta in (1.0, 0.1)]
    assert main.main([config(folder, plan=True, **cell) for cell in cells], sweep=True) == 0
    printed, err = capsys.readouterr()
    assert err == "" and [*tmp_path.iterdir()] == []
    table = table_of(printed)
    assert [*table] == [*ARMS, "all"]
    assert table["thinking"][:6] == ["2", "×", "4", "0", "8", "0"]
    assert table["no_reasoner"][:6] == ["2", "×", "4", "4", "4", "0"]
    assert [words[6] for name, words in table.items() if name not in ("compute_matched", "all")] == ["3"] * 7
    assert table["all"][:3] == ["28", "36", "0"]

    assert main.main([config(folder, seed=[0, 1], controls="none", **cells[1])]) == 0
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main.main([config(folder, plan=True, **cell) for cell in cells]) == 0
    table = table_of(capsys.readouterr().out)
    assert table["thinking"][3:6] == ["0", "8", "2"] and table["all"][:3] == ["28", "36", "2"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_is_finished_takes_nothing(
    no_figure: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"controls": "none", "seed": [0, 1]}
    assert main.main([config(tmp_path, **given)], sweep=True) == 0
    line = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(
        r"toyqs: 2 runs to train in 1 stack: [\d.e]+ FLOPs, under a minute of CPU time, \d+ kB", line
    )
    assert main.main([config(tmp_path, **given)], sweep=True) == 0
    out, err = capsys.readouterr()
    assert err == "toyqs: 2 of 2 runs are finished already\n" and "already" not in out
    assert main.main([config(tmp_path, plan=True, **given)]) == 0
    out = capsys.readouterr().out
    assert table_of(out)["thinking"][-2:] == ["0", "–"] and out.endswith("Nothing is left to train.\n")
    assert main.main([config(tmp_path, seed=[0, 1, 2], controls="none")], sweep=True) == 0
    assert capsys.readouterr().err.startswith(
        "toyqs: 2 of 3 runs are finished already, 1 to train in 1 stack: "
    )


@pytest.mark.parametrize("cluster", [SlurmSettings(), RaySettings()])
def test_nothing_is_submitted_and_no_time_on_the_clock_is_told(
    cluster: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "connect", lambda *_, **__: pytest.fail("it asks the cluster"))
    assert main.main([config(tmp_path / "runs", plan=True)], sweep=True, cluster=cluster) == 0
    out = capsys.readouterr().out
    assert "the longest takes 1 s" in out and "core" not in out.partition("\n\n")[2].partition("time ")[2]


@pytest.mark.parametrize("where", ["cuda", "torchrun"])
def test_a_gpu_or_other_processes_are_not_tried(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate, "_tried", lambda *_: pytest.fail("it was tried"))
    if where == "torchrun":
        monkeypatch.setattr(distributed, "ranks", lambda: 2)
    device = "cuda" if where == "cuda" else "cpu"
    settings = config(tmp_path / "runs", controls="none", device=device, plan=True)
    assert main.main([settings], cluster=SlurmSettings()) == 0
    out = capsys.readouterr().out
    assert "CPU" not in out and "FLOPs" in out and "time    not known" in out


def test_numbers_are_written_in_about_two_digits() -> None:
    assert [duration(x) for x in (0.2, 99, 100, 3599, 5999, 6000, 4263 * 3, 35900, 36100, 72000)] == [
        *("1 s", "99 s", "2 min", "60 min", "1 h 40 min", "1 h 40 min", "3 h 30 min", "10 h", "10 h", "20 h"),
    ]
    assert [size(x) for x in (0, 999, 1000, 216_000, 1.4e9, 3e13)] == [
        *("0 B", "999 B", "1.0 kB", "216 kB", "1.4 GB", "30.0 TB"),
    ]
    assert [number(x) for x in (0, 1.23e15)] == ["0", "1.2e15"]
    assert [counted(x, "run") for x in (1, 1200)] == ["1 run", "1,200 runs"]
