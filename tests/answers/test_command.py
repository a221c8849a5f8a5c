"""The command `python -m toyqs.answers`."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save

from tests import tiny
from tests.answers import asked
from tests.run_folders import written
from toyqs.answers.__main__ import main
from toyqs.answers.loaded.load import load
from toyqs.answers.thoughts.arm import sample
from toyqs.tasks.group import S5


@pytest.fixture
def run(tmp_path: Path) -> str:
    settings = asked.config(asked.corpus(tmp_path))
    return written(tmp_path / "runs" / "a", settings, asked.model(settings)[0])


def test_exact_match(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = asked.lines(tmp_path / "sums.jsonl", asked.SUMS), tmp_path / "out.json"
    assert main(["exact", run, path, "--most", "8", "--first", "2", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"without thoughts +\d of 2 \(.* %\) +\d\.\d{3}", printed)
    assert re.search(r"with thoughts +\d of 2", printed)
    found = json.loads(out.read_text())["with thoughts"]
    assert len(found["questions"]) == 2 and len(found["questions"][0]["texts"][0]) <= 8
    assert not [*tmp_path.glob("*.part")]


def test_majority_with_a_chain_of_thought(run: str, tmp_path: Path) -> None:
    path = asked.lines(tmp_path / "sums.jsonl", asked.SUMS)
    more = ["--steps", "--texts", "3", "--temperature", "0.8", "--most", "4", "--first", "1"]
    out = tmp_path / "out.json"
    assert main(["exact", run, path, *more, "-o", str(out)]) == 0
    assert len(json.loads(out.read_text())["with thoughts"]["questions"][0]["texts"]) == 3


def test_choices(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose", run, asked.lines(tmp_path / "choices.jsonl", asked.CHOICES)]) == 0
    assert len(re.findall(r"\d of 2 ", capsys.readouterr().out)) == 4


def rows_of_tokens(printed: str) -> list[list[str]]:
    """Return the first two columns of the lines below the headings."""
    lines = printed.splitlines()
    (rule,) = (place for place, line in enumerate(lines) if set(line) == {"-"})
    return [line.split()[:2] for line in lines[rule + 1 : rule + 13]]


def test_tokens(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", run, "--count", "60"]) == 0
    numbers = rows_of_tokens(capsys.readouterr().out)
    assert numbers[10:] == [["all", "72"], ["mixture", "72"]]
    assert sum(int(tokens) for _, tokens in numbers[:10]) == 72


def test_refusals_are_one_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = written(tmp_path / "runs" / "b", tiny.config(task=S5()))
    unknown = asked.lines(tmp_path / "unknown.jsonl", [{"question": "@", "answer": "1"}])
    for words, message in [
        (["tokens", str(tmp_path / "none")], "there is no such folder"),
        (["say", other, "1"], "its task is s5, and only a run on a text can be asked"),
        (["exact", run, str(tmp_path / "none.jsonl")], "cannot be read"),
        (["exact", run, unknown], "has no character '@'"),
    ]:
        assert main(words) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1 and "reference_run" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tokens", "--count", "0"], "--count: 0 is out of range; give a whole number, 1 to"),
        (["latency", "--tokens", "-5"], "-5 is out of range"),
        (["exact", "FILE", "--first", "0"], "0 is out of range"),
        (["exact", "FILE", "--texts", "1.5"], "1.5 is out of range"),
        (["exact", "FILE", "--most", "x"], "x is out of range"),
        (["exact", "FILE", "--temperature", "-1"], "-1 is no temperature"),
        (["exact", "FILE", "--temperature", "warm"], "warm is no temperature"),
        (["exact", "FILE", "--temperature", "nan"], "nan is no temperature"),
        (["choose", "FILE", "--threads", "-1"], "-1 is out of range"),
        (
            ["choose", "FILE", "--threads", "1000000000"],
            "1000000000 is out of range; give a whole number, 1 to",
        ),
        (["latency", "--seed", "one"], "--seed: invalid int value: 'one'"),
        (["latency", "more"], "unrecognized arguments: more"),
        (["choose"], "the following arguments are required: FILE"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    run: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([words[0], run, *words[1:]]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and "--help says more" in err and not out


def test_what_cannot_be_written(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, message: str, code: int = 2) -> str:
        assert main(["tokens", run, "--count", "9", "-o", str(path)]) == code
        out, err = capsys.readouterr()
        assert err == f"toyqs: -o {path}: {message}\n"
        return out

    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    missing = tmp_path / "no"
    assert not refused(missing / "x.json", f"there is no folder {missing}; make it first")
    assert not refused(tmp_path / "runs", "is a folder; give the name of a file")
    for path in (tmp_path / "pipe", Path("/dev/full")):
        assert not refused(path, "is a pipe or a device; give the name of a file")

    def full(path: Path, *_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert refused(tmp_path / "x.json", "cannot be written: No space left on device", 1)
    assert sorted(tmp_path.iterdir()) == before


def test_weights_that_are_no_answers(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(run) / "model.safetensors"
    right = load_file(file)
    name, weight = next((n, w) for n, w in right.items() if w.dim() > 2)
    whole = file.read_bytes()
    unknown = b'{"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}'  # to torch
    for wrong, message in [
        (weight.float(), "in torch.float32, and its config.json says float64"),
        (weight.bfloat16(), "in torch.bfloat16"),
        (weight.long(), "in torch.int64"),
        (weight.to(torch.complex64), "in torch.complex64"),
        (weight[..., 1:].contiguous(), "holds another model"),
        (weight[0], "holds another model"),
        (weight.repeat(2, *[1] * (weight.dim() - 1)), "holds another model"),
        (torch.full_like(weight, math.nan), f"is not finite in {name}: it diverged"),
        (torch.full_like(weight, -math.inf), "is not finite"),
        (len(unknown).to_bytes(8, "little") + unknown + b"1", "is damaged or missing"),
        (bytes(len(whole)), "is damaged or missing"),
        (whole[:-1], "is damaged or missing"),
        (b"", "is damaged or missing"),
    ]:
        file.write_bytes(wrong if isinstance(wrong, bytes) else save(right | {name: wrong}))
        assert main(["tokens", run]) == 2
        err = capsys.readouterr().err
        assert message in err and err.startswith(f"toyqs: {run}: its model.saf") and err.count("\n") == 1
    file.write_bytes(whole)
    assert main(["latency", run, "--tokens", "1"]) == 0


def test_a_window_of_one_position_predicts_one_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows hold what they held in training: as many predictions as positions."""
    task = asked.corpus(tmp_path)
    short = written(tmp_path / "short", asked.config(task, seq_len=1))
    batches = [part.batch for part in sample(load(short), 3, 10**9)]
    inputs, targets = (
        torch.cat([x[0, :, 0] for x in each]).tolist() for each in list(zip(*batches, strict=True))[:2]
    )
    held_out = task.ids[task.border :].tolist()
    assert list(zip(inputs, targets, strict=True)) == list(itertools.pairwise(held_out))
    assert main(["tokens", short, "--count", "20"]) == 0
    assert rows_of_tokens(capsys.readouterr().out)[10] == ["all", "20"]


def test_a_run_without_thoughts_has_no_gain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = asked.config(asked.corpus(tmp_path), use_reasoner=False)
    plain = written(tmp_path / "plain", settings, asked.model(settings)[0])
    assert main(["tokens", plain, "--count", "30"]) == 2
    assert "this run has no thoughts; give one that thinks" in capsys.readouterr().err
    assert main(["latency", plain, "--tokens", "2"]) == 0
    assert "with thoughts" not in capsys.readouterr().out


def test_thoughts_are_as_long_as_the_last_ones_in_training(tmp_path: Path) -> None:
    settings = asked.config(asked.corpus(tmp_path), length_schedule="long_to_short", max_reasoning_len=3)
    done = load(written(tmp_path / "falling", settings, asked.model(settings)[0]))
    assert done.predictor(thinking=True).sizes.length == 1
