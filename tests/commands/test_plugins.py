"""Plug-ins by the command line, from outside the checkout: a sweep in workers, then what asks its runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import lab, warm
from toyqs.answers.__main__ import main as answers
from toyqs.config.plugins import load
from toyqs.evidence.__main__ import main as evidence
from toyqs.evidence.rows import load_rows

RUN = str(lab.ROOT / "run.py")
QUICK = ("+run_modifier=Quick", "max_steps=4", "seed=1", "processes=1")  # a sweep's is one of its own


def test_one_of_each_is_swept_over_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.written(tmp_path)
    words = (
        "reward=power",
        "baseline=median",
        "mixing=film",
        "thoughts=laplace",
        "objective=reinforce,soft_best",
    )
    more = ("task=delay", "plugin.power.exponent=0.5,1", "controls=none")
    code = warm.started([RUN, "-m", *QUICK, "plugins=./lab", *more, *words], tmp_path).wait()
    assert code == 0, (tmp_path / "err").read_text()
    printed = (tmp_path / "out").read_text()
    assert "plugin.power.exponent" in printed and "soft_best" in printed

    monkeypatch.chdir(tmp_path)
    rows = load_rows("runs")
    assert sorted(rows["plugin.power.exponent"]) == [0.5, 0.5, 1.0, 1.0]
    assert set(rows["plugin.film.strength"]) == {1.0} and rows["plugins.identity"].nunique() == 1
    soft = rows[rows["objective"] == "soft_best"]
    assert set(soft["plugin.soft_best.sharpness"]) == {4.0} and set(soft["baseline"]) == {"leave_one_out"}

    load.reset()
    assert evidence(["list", "runs"]) == 0
    assert capsys.readouterr().out.count("finished") >= 4 and not load.added(), (
        "rows are read without plug-ins"
    )
    run = f"runs/{rows['key'].iloc[0]}"
    assert json.loads((tmp_path / run / "config.json").read_text())["plugins"] == ["./lab"]
    assert answers(["tokens", run, "--sequences", "4"]) == 0
    (tmp_path / "lab" / "film.py").write_text(f"raise Exception  # is not run\n{lab.FILES['film.py']}")
    load.reset()
    capsys.readouterr()
    assert answers(["tokens", run]) == 2
    line = capsys.readouterr().err
    assert run in line and "plugins=./lab: has changed: its hash was " in line and line.count("\n") == 1
    (tmp_path / "lab").rename(tmp_path / "elsewhere")
    assert answers(["tokens", run]) == 2
    line = capsys.readouterr().err
    assert run in line and "plugins=./lab: there is no such" in line and line.count("\n") == 1


def test_one_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import math\nimport nowhere\n")
    words = [sys.executable, RUN, "plugins=bad.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    line = "bad.py:2: ModuleNotFoundError: No module named 'nowhere'; mend it, or leave plugins=bad.py out"
    assert (done.returncode, done.stderr) == (2, f"toyqs: {line}\n")
