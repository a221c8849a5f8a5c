"""The measured noise of credit by prefix, where it is known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench import credit

SMALL = {"data_loader_batch_size": 8, "base_lm_hidden_dim": 4, "reasoner_hidden_dim": 5}


def test_one_symbol_has_the_thoughts_credit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Among several both estimates are one; what no symbol earns is a baseline where there is none."""
    models = {"one": SMALL | {"max_reasoning_len": 1}, "three": SMALL | {"prefix_nll_beta": 0.5}}
    monkeypatch.setattr(credit, "MODELS", models)
    path = tmp_path / "rows.csv"
    words = ["-o", str(path), "--draws", "12", "--seeds", "2", "--steps", "6"]
    assert credit.main(words) == 0
    rows = pd.read_csv(path)
    assert list(rows.columns) == list(credit.COLUMNS) and len(rows) == 2 * 2 * 2 * 2
    compared = rows[(rows["model"] == "one") & (rows["baseline"] == "leave_one_out")]
    assert compared["ratio"].tolist() == pytest.approx([1.0] * 4, abs=1e-4)
    alone = rows[(rows["model"] == "one") & (rows["baseline"] == "none")]
    assert (alone["ratio"] < 0.5).all()
    others = rows[(rows["model"] == "three") & (rows["baseline"] == "leave_one_out")]
    assert (abs(others["ratio"] - 1) > 1e-3).all() and (rows["signal"] > 0).all()
    assert f"rows   {path}" in capsys.readouterr().out
