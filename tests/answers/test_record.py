"""`python -m toyqs.answers record`: the bytes that the training writes, for runs that have no record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.answers.thoughts.runs import row, trained
from toyqs import thought_record
from toyqs.answers.__main__ import main
from toyqs.files import damage
from toyqs.tasks.iterate import Iterate

HARD = {"think_at": "hard", "hard_quantile": 0.5}


def file_of(folder: str) -> Path:
    return Path(folder) / thought_record.NAME


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float32", "eval_sequences": 700},  # evaluated in two parts
        {"variable_len": True, "length_penalty": 0.1},
        {"adaptive_len": True, "task": Iterate(), "thoughts": "gaussian", "weight_groups": list("ABBB")},
        {"n_tokens_ahead": 2, "trice_samples": 3},
        {"n_tokens_ahead": 2, "ahead": "joint", "objective": "multi_sample"},
        {"reward": "kl_forward", "reference": "oracle", **HARD},
        {"length_schedule": "short_to_long"},
    ],
)
def test_it_writes_the_bytes_of_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    folders = trained(tmp_path, [4, 2], **changes)  # side by side; each is asked alone
    for folder in folders:
        own = file_of(folder).read_bytes()
        file_of(folder).unlink()
        assert damage(row(folder), Path(folder)) == [thought_record.NAME]
        assert main(["record", folder]) == 0
        assert file_of(folder).read_bytes() == own
        assert damage(row(folder), Path(folder)) == []
    printed = capsys.readouterr()
    sequences = len(thought_record.read(folders[0]).sequences)
    assert f"{file_of(folders[0])}: {sequences} sequences, " in printed.out and not printed.err
    assert file_of(folders[0]).read_bytes() != file_of(folders[1]).read_bytes()


def test_a_record_that_is_there_stays_and_a_damaged_one_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = trained(tmp_path, [1])
    own, before = file_of(folder).read_bytes(), file_of(folder).stat().st_mtime_ns
    assert main(["record", folder]) == 0
    assert file_of(folder).stat().st_mtime_ns == before
    assert "is there already" in capsys.readouterr().out
    file_of(folder).write_bytes(own[:-9])
    assert main(["record", folder]) == 0
    assert file_of(folder).read_bytes() == own


def test_other_bytes_than_the_row_notes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = trained(tmp_path, [1], thoughts_every=2)
    file_of(folder).unlink()
    assert main(["record", folder]) == 0
    assert "has not the bytes of the training, which the row notes" in capsys.readouterr().err
    assert thought_record.read(folder).evaluations == []


def test_a_run_of_an_earlier_version_gets_a_record_and_stays_whole(tmp_path: Path) -> None:
    (folder,) = trained(tmp_path, [1])
    file_of(folder).unlink()
    found = row(folder)
    notes = [x for x in found["checksums"].split() if not x.startswith((thought_record.NAME, "summary"))]
    from toyqs.files import sealed

    names = [note.partition("=")[0] for note in notes]
    found.pop("checksums")
    (Path(folder) / "summary.json").write_text(json.dumps(sealed(found, Path(folder), names)))
    assert damage(row(folder), Path(folder)) == []
    with pytest.raises(ValueError, match=r"make it: python -m toyqs\.answers record"):
        thought_record.read(folder)
    assert main(["record", folder]) == 0
    assert damage(row(folder), Path(folder)) == []
    assert len(thought_record.read(folder).sequences) == 40


@pytest.mark.parametrize("changes", [{"use_reasoner": False}, {"max_reasoning_len": 0}])
def test_a_run_without_thoughts_has_no_record_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    (plain,) = trained(tmp_path, [1], **changes)
    assert not file_of(plain).exists() and thought_record.NAME not in row(plain)["checksums"]
    assert main(["record", plain]) == 2
    assert capsys.readouterr().err == f"toyqs: {plain}: this run has no thoughts; give one that thinks\n"
    with pytest.raises(ValueError, match="this run has no thoughts"):
        thought_record.read(plain)


def test_of_several_runs_those_without_thoughts_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plain,) = trained(tmp_path, [1], use_reasoner=False)
    (thinking,) = trained(tmp_path, [1])
    file_of(thinking).unlink()
    assert main(["record", plain, thinking]) == 0
    assert file_of(thinking).exists()
    assert capsys.readouterr().err == (
        f"toyqs: left out: {plain}: this run has no thoughts; give one that thinks\n"
    )
    for beside in ("cells", "reports"):  # that runs/* names as well
        (tmp_path / beside).mkdir(exist_ok=True)
    assert main(["record", *map(str, tmp_path.iterdir())]) == 0


def test_a_folder_that_is_no_run_is_told_after_the_others_were_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (thinking,), gone, out = trained(tmp_path, [1]), str(tmp_path / "gone"), tmp_path / "out.json"
    file_of(thinking).unlink()
    assert main(["record", gone, thinking, "-o", str(out)]) == 2
    assert file_of(thinking).exists()
    err = capsys.readouterr().err
    assert err == f"toyqs: {gone}: there is no such folder; give the folder of a finished run, runs/KEY\n"
    assert json.loads(out.read_text()) == {
        "records": {thinking: str(file_of(thinking))},
        "left_out": {},
        "failed": {gone: err.removeprefix("toyqs: ").rstrip()},
    }


def test_a_run_that_diverged_has_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = {"optimizer": "sgd", "base_lr": 1e300, "clip_gradients": 0.0}
    (folder,) = trained(tmp_path, [1], **wild)
    assert row(folder)["diverged_at"] is not None and not file_of(folder).exists()
    assert main(["record", folder]) == 2
    assert "diverged" in capsys.readouterr().err
    with pytest.raises(ValueError, match="this run diverged"):
        thought_record.read(folder)


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = trained(tmp_path, [1])
    file_of(folder).unlink()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(thought_record, "write_bytes", full)
    assert main(["record", folder]) == 1
    assert capsys.readouterr().err.endswith("cannot be written: No space left on device\n")
