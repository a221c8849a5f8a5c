"""`python -m toyqs.evidence show` and `diff`: one run, and how two differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evidence.commands.planned import KEYS, SETTINGS, begin, finish, plan
from toyqs.evidence.__main__ import main
from toyqs.evidence.cells import write_cell

RESULTS: dict[str, Any] = {
    "accuracy": 0.9375,
    "started": True,
    "train_steps": 10350,
    "flops_per_step": 5953824,
}


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    assert main([str(word) for word in words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110
    return [" ".join(line.split()) for line in lines]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return plan(tmp_path / "runs")


def test_a_run_is_shown_with_words_units_and_places(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {"changed": {"trice_samples": 8, "weight_groups": ["A", "A", "B", "C"]}, "dirty": True}
    changed["started_from"] = {"start_from": {"run": "runs/A", "taken": ["x", "y"], "left": []}, "new": ["z"]}
    changed["grad_acc_found"] = [{"step": 3, "micro_batch": x} for x in (16, 8)]
    folder = finish(
        runs, "thinking", 7, changed, trice_samples=8, info="mine", odd=1.5, nll_hard=None, **RESULTS
    )
    wider = {"zero_length": {7: folder.name}}
    write_cell(runs, SETTINGS | {"base_lm_hidden_dim": 8}, wider, wider)
    lines = printed(capsys, "show", folder)
    for line in (
        "state finished",
        "arm thinking, seed 7, of cell 1: base_lm_hidden_dim=4",
        "arm zero_length, seed 7, of cell 2: base_lm_hidden_dim=8",
        "label mine",
        "command python run.py seed=7,8 (as typed; it leaves this run as it is, with force=true it trains it",
        "not the defaults trice_samples=8 weight_groups=AABC",
        "start start_from=runs/A: 2 weights taken over, 0 left there, 1 new",
        "commit abc1234, with changes",
        "versions python 3.11.7, torch 2.13.0, numpy 2.4.6; results 3",
        "side by side 2 seeds",
        "out of memory step 3: 8 sequences at a time from then on",
        "NLL 0.500 nats per counted position nll",
        "accuracy 93.8 % accuracy",
        "started to think yes started",
        "training steps 10,350 train_steps",
        "FLOPs of a training step 5.95M flops_per_step",
        "odd 1.500",
        f"config.json {(folder / 'config.json').stat().st_size} as it was written",
    ):
        assert line in lines, line
    assert not [line for line in lines if "nll_hard" in line or "checksums" in line]
    (folder / "env.json").write_text('{"changed": {}}')
    lines = printed(capsys, "show", folder)
    assert "not the defaults nothing" in lines and "state damaged: env.json" in lines
    assert "env.json 15 damaged" in lines and "command not noted" in lines
    (folder / "config.json").unlink()
    (folder / "env.json").write_text('{"command": "run.py seed=7"}')
    lines = printed(capsys, "show", folder)
    assert "command python run.py seed=7 (as typed; it trains this run again)" in lines
    (folder / "env.json").unlink()
    lines = printed(capsys, "show", folder)
    assert "env.json – missing" in lines
    assert (
        "not the defaults not noted by the version that trained it; its config.json has all settings" in lines
    )


def test_a_run_that_failed_is_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (7, 8):
        folder = begin(runs, KEYS["thinking"][seed])
    (runs / KEYS["thinking"][7] / "log.txt").write_text("its process was killed\n")
    lines = printed(capsys, "show", folder)
    assert f"state failed: its process was killed; {KEYS['thinking'][7]}/log.txt" in lines
    assert "arm thinking, seed 8" in lines and "files" in lines


def test_two_runs_differ(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = finish(runs, "thinking", 7, information=2.5, **RESULTS)
    environment = {"torch": "2.12.0", "command": f"run.py {'x' * 90}"}
    two = finish(
        runs, "zero_length", 7, environment, nll=1.25, trice_samples=1, **RESULTS | {"accuracy": 0.5}
    )
    lines = printed(capsys, "diff", one, two)
    assert "trice_samples 4 1" in lines and not [line for line in lines if line.startswith("base_lm_hidden")]
    assert "torch 2.13.0 2.12.0" in lines and f"command b run.py {'x' * 90}" in lines
    assert "NLL 0.500 1.250 +0.750 nats per counted position" in lines
    assert "accuracy 93.8 50.0 -43.8 %" in lines and "training steps 10,350 10,350" in lines
    assert "information of a thought about its context 2.500 – nats" in lines
    text = " ".join(lines)
    assert "both have seed 7, so the difference is paired; it is of one seed, so it has no interval" in text
    other = finish(runs, "thinking", 8, information=2.5, **RESULTS)
    text = " ".join(printed(capsys, "diff", one, other))
    assert "their seeds differ (7 and 8), so the difference is not paired" in text and "seed 7 8" in text
    assert "both were made by the same command, commit and versions" in text
    begun = begin(runs, KEYS["zero_length"][8])
    assert "no results to compare: not both have finished" in printed(capsys, "diff", one, begun)


def test_settings_without_effect_are_no_difference(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where both runs note which settings are not the defaults, those alone can differ."""
    one = finish(runs, "thinking", 7, {"changed": {"trice_samples": 8}}, trice_samples=8)
    two = finish(runs, "pause", 7, {"changed": {}}, base_lm_hidden_dim=5)
    lines = printed(capsys, "diff", one, two)
    assert "trice_samples 8 4 (default)" in lines and not [x for x in lines if x.startswith("base_lm")]
    same = finish(runs, "zero_length", 7, {"changed": {"trice_samples": 8}}, trice_samples=8)
    assert "no setting differs" in printed(capsys, "diff", one, same)


def test_names_are_text(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "<b>\x1b[2J\n\x07"
    environment = {"changed": {"task": hostile}, "command": hostile, "platform": hostile}
    one = finish(runs, "thinking", 7, environment, task=hostile, info=hostile, **{hostile: 1.0})
    two = finish(runs, "thinking", 8)
    (one / f"a{hostile[4:]}").touch()
    for words in (["show", one], ["diff", one, two], ["list", runs]):
        assert main([str(word) for word in words]) == 0
        assert not {x for x in capsys.readouterr().out if ord(x) < 32 and x != "\n"}


def test_refusals_are_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in [
        (["show"], "the following arguments are required: RUN"),
        (["show", tmp_path / "no"], "no: there is no such folder; give one, runs/KEY"),
        (["show", runs], "runs: is not the folder of a run; give one, runs/KEY"),
        (["diff", runs], "the following arguments are required: RUN"),
        (["diff", runs, "more=1", "x=2"], "unrecognized arguments: x=2"),
    ]:
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out
