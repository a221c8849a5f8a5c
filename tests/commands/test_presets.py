"""Every preset trains: a few steps, as composed from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.logbook import TEXT
from toyqs.evidence.rows import load_rows
from toyqs.sweep import main
from toyqs.sweep.words import presets
from toyqs.sweep.words.compose import compose_checked
from toyqs.sweep.words.presets import register

ROOT = Path(__file__).resolve().parents[2]
# Those that start from a pretrained model are in tests/commands/test_pretrained_preset.py.
PRESETS = sorted(
    file.stem for file in (ROOT / "conf" / "run_modifier").glob("*.yaml") if "Pretrained" not in file.stem
)
SMALL = ("max_steps=3", "data_loader_batch_size=4", "eval_sequences=4", "seed=[3,4]", "controls=none")


FEWER = ("max_reasoning_len=2", "trice_samples=2")  # of a transformer, whose steps take longer
LESS = {"InterpreterLowVarGRURunConfig": ("trice_samples=5",)}  # than 100


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = "backbone:" in (ROOT / "conf" / "run_modifier" / f"{name}.yaml").read_text()
    if transformer:
        pytest.importorskip("transformers")
    extra = [*(FEWER if transformer else LESS.get(name, ())), *(TEXT if name.startswith("Logbook") else ())]
    trains([f"+run_modifier={name}", *extra], tmp_path, monkeypatch)


def test_coconut_trains_on_a_transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    trains(["+run_modifier=CoconutRunConfig", "backbone=gpt2", "max_reasoning_len=2"], tmp_path, monkeypatch)


def trains(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # takes longer than the training
    monkeypatch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config, _ = compose_checked(compose("config", [*words, *SMALL, f"runs_dir={folder}", "processes=1"]))
    assert main.main([config]) == 0
    rows = load_rows(folder)
    assert sorted(rows["seed"]) == [3, 4] and bool((rows["nll"] > 0).all())
    assert set(rows["train_steps"]) == {3}


def test_every_preset_stands_under_what_it_is_for() -> None:
    """And under one heading alone; a new file would stand under `others`, which is empty here."""
    found = presets.by_purpose()
    names = [name for each in found.values() for name in each]
    assert list(found) == list(presets.PURPOSES)
    assert sorted(names) == sorted(file.stem for file in presets.FOLDER.glob("*.yaml"))
    text = presets.presets()
    assert all(f"  {purpose}:\n    {each[0]} " in text for purpose, each in found.items())
