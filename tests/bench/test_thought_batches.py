"""Thoughts in one batch and one after another: one gradient, the same symbols, and a wrong way is found."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench.thoughts import batches, one_by_one
from bench.thoughts.one_by_one import ONE_BATCH, WAYS, Size, build, compare_gradients, flops, joined

SMALL = Size(thoughts=3, positions=4, length=2, width=6, sequences=2)


@pytest.mark.parametrize("backbone", ["gru", "gpt2"])
def test_all_ways_have_one_gradient_and_sample_the_same(backbone: str) -> None:
    if backbone == "gpt2":
        pytest.importorskip("transformers")
    size = SMALL._replace(backbone=backbone)
    for name, apart in compare_gradients(size, WAYS).items():
        assert apart.difference <= 1e-12 * max(1.0, apart.largest) and apart.largest > 1e-3, name
    step = build(size.config)
    with torch.no_grad():
        context = step.read()
    expected = step.sample(context, WAYS[ONE_BATCH])
    assert expected.shape == (1, 2, 4, 3, 2) and len(expected.unique()) > 2
    assert all(torch.equal(step.sample(context, way), expected) for way in WAYS.values())


def test_each_way_makes_its_number_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    step = build(SMALL.config)
    respond = step.model.respond
    monkeypatch.setattr(step.model, "respond", lambda *given: calls.append(given) or respond(*given))
    counts = {}
    for name, way in WAYS.items():
        calls.clear()
        one_by_one.traced(step.model, step.batch, way)
        counts[name] = len(calls)
    assert counts == {
        ONE_BATCH: 1,
        "thought by thought": 3,
        "position by position": 4,
        "one by one": 12,
    }


def test_more_calls_make_few_more_products() -> None:
    """They are the markers' and the tables': fewer than a call has of its own."""
    size = SMALL._replace(thoughts=2, length=4, width=16)
    counted = [flops(size, way) for way in WAYS.values()]
    assert counted[0] < counted[1] < 2 * counted[0] and counted[0] < counted[2] < 4 * counted[0]


def test_a_wrong_gradient_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Let a joined trace have its thoughts in another order than the one batch."""
    monkeypatch.setattr(one_by_one, "joined", lambda traces, axis: joined(traces[::-1], axis))
    monkeypatch.chdir(tmp_path)
    words = ["--backbones", "gru", "--thoughts", "2", "--positions", "2", "--width", "4"]
    assert batches.main(words) == 1
    assert "so nothing was timed" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(batches, "TURN", 0.0)
    files = {option: str(tmp_path / name) for option, name in batches_files().items()}
    words = ["--backbones", "gru", "--thoughts", "1", "2", "--positions", "3", "--length", "1"]
    assert (
        batches.main([*words, "--width", "4", "--rounds", "2", *(x for pair in files.items() for x in pair)])
        == 0
    )
    out = capsys.readouterr().out
    assert "Gradients equal" in out and "Symbols equal" in out and "T 3   K 2  step" in out
    table = pd.read_csv(files["-o"])
    assert len(table) == 2 * (2 + 3), "K = 1 has two other ways, K = 2 three; each sampled and stepped"
    assert (table["low"] <= table["ratio"]).all() and (table["ratio"] <= table["high"]).all()
    alone = table[
        (table["thoughts"] == 1) & (table["way"] == "thought by thought") & (table["what"] == "step")
    ]
    assert list(alone["flops_ratio"]) == [1.0]
    assert len(json.loads(Path(files["--json"]).read_text())["rows"]) == len(table)
    assert Path(files["--figure"]).read_bytes()[:4] == b"\x89PNG"


def batches_files() -> dict[str, str]:
    return {"-o": "rows.csv", "--json": "all.json", "--figure": "ratios.png"}


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (["--width", "5"], "two heads need an even width; give 6"),
        (["--figure", "x.txt"], "give an ending of"),
        (["--thoughts", "0"], "0 is out of range"),
        (["-o", "no/where.csv"], "no/where.csv"),
    ):
        assert batches.main(words) == 2
        out, err = capsys.readouterr()
        assert said in err and out == "" and err.count("\n") == 1
