"""`python -m toyqs.evidence table`: a sweep for reading, for papers, and flattened."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pandas as pd
import pytest

from analysis import learning_curves
from tests.analysis.synthetic import LOSSES, SETTINGS, capacity_sweep, key_of, settings, spread, write
from tests.evidence.commands.planned import begin, finish, plan
from toyqs.evidence import load_cells, reasoning_gain
from toyqs.evidence.__main__ import main
from toyqs.evidence.arms import MATCHED
from toyqs.evidence.cells import write_cell
from toyqs.evidence.judging.findings import find, write_arm_table
from toyqs.evidence.tables.comparison import comparison_table
from toyqs.evidence.tables.sweep import sweep_table

WIDTHS = ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")
FORMS = ([], ["--md"], ["--latex"])
TRAIN = "python run.py runs_dir="
HOSTILE = "<b>\x1b[2J|&\\input{x}"


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["table", *words]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def runs(tmp_path: Path) -> str:
    capacity_sweep(tmp_path / "runs", seeds=range(4))
    return str(tmp_path / "runs")


@pytest.mark.parametrize("form", FORMS)
def test_a_line_for_each_cell_and_arm(runs: str, form: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, runs, "base_lm_hidden_dim=2,4", *form)
    assert max(map(len, lines)) <= 110
    cell = load_cells(runs)[2]  # by their settings' text: 16, 2, 32, ...
    assert cell.settings["base_lm_hidden_dim"] == 32
    (cell,) = (x for x in load_cells(runs) if x.settings["base_lm_hidden_dim"] == 2)
    gain = reasoning_gain(cell.arms["thinking"], cell.arms["zero_length"]).mean()
    (row,) = (x for x in lines if "length" in x and f"{gain:+.3f}" in x)
    assert row.strip("| ").split()[0] == "2" and ("\\pm" if "--latex" in form else " ± ") in row
    text = "\n".join(lines)
    assert "the same in every line: seeds 4" in text and "corrected for 2 cells" in text
    assert text.count("compute") >= 2 and "verdict" in text
    assert main(["table", runs, *form, "base_lm_hidden_dim=2,4"]) == 0, "after an option, too"
    assert capsys.readouterr().out == "\n".join([*lines, ""])


def test_csv_has_a_line_for_each_membership(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, first, second = tmp_path / "runs", settings(), settings(base_lm_hidden_dim=4)
    write(runs, first, spread(LOSSES[16], range(4), 1))
    shared = {"thinking": {0: "a", 1: "b"}, "zero_length": {0: key_of(first, "zero_length", 0)}}
    write_cell(runs, second, shared, shared)  # a run that another cell has, too; two that are not begun
    out = runs / "table.csv"
    assert main(["table", str(runs), "--csv", "-o", str(out)]) == 0
    assert not capsys.readouterr().out
    table = pd.read_csv(out)
    assert len(table) == 24 + 3 and list(table.columns[:9]) == [
        *("cell", "base_lm_hidden_dim", "arm", "seed", "key", "state", "nll", "gain", "verdict"),
    ]
    both = table[table["key"] == shared["zero_length"][0]]
    assert list(both["cell"]) == [1, 2] and list(both["base_lm_hidden_dim"]) == [4, 12]
    assert both["nll"].nunique() == 1 and both["gain"].isna().sum() == 1
    assert list(table["state"][:2]) == ["not begun"] * 2 and table["nll"][:2].isna().all()
    (cell,) = (x for x in load_cells(runs) if x.settings["base_lm_hidden_dim"] == 12)
    gain = reasoning_gain(cell.arms["thinking"], cell.arms["policy_off"])
    mine = table[(table["cell"] == 2) & (table["arm"] == "policy_off")].set_index("seed")
    pd.testing.assert_series_equal(mine["gain"], gain, check_names=False)
    assert set(table["verdict"]) == {"not judged: nothing finished to compare"} | set(mine["verdict"])
    assert "accuracy" in table and "weight_groups" not in table and "checksums" not in table


def test_an_arm_that_is_one_run_with_another_has_lines_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, chosen = tmp_path / "runs", settings()
    write(runs, chosen, {"thinking": {0: 0.5}, "zero_length": {0: 1.0}})
    keys = {arm: {0: key_of(chosen, arm, 0)} for arm in ("thinking", "zero_length")}
    write_cell(runs, chosen, keys | {"state_handed_on": keys["zero_length"]}, keys)
    table = pd.read_csv(io.StringIO("\n".join(printed(capsys, str(runs), "--csv"))))
    assert list(table["arm"]) == ["thinking", "zero_length", "state_handed_on"]
    assert list(table["gain"][1:]) == [0.5, 0.5] and table["key"][1] == table["key"][2]


def test_widths_that_grow_together_are_one_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for width in (8, 16):
        chosen = settings(**dict.fromkeys(WIDTHS, width)) | {
            "task.path": f"t{width}",
            "task.identity": f"{width}",
        }
        write(tmp_path / "runs", chosen, {"thinking": {0: 0.5}, "zero_length": {0: 1.0}})
    lines = printed(capsys, str(tmp_path / "runs"))
    assert lines[2].split()[:2] == ["base_", "task."] and "hidden" not in "\n".join(lines[:4])
    assert lines[3].split()[:3] == ["width", "path", "arm"] and "identity" not in "\n".join(lines)


def test_cells_are_numbered_where_their_settings_leave_no_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"a_setting_with_a_name_{letter}" for letter in "abcdef"]
    for value in ("x" * 30, "y" * 30):
        chosen = settings() | dict.fromkeys(names, value)
        found: dict[str, dict[int, float | None]] = {"thinking": {0: 0.5}}
        found |= {arm: {0: 1.0} for arm in ("zero_length", *MATCHED, "policy_off")}
        write(tmp_path / "runs", chosen, found, {**found, "thinking": (0, 1)})
    for form in FORMS:
        lines = printed(capsys, str(tmp_path / "runs"), *form)
        assert max(map(len, lines)) <= 110
        text = " ".join(line.removeprefix("%").strip() for line in lines)
        assert (
            text.count("a_setting_with_a_name_a=yyy") == 1 and "cell 2: a_setting_with_a_name_a=yyy" in text
        )
        assert "cell 1: too few seeds" in text.partition("verdict, by")[2]
        assert "cell 2: thinking not begun (seed 1)" in text.partition("Missing, asked")[2]


@pytest.mark.parametrize("form", [*FORMS, ["--csv"]])
def test_names_are_text(tmp_path: Path, form: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for label in (HOSTILE, "a\nb,c\x07"):
        chosen = settings() | {"task": HOSTILE, "mixing": label}
        write(tmp_path / "runs", chosen, {"thinking": {0: 0.5}, "zero_length": {0: 1.0}})
    assert main(["table", str(tmp_path / "runs"), *form]) == 0
    out = capsys.readouterr().out
    assert not {x for x in out if ord(x) < 32 and x != "\n"}
    if form == ["--md"]:
        assert "<b" not in out.partition("```")[0] and out.count("&lt;b&gt;") == 3
    if form == ["--latex"]:
        table = [line for line in out.splitlines() if not line.startswith("%")]
        assert not [line for line in table if "\\input" in line or "<" in line]
        assert out.count("\\textbackslash{}input\\{x\\}") == 2
    if form == ["--csv"]:
        assert len(pd.read_csv(io.StringIO(out))) == 4


@pytest.mark.parametrize("form", FORMS)
def test_of_what_is_not_there_nothing_is_explained(
    tmp_path: Path, form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """No seeds where none has finished, no interval where there is one seed."""
    write(tmp_path / "runs", settings(), {}, {"thinking": (0, 1), "zero_length": (0,)})
    text = "\n".join(printed(capsys, str(tmp_path / "runs"), *form))
    assert "reasoner width 24\n" in text, "the caption ends here"
    assert "±" not in text and "interval" not in text and "gain:" not in text
    write(tmp_path / "runs", settings(), {"thinking": {0: 0.5}, "zero_length": {0: 0.9}})
    text = "\n".join(printed(capsys, str(tmp_path / "runs"), *form))
    assert "±" not in text and "interval" not in text and "gain: the arm's NLL minus" in text
    (finding,) = find(load_cells(tmp_path / "runs"))
    for printed_text in (comparison_table(finding), sweep_table([finding], [])):
        assert "±: half" not in printed_text and "gain" in printed_text
    write(tmp_path / "runs", settings(), {"thinking": {1: 0.6}, "zero_length": {1: 0.8}})
    assert "interval" in "\n".join(printed(capsys, str(tmp_path / "runs"), *form))
    (finding,) = find(load_cells(tmp_path / "runs"))
    for printed_text in (comparison_table(finding), sweep_table([finding], [])):
        assert "±: half of a 95 % t-interval over seeds" in printed_text


def test_no_csv_holds_a_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the command's, nor a sweep's own, nor a figure's."""
    monkeypatch.chdir(tmp_path)
    for label in ("=cmd|' /C calc'!A0", "@x"):
        chosen = settings() | {"mixing": label, "-knob": label}
        write(Path("runs"), chosen, {"thinking": {0: 0.5}, "zero_length": {0: 1.0}})
    assert main(["table", "runs", "--csv", "-o", "table.csv"]) == 0
    findings = find(load_cells("runs"))
    write_arm_table(findings, ["mixing", "-knob"], "arms.csv")
    assert learning_curves.main(["runs", "-o", "curves.png"]) == 0
    for file in ("table.csv", "arms.csv", "curves.csv"):
        table = pd.read_csv(file)
        assert set(table["mixing"]) == {"'=cmd|' /C calc'!A0", "'@x"}, file
        assert "-knob" not in table, file
    assert {"'-knob", "gain"} <= {*pd.read_csv("table.csv")}


def test_what_is_missing_is_said_in_the_words_of_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(plan(tmp_path), "thinking", 7)
    finish(tmp_path, "zero_length", 7)
    (finish(tmp_path, "thinking", 8) / "summary.json").write_text("{")
    lines = printed(capsys, str(tmp_path))
    place = lines.index("Missing, asked for but without a row that can be read:")
    assert lines[place + 1] == "  thinking damaged (seed 8), zero_length not begun (seed 8)"


@pytest.mark.parametrize("command", ["list", "table", "report"])
def test_a_folder_without_runs_says_what_was_looked_for(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path)]) == 1
    looked_for = "no run was begun here: neither cells/*.json nor KEY/config.json is there"
    assert capsys.readouterr() == ("", f"toyqs: {tmp_path}: {looked_for}; train some: {TRAIN}{tmp_path}\n")
    begin(tmp_path, "0123")
    assert main([command, str(tmp_path / "0123")]) == 1
    assert "is the folder of one run; give the folder that it is in" in capsys.readouterr().err
    if command != "list":
        assert main([command, str(tmp_path)]) == 1
        assert "holds runs, but no cells/*.json says of which sweep" in capsys.readouterr().err


def test_refusals_are_one_line(runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for words, message, code in [
        ([runs, "base_lm_hidden=2"], "did you mean base_lm_hidden_dim?", 2),
        ([runs, "more"], "a choice is written KEY=VALUE", 2),
        ([runs, "--md", "more"], "a choice is written KEY=VALUE", 2),
        ([runs, "--md", "--pdf"], "unrecognized arguments: --pdf", 2),
        ([runs, "--md", "--csv"], "not allowed with argument", 2),
        ([], "the following arguments are required: RUNS; --help", 2),
        ([runs, "-o", str(tmp_path / "no" / "x")], "there is no folder", 2),
        ([runs, "-o", str(tmp_path / "file" / "x")], "file is a file, not a folder; give another path", 2),
        ([runs, "-o", str(tmp_path / "file" / "x" / "y")], "file is a file, not a folder; give another", 2),
        ([runs, "-o", "/dev/full"], "is a pipe or a device", 2),
    ]:
        assert main(["table", *words]) == code, words
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out


def test_several_commits_are_a_warning(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(Path(runs), SETTINGS, {"thinking": {0: 0.5}}, commit="def")
    assert main(["table", runs]) == 0
    assert "warning: these rows are of 2 commits" in capsys.readouterr().err
    assert not [name for name in os.listdir(runs) if name.endswith(".tmp")]
