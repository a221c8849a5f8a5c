"""A power cut: a disk image copied while it is in use holds what the disk would hold."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import killing
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import damaged_files
from toyqs.experiment import checkpoint
from toyqs.experiment.stack import run_stack
from toyqs.sweep import main
from toyqs.training.flops import Cost

IMAGE_BYTES = 16 << 20
PATIENT = "loop,commit=300"  # nothing is written because time has passed


@contextmanager
def mounted(image: Path, options: str) -> Iterator[Path]:
    """Mount a disk image on a folder next to it."""
    folder = image.with_suffix(".disk")
    folder.mkdir()
    subprocess.run(["mount", "-o", options, image, folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Make an empty ext4 image, and skip where one cannot be mounted."""
    if os.geteuid():
        pytest.skip("only root can mount a disk image")
    if not shutil.which("mkfs.ext4"):
        pytest.skip("mkfs.ext4 is not installed")
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    try:
        with mounted(path, PATIENT):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no disk image can be mounted here: {error.stderr.decode().strip()}")
    return path


def configured(disk: Path, **changes: Any) -> RunConfig:
    small = {**killing.SMALL, "seed": [1, 2], "processes": 1} | changes
    return resolved(replace(RunConfig(), **small, runs_dir=str(disk / "deep" / "runs")))


def rows_in(disk: Path) -> dict[str, list[str] | None]:
    """Return the damaged files of every run that has a row."""
    runs = disk / "deep" / "runs"
    return {path.parent.name: damaged_files(runs, path.parent.name) for path in runs.glob("*/summary.json")}


def test_after_each_write_that_waits_for_the_disk(image: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A row is on the disk only with all its files, whenever the power fails, and at the end every row is."""
    copies: list[Path] = []
    real = os.fsync

    def fsync(file: int) -> None:
        real(file)
        copies.append(Path(shutil.copyfile(image, tmp_path / f"cut{len(copies)}")))

    with mounted(image, PATIENT) as disk:
        config = configured(disk)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)
        assert main.main([config]) == 0
        monkeypatch.setattr(os, "fsync", real)
        at_the_end = Path(shutil.copyfile(image, tmp_path / "end"))
        keys = {run_key(config, seed) for seed in (1, 2)}
    found = []
    for copy in [*copies, at_the_end]:
        with mounted(copy, "loop") as disk:
            found.append(rows_in(disk))
    assert [rows for rows in found if any(rows.values())] == []
    assert found[-1] == {key: [] for key in keys}
    assert len({len(rows) for rows in found}) == 3, "before, between and after the two rows"


def test_a_checkpoint_never_lacks_its_curve(image: Path, tmp_path: Path, capsys: Any) -> None:
    copies: dict[int, Path] = {}

    def cut(step: int, loss: float | None) -> None:
        if step in (6, 13, 19):
            copies[step] = Path(shutil.copyfile(image, tmp_path / f"cut{step}"))

    with mounted(image, PATIENT) as disk:
        config = configured(disk, checkpoint_every=5, max_steps=20, eval_every=1)
        run_stack(config, [1], Cost(1, 2, 3.0, 4.0), cut)
    for step, copy in copies.items():
        with mounted(copy, "loop") as disk:
            saved = checkpoint.read(disk / "deep" / "runs" / run_key(config, 1))
            assert saved is not None and saved["step"] == step // 5 * 5
    assert capsys.readouterr().err == ""
