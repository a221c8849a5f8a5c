"""The benchmark of starting: a line of seconds for each command, and an end at the first that fails."""

from __future__ import annotations

import pytest

from bench import startup
from toyqs.files import Refusal


def test_seconds_are_those_of_all_processes_and_a_failure_is_none() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert 0.3 < startup.cpu_seconds(["-c", inner]) < 3
    assert startup.cpu_seconds(["-c", "raise SystemExit(2)"], 2) < 0.3
    with pytest.raises(Refusal, match=r"exit code 1: .*no way"):
        startup.cpu_seconds(["-c", "raise SystemExit('no way')"])


@pytest.mark.slow
def test_a_line_for_each_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(startup, "FINISHED", (*startup.TINY, "base_lm_hidden_dim=1,2", "seed=1,2"))
    assert startup.main(["--rounds", "1"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    seconds = {line[:40].rstrip(): float(line[40:]) for line in lines}
    assert [*seconds][:8] == [*startup.COMMANDS] and len(seconds) == 11
    assert seconds["toyqs --help"] < seconds["import torch"]
    assert seconds["a worker more"] < seconds["import torch"]
