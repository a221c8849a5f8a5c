"""The benchmark of executors: it runs a sweep and prints a line of positive numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import executors


@pytest.mark.slow
def test_a_line_for_a_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(executors, "SEEDS", 3)
    words = ["local", "max_steps=1", "hydra.launcher.processes=1", "--runs", "6", "--folder", str(tmp_path)]
    assert executors.main(words) == 0
    name, runs, stacks, *seconds = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, runs, stacks) == ("local", "6", "2")
    assert all(float(number) > 0 for number in seconds) and len(seconds) == 3
    assert list(tmp_path.iterdir()) == []
    assert executors.main([*words, "task.k=x"]) == 1
    assert "local: exit code 2, 0 rows: toyqs: task.k=x: takes a whole number" in capsys.readouterr().err
