"""Options out of their range, of every script: one line and exit code 2, before anything is computed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from analysis import scale_up
from bench import estimators, gpu, gpu_parts, speed, startup
from toyqs import files
from toyqs.command_line import positive, whole

Main = Callable[[Sequence[str]], int]

WHOLE = ("0", "-1", "1.5", "x", "", "nan", "9" * 5000, "1_0", "²")
POSITIVE = ("0", "-1", "x", "", "nan", "inf", "1e999")
OPTIONS: list[tuple[Main, str, tuple[str, ...]]] = [
    *((scale_up.main, option, WHOLE) for option in ("--best", "--layers", "--heads", "--width")),
    (scale_up.main, "--lr", POSITIVE),
    (estimators.main, "--worlds", WHOLE),
    (startup.main, "--rounds", WHOLE),
    (speed.main, "--rounds", WHOLE),
    (gpu.main, "--seconds", POSITIVE),
]


def refused(main: Main, words: Sequence[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("main", "option", "value"),
    [(main, option, value) for main, option, values in OPTIONS for value in values],
    ids=lambda given: getattr(given, "__module__", given),
)
def test_a_number_out_of_range(
    main: Main, option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(main, [f"{option}={value}"], capsys)
    assert f"argument {option}: {value} is out of range; give a " in said and not list(tmp_path.iterdir())


def test_transformer_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from bench import transformer

    for option in ("--width", "--layers", "--heads", "--positions", "--length", "--rounds"):
        for value in WHOLE:
            assert f"{option}: {value} is out of range" in refused(
                transformer.main, [f"{option}={value}"], capsys
            )
    assert "give a whole number, 1 to 4096" in refused(transformer.main, ["--layers=4097"], capsys)
    assert "--width 7: --heads 4 need a multiple of 4" in refused(transformer.main, ["--width=7"], capsys)
    assert "need a multiple of 8" in refused(transformer.main, ["--family=llama", "--width=12"], capsys)
    assert "invalid choice: 'bert'" in refused(transformer.main, ["--family=bert"], capsys)


def test_sizes_that_no_memory_holds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from bench import transformer

    def fail(*_: object) -> float:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate much")

    monkeypatch.setattr(transformer, "difference", fail)
    assert transformer.main([]) == 2
    assert capsys.readouterr().err.endswith(": these sizes do not fit into memory; give smaller ones\n")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere/x.csv", "there is no folder nowhere; make it first"),
        ("folder", "is a folder; give the name of a file"),
        ("full", "is a pipe or a device"),
        ("pipe", "is a pipe or a device"),
    ],
)
def test_a_table_that_cannot_be_there(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").symlink_to("/dev/full")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    assert f"-o {name}: {says}" in refused(estimators.main, ["-o", name], capsys)
    assert "no folder" in refused(gpu.main, ["--device=cpu", f"--out={tmp_path / 'pipe'}"], capsys)
    assert sorted(tmp_path.iterdir()) == before and Path("/dev/full").is_char_device()


def test_a_full_device_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(estimators, "NUMBERS", (2,))
    monkeypatch.setattr(files.os, "fsync", refuse)
    assert estimators.main(["-o", str(tmp_path / "x.csv"), "--worlds", "1"]) == 1
    assert capsys.readouterr().err.endswith("x.csv: cannot be written: No space left on device\n")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(gpu, "PARTS", gpu.PARTS[:1])
    assert gpu.main(["--device=cpu", "--seconds=1", f"--out={tmp_path / 'out'}"]) == 1
    assert capsys.readouterr().err.endswith("out: cannot be written: No space left on device\n")
    assert not list((tmp_path / "out").iterdir())


def test_a_part_of_the_gpu_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(words: Sequence[str]) -> int:
        monkeypatch.setattr("sys.argv", ["gpu_parts.py", *words])
        return gpu_parts.main(gpu_parts.PARTS)

    assert "no folder" in refused(main, ["card", f"--rows={tmp_path}/none/rows"], capsys)
    assert "--seconds: nan is out of range" in refused(main, ["card", "--rows=x", "--seconds=nan"], capsys)


def test_numbers_in_range() -> None:
    assert (whole("1"), whole("12"), whole("0", least=0), positive("1e-9")) == (1, 12, 0, 1e-9)
