"""`python -m toyqs.evidence list`: the arm, seed, cell and state of every run."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from tests.evidence.commands.planned import KEYS, SETTINGS, begin, finish, plan
from toyqs.evidence.__main__ import main
from toyqs.evidence.cells import write_cell
from toyqs.files import sealed, write_json
from toyqs.thought_record import NAME as RECORD


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a long path would be wrapped
    return plan(Path("runs"))


def listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return what is said of each run: its key -> the rest of its line."""
    assert main(["list", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110
    return {key: rest.strip() for key, _, rest in (line.partition(" ") for line in lines)}


def test_states(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(runs, "thinking", 7, nll=0.25)
    finish(runs, "thinking", 8, nll=None, diverged_at=3, diverged_parts="nll")
    write_json(finish(runs, "zero_length", 7) / "config.json", {})
    lines = listed(runs, capsys)
    assert lines["4"] == f"runs in {runs}: 1 finished, 1 diverged, 1 damaged, 1 not begun"
    words = {key: " ".join(line.split()) for key, line in lines.items()}
    assert words[KEYS["thinking"][7]] == "thinking 7 0.250 finished"
    assert words[KEYS["thinking"][8]] == "thinking 8 – diverged: at step 3 (nll)"
    assert words[KEYS["zero_length"][7]] == "zero_length 7 0.500 damaged: config.json"
    assert words["–"] == "zero_length 8 – not begun" and "pause" not in "".join(lines.values())


def test_a_failure_is_told_with_its_line_also_of_a_seed_beside_it(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arm, seed in (("thinking", 7), ("thinking", 8), ("zero_length", 7)):
        begin(runs, KEYS[arm][seed])
    log = runs / KEYS["thinking"][7] / "log.txt"
    log.write_text(
        'Traceback (most recent call last):\n  File "a/b.py", line 3, in f\nValueError: no\x1b[2J\n'
    )
    lines = listed(runs, capsys)
    for seed in (7, 8):
        why = lines[KEYS["thinking"][seed]]
        assert why.endswith(f"failed: ValueError: no\\x1b[2J (b.py:3); {KEYS['thinking'][7]}/log.txt")
    assert lines[KEYS["zero_length"][7]].endswith("unfinished")
    with log.open("a") as file:
        file.write("its process was killed (SIGKILL): by hand\n")
    assert "failed: its process was killed (SIGKILL): by hand;" in listed(runs, capsys)[KEYS["thinking"][8]]
    later = log.stat().st_mtime_ns + 1
    os.utime(runs / KEYS["thinking"][8] / "config.json", ns=(later, later))  # begun again, and interrupted
    assert listed(runs, capsys)[KEYS["thinking"][8]].endswith("unfinished")


def test_a_run_in_training_is_told_from_one_whose_process_has_died(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = KEYS["thinking"][7]
    folder = begin(runs, key)
    (folder / "owner.json").write_text(json.dumps({"host": "h", "pid": 5, "since": "today"}))
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert listed(runs, capsys)[key].endswith("running: process 5 on h, since today")
    assert listed(runs, capsys)[key].endswith("unfinished")


def test_a_run_of_several_cells_and_one_of_none(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for width in (8, 16):
        wider = {arm: {7: f"{arm}-{width}"} for arm in ("thinking", "zero_length")}
        shared = {"param_matched": {7: KEYS["thinking"][7]}}
        write_cell(runs, SETTINGS | {"base_lm_hidden_dim": width}, wider | shared, [*wider, *shared])
    finish(runs, "thinking", 7)
    finish(runs, "0123456789abcdef", 9, nll=0.125)
    assert main(["list", str(runs), str(runs)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert ["1", "base_lm_hidden_dim=4"] in [line.split() for line in out]
    places = [line.split()[1:4] for line in out if line.startswith(KEYS["thinking"][7])]
    assert places == 2 * [["thinking", "7", "1"], ["param_matched", "7", "2,"]]
    assert ["0123456789abcdef", "–", "9", "–", "0.125", "finished"] in [line.split() for line in out]


def test_a_record_that_is_gone_is_told_from_damage(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finish(runs, "thinking", 7)
    row = json.loads((folder / "summary.json").read_text())
    (folder / RECORD).write_bytes(b"thoughts")
    write_json(folder / "summary.json", sealed(row, folder, ["config.json", RECORD]))
    assert listed(runs, capsys)[folder.name].endswith("finished")
    (folder / RECORD).write_bytes(b"others")
    assert listed(runs, capsys)[folder.name].endswith(f"damaged: {RECORD}")
    (folder / RECORD).unlink()
    lines = listed(runs, capsys)
    assert lines[folder.name].endswith("record missing: python -m toyqs.answers record")
    assert lines[""].startswith(f"{folder} makes it")  # broken where it is too long
    (folder / "config.json").unlink()
    assert listed(runs, capsys)[folder.name].endswith(f"damaged: config.json, {RECORD}")


def test_choices_keep_the_runs_of_their_cells(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wider = {arm: {7: f"{arm}-8"} for arm in ("thinking", "zero_length")}
    shared = {"param_matched": {7: KEYS["thinking"][7]}}
    write_cell(runs, SETTINGS | {"base_lm_hidden_dim": 8}, wider | shared, [*wider, *shared])
    finish(runs, "thinking", 7)
    finish(runs, "zero_length", 7)
    finish(runs, "0123456789abcdef", 9)
    for words in (["base_lm_hidden_dim=8", str(runs)], [str(runs), "base_lm_hidden_dim=8"]):
        assert main(["list", *words]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == f"3 runs in {runs}: 1 finished, 2 not begun".split() and ["cells:"] not in lines
        assert [KEYS["thinking"][7], "param_matched", "7", "0.500", "finished"] in lines
        assert not [line for line in lines if KEYS["zero_length"][7] in line or "0123456789abcdef" in line]


def test_refusals_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text("{")
    for words, message in [
        (["list"], "the following arguments are required: RUNS"),
        (["list", str(tmp_path / "no\x1b")], "no\\x1b: there is no such folder"),
        (["list", str(tmp_path)], "a.json: not a JSON object; move it away"),
        (["list", str(tmp_path / "cells" / "a.json")], "a.json: is a file, not a folder; give the runs_dir"),
        (["list", str(tmp_path / "cells" / "a.json" / "x")], "a.json is a file, not a folder; give"),
        (["list", "seed=3"], "no folder of runs beside seed=3; give RUNS"),
    ]:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out
