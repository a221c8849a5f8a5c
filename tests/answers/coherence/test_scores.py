"""The coherence of finished runs: against loops, and what is printed of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.answers.thoughts.runs import row, trained
from toyqs import thought_record
from toyqs.answers.__main__ import main
from toyqs.answers.coherence.scores import Scored, scored
from toyqs.answers.loaded.load import load_run
from toyqs.answers.thoughts.arm import equal_sequences

WIDE = {"base_lm_hidden_dim": 5, "thought_vocab": None}


def of(folder: str, count: int | None = None) -> Scored:
    run = load_run(folder)
    return scored(run, 3, equal_sequences(run, count), count)


def test_it_is_what_the_row_and_the_record_have(tmp_path: Path) -> None:
    """Of a run that logged it; the same run without the log is scored alike."""
    (logged,), (silent,) = (
        trained(tmp_path / name, [3], log_coherence=name == "logged", **WIDE) for name in ("logged", "silent")
    )
    assert Path(logged).name == Path(silent).name  # what is logged is outside the key
    found, again, own = of(logged), of(silent), row(logged)
    for name in ("semantic", "syntactic", "predictive", "coherence"):
        assert torch.equal(found.scores[name], again.scores[name])
        assert abs(float(found.scores[name].mean()) - own[f"thought_{name}"]) < 1e-9
        assert f"thought_{name}" not in row(silent)
    arrays = thought_record.read(logged).arrays
    gain = arrays["log_q"] - arrays["log_q_none"][..., None]
    assert abs(gain[arrays["counted"] == 1] - found.against["gain"].numpy()).max() < 1e-3
    assert abs(arrays["semantic"][arrays["counted"] == 1] - found.scores["semantic"].numpy()).max() < 1e-4
    assert torch.equal(found.scores["predictive"], torch.sigmoid(found.against["gain"])) or torch.allclose(
        found.scores["predictive"], torch.sigmoid(found.against["gain"]), rtol=0, atol=1e-12
    )


def test_of_one_prediction_there_are_contributions(tmp_path: Path) -> None:
    (folder,) = trained(tmp_path, [3], mixing="attend", baseline="none", reward="contribution", **WIDE)
    found, arrays = of(folder), thought_record.read(folder).arrays
    earned = arrays["reward"][arrays["counted"] == 1]
    assert abs(earned - found.against["contribution"].numpy()).max() < 1e-3
    assert abs(found.scores["attention"].sum(-1) - 1).max() < 1e-12
    assert not {"nll_marginal", "pass_at_k", "gate"} & row(folder).keys()
    assert 0 < row(folder)["attention_entropy"] <= 1.3863


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = trained(
        tmp_path / "runs", [3, 4], mixing="attend", baseline="none", reward="contribution", **WIDE
    )
    out = tmp_path / "out.json"
    assert main(["coherence", *folders, "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "of 40 different sequences" in text or "different sequences" in text
    assert max(map(len, text.splitlines())) <= 120
    result = json.loads(out.read_text())
    cells = {(x["score"], x["with"], x["over"]) for x in result["correlations"]}
    assert ("semantic", "gain", "all") in cells and ("attention", "contribution", "among") in cells
    assert {x["units"] for x in result["correlations"]} == {2}


def test_a_run_without_a_score_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = trained(tmp_path, [3], mixing="thought", use_base_lm=False)
    assert main(["coherence", folder]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no score of coherence exists in this run" in error
