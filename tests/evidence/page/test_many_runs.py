"""Two thousand runs: listed, tabled and reported in seconds, and the page stays small."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.analysis import synthetic
from toyqs.evidence.__main__ import main

CELLS, SEEDS = 67, range(5)  # of six arms each: 2,010 runs
SECONDS, BYTES = 20.0, 10_000_000


@pytest.mark.slow
def test_two_thousand_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {f"setting_{number}": number for number in range(100)}  # rows are as wide as real ones
    for place in range(CELLS):
        chosen = synthetic.settings(base_lm_hidden_dim=4 + place) | more
        synthetic.write(tmp_path / "runs", chosen, synthetic.spread(synthetic.LOSSES[8], SEEDS, place))
    begun = time.process_time()
    for command in ("list", "table"):
        assert main([command, str(tmp_path / "runs")]) == 0
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]) == 0
    assert time.process_time() - begun < SECONDS
    assert (tmp_path / "page.html").stat().st_size < BYTES
    assert "base_lm_hidden_dim" in capsys.readouterr().out
