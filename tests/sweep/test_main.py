"""A command: what it trains, skips, shares between cells and reports, and what survives a failure."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.killing import TIMES
from toyqs import files
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.cells import load_cells
from toyqs.evidence.rows import is_complete, load_rows
from toyqs.experiment import run_folder
from toyqs.sweep import main, worker
from toyqs.tasks.texts.char_text import CharText
from toyqs.thought_record import NAME

ARMS = [
    *("thinking", "no_reasoner", "zero_length", "state_handed_on", "pause", "policy_off"),
    *("compute_matched", "param_matched"),
]


def config(folder: Path, **changes: object) -> RunConfig:
    small = {"max_steps": 3, "data_loader_batch_size": 4, "eval_sequences": 16, "seed": [0, 1, 2, 3]}
    widths = {"base_lm_hidden_dim": 6, "reasoner_hidden_dim": 6}
    values = {**small, **widths, "kernels": "torch", "runs_dir": str(folder), "processes": 1, **changes}
    return resolved(replace(RunConfig(), **values))


@pytest.fixture
def no_figure(monkeypatch):
    """Skip the figure, which takes longer than such short runs."""
    monkeypatch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)


def test_all_arms_then_nothing_then_only_what_is_missing(tmp_path, capsys):
    settings = config(tmp_path)
    assert main.main([settings]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    start = next(place for place, line in enumerate(lines) if line[:1] == ["thinking"])
    assert [line[0] for line in lines[start : start + 8]] == ARMS
    assert "Verdict:" in printed
    below = printed[printed.index("\nfigure ") :].strip().splitlines()
    figure, table = (Path(line.split()[1].rstrip(",")) for line in below[:2])
    assert below[3] == f"look   python -m toyqs.evidence report {shlex.quote(str(tmp_path))}"
    folders = shlex.split(" ".join(below[4:]))
    assert folders == [
        "ask",
        *("python", "-m", "toyqs.answers", "MEASURE"),
        *(str(tmp_path / run_key(settings, seed)) for seed in range(4)),
    ]
    assert max(map(len, below[4:])) <= max(110, len(f"       {folders[-1]}"))
    assert figure.read_bytes().startswith(b"\x89PNG") and table.suffix == ".csv"
    assert len(load_rows(tmp_path)) == 32

    summaries = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")}
    assert main.main([settings]) == 0
    assert "32 of 32 runs are finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in summaries} == summaries

    gone = tmp_path / run_key(settings, 2) / "summary.json"
    row = json.loads(gone.read_text())
    gone.unlink()
    assert main.main([settings]) == 0
    assert "31 of 32 runs are finished already" in capsys.readouterr().out
    again = json.loads(gone.read_text())
    for name in TIMES:
        del row[name], again[name]
    assert again == row
    changed = {path for path, time in summaries.items() if path.stat().st_mtime_ns != time}
    assert changed == {gone}


def test_the_table_comes_where_every_seed_diverged(tmp_path, capsys):
    wild = {"base_lr": 1e30, "use_scheduler": False, "clip_gradients": 0.0, "controls": "none"}
    settings = config(tmp_path, seed=[0, 1], max_steps=20, **wild)
    for _ in range(2):  # the second time nothing is left to train
        assert main.main([settings]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "Diverged: thinking, seed 0 at step 2 (nll, policy; a logit is not finite)" in printed
    rows = load_rows(tmp_path)
    assert list(rows["train_steps"]) == [2, 2] and rows["nll"].isna().all()


DAMAGED_FILES = ["config.json", "env.json", "metrics.jsonl", "model.safetensors", "summary.json", NAME]
DAMAGE = {
    "cut": lambda content: content[:20],
    "gone": lambda content: None,
    "zeros": lambda content: bytes(len(content)),
    "one digit": lambda content: content.replace(b"1", b"2", 1),
}


@pytest.mark.parametrize("name", DAMAGED_FILES)
def test_a_damaged_run_is_run_again(no_figure, tmp_path, capsys, name):
    settings = config(tmp_path, controls="none", seed=[5, 6])
    assert main.main([settings]) == 0
    key = run_key(settings, 5)
    file = tmp_path / key / name
    whole = file.read_bytes()
    for damage in DAMAGE.values():
        if (other := damage(whole)) is None:
            file.unlink()
        else:
            file.write_bytes(other)
        capsys.readouterr()
        assert main.main([settings]) == 0
        out, err = capsys.readouterr()
        gone = name == "summary.json" and other is None
        line = f"toyqs: damaged, trained again: run {key} ({name})\n"
        assert err == ("" if gone else line) and "1 of 2 runs are finished already" in out
        assert is_complete(tmp_path, key) and len(load_rows(tmp_path)) == 2
        if name not in ("env.json", "summary.json"):
            assert file.read_bytes() == whole


def test_two_texts_of_one_name_are_two_cells(no_figure, tmp_path):
    text = tmp_path / "text.txt"
    for seed, content in (
        (5, "to be or not to be "),
        (6, "to bee or not to be "),
        (7, "to be or not to be "),
    ):
        text.write_text(content * 30)
        settings = config(
            tmp_path / "runs", task=CharText(path=str(text)), controls="none", seed=seed, seq_len=8
        )
        assert main.main([settings]) == 0
    first, second = load_cells(tmp_path / "runs")
    assert sorted(list(x.arms["thinking"]["seed"]) for x in (first, second)) == [[5, 7], [6]]
    assert len(set(load_rows(tmp_path / "runs")["task.identity"])) == 2


def test_cells_that_differ_in_their_plain_controls_alone_stay_two(no_figure, tmp_path, capsys):
    for width in (4, 8):
        settings = config(tmp_path, use_base_lm=False, base_lm_hidden_dim=width, controls="fair", seed=[0])
        assert main.main([settings]) == 0
        assert f"base width {width}, reasoner width 6" in capsys.readouterr().out
    cells = {cell.settings["base_lm_hidden_dim"]: cell for cell in load_cells(tmp_path)}
    assert set(cells) == {4, 8}
    for width, cell in cells.items():
        assert list(cell.arms["no_reasoner"]["base_lm_hidden_dim"]) == [width] and not cell.missing
    first, second = (set(cell.arms["thinking"]["key"]) for cell in cells.values())
    assert first == second, "one thinking run"


def test_no_table_shows_a_setting_that_has_no_effect(no_figure, tmp_path, capsys):
    plain = config(tmp_path, use_reasoner=False, controls="none", seed=[0])
    assert main.main([plain]) == 0
    assert "base width 6, seeds 0" in capsys.readouterr().out, "no reasoner's width"
    thinking = [config(tmp_path, trice_samples=number, controls="none", seed=[0]) for number in (2, 3)]
    assert main.main([plain, *thinking]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"\ndraw   python analysis/capacity_vs_gain.py {shlex.quote(str(tmp_path))}\n")
    table, _, pairs = out.partition(" paired by\nseed:\n")
    lines = [line.split() for line in table.splitlines()]
    paired = [line.split() for line in pairs.splitlines()[3:5]]
    assert [line[0] for line in paired] == ["trice_samples=2", "trice_samples=3"]
    assert [line[-2:] for line in paired] == [["seed", "0"]] * 2, "a difference for each, over the plain run"
    start = next(place for place, line in enumerate(lines) if line[:2] == ["reasoner", "samples"])
    assert [line[:2] for line in lines[start + 2 : start + 5]] == [
        ["false", "–"],
        ["true", "2"],
        ["true", "3"],
    ]
    cells = load_cells(tmp_path)
    assert sorted(cell.settings.get("trice_samples", 0) for cell in cells) == [0, 2, 3]
    assert all("base_lm_hidden_dim" in cell.settings and "temperature" not in cell.settings for cell in cells)


def test_a_folder_of_another_user_is_one_line_and_the_table_comes(tmp_path, capsys):
    settings = config(tmp_path, controls="none", seed=5)
    assert main.main([settings]) == 0
    table = capsys.readouterr().out
    for name in ("cells", "reports"):
        shutil.rmtree(tmp_path / name)
        (tmp_path / name).touch()  # no user can write to a file as if it were a folder
    assert main.main([settings]) == 1
    out, err = capsys.readouterr()
    assert out.partition("figure")[0].split("\n", 1)[1].strip() == table.partition("figure")[0].strip()
    places = rf"{tmp_path}/cells \([\w ]+\), {tmp_path}/reports \([\w ]+\)"
    assert re.fullmatch(rf"toyqs: cannot be written to: {places}; rows and table are whole\n", err), err


def test_arms_that_are_one_run_train_once(no_figure, tmp_path, capsys):
    settings = config(tmp_path, policy_loss_beta=0.0, seed=[0, 1])
    assert main.main([settings]) == 0
    assert len(load_rows(tmp_path)) == 14
    printed = capsys.readouterr().out
    assert "\npolicy_off: one run with thinking, and shown as that\n" in printed
    assert not any(line.startswith("policy_off ") for line in printed.splitlines())
    (cell,) = load_cells(tmp_path)
    assert not cell.missing
    assert main.main([settings]) == 0
    assert "14 of 14 runs are finished already" in capsys.readouterr().out


def test_rows_of_two_commits_are_one_line(no_figure, tmp_path, capsys):
    """The tests turn such a warning into an error, as `python -W error` does."""
    settings = config(tmp_path, controls="none", seed=[0, 1])
    assert main.main([settings]) == 0
    folder = tmp_path / run_key(settings, 1)
    row = files.read_json(folder / files.ROW) | {"commit": "another"}
    del row[files.SEAL]
    files.write_json(folder / files.ROW, files.sealed(row, folder, run_folder.FILES))
    capsys.readouterr()
    assert main.main([settings]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"toyqs: {tmp_path}: rows from 2 commits; column 'commit' tells them apart\n"
    assert "thinking" in captured.out


def test_force_runs_again(no_figure, tmp_path):
    settings = config(tmp_path, controls="none", seed=5)
    assert main.main([settings]) == 0
    summary = tmp_path / run_key(settings, 5) / "summary.json"
    before = summary.stat().st_mtime_ns
    assert main.main([settings]) == 0
    assert summary.stat().st_mtime_ns == before
    assert main.main([replace(settings, force=True)]) == 0
    assert summary.stat().st_mtime_ns > before


def test_worker_processes_give_the_rows_of_one(no_figure, tmp_path):
    settings = [
        config(tmp_path / name, seed=[0, 1], processes=number) for name, number in (("one", 1), ("two", 2))
    ]
    for each in settings:
        assert main.main([each]) == 0
    one, two = (load_rows(each.runs_dir).drop(columns=list(TIMES)) for each in settings)
    assert len(one) == 16
    assert one.equals(two)


def test_a_failing_arm_is_named_and_the_others_stay(tmp_path, capsys, monkeypatch):
    settings = config(tmp_path)
    real = worker.run_stack

    def failing(config, *rest):
        if not config.max_reasoning_len and config.interpreter_start == "afresh":
            raise RuntimeError("out of luck")
        real(config, *rest)

    monkeypatch.setattr(worker, "run_stack", failing)
    assert main.main([settings]) == 1
    captured = capsys.readouterr()
    keys = [
        run_key(main.plan_cell(settings, main.cached_cost()).arms["zero_length"], seed) for seed in range(4)
    ]
    (line,) = captured.err.splitlines()[-1:]
    assert line.startswith("toyqs: failed: zero_length, seed 0 (key ") and all(key in line for key in keys)
    assert "RuntimeError: out of luck" in line and f"log {tmp_path / keys[0] / 'log.txt'}" in line
    assert "Not finished: zero_length, seed 0, 1, 2, 3." in captured.out
    assert "param_matched" in captured.out and len(load_rows(tmp_path)) == 28


def test_steps_come_from_the_task_where_none_are_given(tmp_path):
    settings = config(tmp_path, max_steps=-1, controls="none")
    assert main.plan_cell(settings, main.cached_cost()).config.max_steps == settings.task.num_steps


@pytest.mark.parametrize("reasoner", [True, False])
def test_a_run_without_controls_gets_its_table(tmp_path, capsys, reasoner):
    settings = config(tmp_path, controls="none", use_reasoner=reasoner)
    assert main.main([settings]) == 0
    printed = capsys.readouterr().out
    assert ("thinking" if reasoner else "no_reasoner") in printed
    assert "Verdict" not in printed


def test_a_folder_that_cannot_be_made_is_one_line(capsys):
    """Use a place where not even the superuser can make a folder."""
    assert main.main([config(Path("/proc/toyqs/runs"))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("toyqs: runs_dir=/proc/toyqs/runs: cannot be made (")
