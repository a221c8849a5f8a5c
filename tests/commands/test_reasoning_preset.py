"""The preset on reasoning texts, trained whole: what is in its weights, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.commands.test_presets import ROOT
from toyqs.answers.__main__ import main as answers
from toyqs.evidence.rows import load_rows
from toyqs.sweep import main
from toyqs.sweep.words.compose import compose_checked
from toyqs.sweep.words.presets import register


@pytest.mark.slow
def test_it_bakes_the_patterns_and_not_all_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)
    register()
    words = ["+run_modifier=ReasoningRunConfig", f"runs_dir={tmp_path / 'runs'}", "processes=1"]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config, _ = compose_checked(compose("config", words))
    assert main.main([config]) == 0
    (row,) = load_rows(tmp_path / "runs").to_dict("records")
    result = tmp_path / "baked.json"
    code = answers(["baked", str(tmp_path / "runs" / row["key"]), "--strict", "-o", str(result)])
    shares = json.loads(result.read_text())["shares"]
    above = {name: share["interval"][0] > share["needed"] for name, share in shares.items()}
    assert above == {"right answer": False, "thinking tokens": True, "fitting strategy": True} and code == 1
    assert shares["right answer"]["interval"][0] > 0.5
