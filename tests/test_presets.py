"""Every preset trains: a few steps, as composed from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from toyqs import sweep
from toyqs.compose import compose_checked
from toyqs.config import register
from toyqs.results import load_rows

ROOT = Path(__file__).resolve().parents[1]
# What begins from a pretrained model needs one: tests/test_pretrained_preset.py.
PRESETS = sorted(
    file.stem for file in (ROOT / "conf" / "run_modifier").glob("*.yaml") if "Pretrained" not in file.stem
)
SMALL = ("max_steps=3", "data_loader_batch_size=4", "eval_sequences=4", "seed=[3,4]", "controls=none")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "comparison_figure", lambda *_: None)  # takes longer than the training
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        words = [f"+run_modifier={name}", *SMALL, f"runs_dir={tmp_path}", "processes=1"]
        config, _ = compose_checked(compose("config", words))
    assert sweep.main([config]) == 0
    rows = load_rows(tmp_path)
    assert sorted(rows["seed"]) == [3, 4] and bool((rows["nll"] > 0).all())
    assert set(rows["train_steps"]) == {3}
