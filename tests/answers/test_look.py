"""The command `python -m toyqs.answers look`: the dictionary of a run, and where thinking helped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import records, tiny
from tests.run_folders import written
from toyqs import thought_record
from toyqs.answers.__main__ import main
from toyqs.evidence.tables.dictionary import dictionary_text
from toyqs.evidence.tables.thoughts import sequences_text
from toyqs.files import write_json
from toyqs.tasks.group import S5


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Return the folder of a run that has no record yet."""
    folder = written(tmp_path / "runs" / "a", tiny.config(task=S5()))
    write_json(Path(folder) / "summary.json", {"key": "a", "seed": 3, "nll": 1.0})
    return folder


def test_a_record_is_printed_and_written(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, out = records.small(), tmp_path / "out.json"
    thought_record.write(run, record)
    assert main(["look", run, "--entries", "2", "--sequences", "1", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].startswith(f"{run}, seed 3: s5 ") or lines[0] == f"{run}, seed 3: s5"
    head = re.search(
        r"2 thoughts at each of 3 positions of 2 held-out sequences; NLL there (\S+) nats", printed
    )
    assert head and float(head[1]) == pytest.approx((1.0625 + 0.75 + 0.25) / 3, abs=1e-3)
    read = thought_record.read(run)
    wanted = [*dictionary_text(read, 2), "", *sequences_text(read, 1)]
    assert lines[-len(wanted) :] == wanted and max(map(len, lines[1:])) <= 110
    (found,) = json.loads(out.read_text()).values()
    assert found == [
        {"thought": "ab", "times": 3, "answers": [["y", 3]]},
        {"thought": "(empty)", "times": 1, "answers": [["x", 1]]},
        {"thought": "a", "times": 1, "answers": [["y", 1]]},
        {"thought": "bb", "times": 1, "answers": [["x", 1]]},
    ]


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        ("persist", "of the 2 tokens ahead this is about the first alone\n"),
        ("joint", "the first alone, where the row is judged by the loss of all of them together\n"),
    ],
)
def test_of_several_tokens_ahead_it_is_about_the_first(
    ahead: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny.config(task=S5(), n_tokens_ahead=2, ahead=ahead)
    folder = written(tmp_path / "runs" / "a", settings)
    write_json(Path(folder) / "summary.json", {"key": "a", "seed": 3, "nll": 1.0})
    thought_record.write(folder, records.small())
    assert main(["look", folder]) == 0
    assert said in capsys.readouterr().out.replace("\n  ", " ")


def test_vectors_are_called_by_the_nearest_tokens(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    record = records.small()
    record.arrays["nearest"] = record.arrays.pop("symbols")
    thought_record.write(run, record)
    assert main(["look", run]) == 0
    printed = capsys.readouterr().out
    assert "its symbols are vectors; each is called by the token whose embedding is nearest\n" in printed
    assert "\nab           3           y   100 %  y ×3\n" in printed


def test_several_runs_stand_one_after_another(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = written(tmp_path / "runs" / "b", tiny.config(task=S5()))
    for folder in (run, other):
        thought_record.write(folder, records.small())
    assert main(["look", run, other]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(str(tmp_path))] == [
        line for line in lines if ", seed 3: s5" in line
    ]
    assert lines.count("What thoughts stand for, the most frequent first:") == 2


def test_without_a_record_one_line_says_how_to_make_it(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message, code in [
        ([run], f"make it: python -m toyqs.answers record {run}\n", 2),
        ([run + "x"], "there is no such folder", 2),
        ([run, "--entries", "0"], "0 is out of range", 2),
        ([], "the following arguments are required: RUN", 2),
    ]:
        assert main(["look", *words]) == code
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out
    (Path(run) / thought_record.NAME).write_bytes(b"\x1f\x8b no record")
    assert main(["look", run]) == 2
    assert "is damaged" in capsys.readouterr().err
