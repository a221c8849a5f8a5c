"""Runs that start from finished runs, by the command line; and that they stand alone afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests import warm
from toyqs.answers.loaded.load import load_run
from toyqs.evidence import load_rows

ROOT = Path(__file__).resolve().parents[2]
STILL = "base_lr=1e-12"  # a run that stays where it starts


def command(folder: Path, *words: str, code: int = 0) -> str:
    """Run a command with the quick settings; return what it says of mistakes."""
    line = [str(ROOT / "run.py"), "+run_modifier=Quick", "processes=1", "max_steps=4", *words]
    done = warm.started(line, folder).wait()
    said = (folder / "err").read_text()
    assert done == code, said
    return said


def of(runs: Path, **settings: Any) -> Path:
    """Return the folder of the one run that has these settings."""
    rows = load_rows(runs)
    for name, value in settings.items():
        rows = rows[rows[name] == value]
    (key,) = rows["key"]
    return runs / key


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def note(folder: Path) -> Any:
    return json.loads((folder / "env.json").read_text())["started_from"]


def test_base_and_reasoner_are_trained_first(tmp_path: Path) -> None:
    alone = ("seed=3", "controls=none")
    command(tmp_path, *alone, "use_reasoner=true,false", "-m")
    plain, thinking = (of(tmp_path / "runs", use_reasoner=x) for x in (False, True))
    # all of a run's weights, in the run and in its controls
    given = f"start_from=runs/{plain.name}"
    words = ("seed=7", "runs_dir=started", STILL)
    said = command(tmp_path, given, *words)
    assert f"toyqs: {given}: 7 of 28 weights are taken over: cores.A, head.bias, head.weight_0\n" in said
    rows = load_rows(tmp_path / "started")
    assert len(rows) == 7, "the thinking run and six controls, none of them a wider base"
    assert set(rows["start_from"]) == {f"runs/{plain.name}"} and rows["start_from.identity"].nunique() == 1
    for key in rows["key"]:
        close(tmp_path / "started" / key, plain, "")
        assert note(tmp_path / "started" / key)["start_from"]["taken"] == sorted(weights(plain))
    longer = rows.loc[rows["max_steps"].idxmax(), "key"]
    assert not note(tmp_path / "started" / longer)["new"], "compute_matched is the base alone"
    # some roles' weights, by the runs' keys
    both = (f"infer_pretrained_base={plain.name}", f"infer_pretrained_reasoner={thinking.name}")
    command(tmp_path, *both, "seed=7", "controls=none", STILL)
    started = of(tmp_path / "runs", seed=7)
    for letter, source in (("A", plain), ("B", thinking), ("C", thinking), ("D", thinking)):
        close(started, source, f"cores.{letter}.")
    assert note(started)["infer_pretrained_base"]["run"] == f"runs/{plain.name}"
    assert note(started)["new"] == ["head.bias", "head.weight_0", "head.weight_1"]
    # a run stands alone: it is read without the run that it started from, which only a command needs
    shutil.rmtree(plain)
    assert load_run(str(started)).thinks
    before = len(said)
    said = command(tmp_path, given, *words, code=2)
    assert f"toyqs: {given}: there is no such folder; give" in said[before:]


def close(ours: Path, source: Path, prefix: str) -> None:
    """Check that a run still has the weights of another one whose names begin so."""
    for name, weight in weights(source).items():
        if name.startswith(prefix):
            torch.testing.assert_close(weights(ours)[name], weight, rtol=0, atol=1e-6)
