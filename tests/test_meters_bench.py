"""The benchmark of the meters: it trains with and without them, and its table can be read."""

from __future__ import annotations

import re

import pytest

from bench import meters


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {name: {**changes, "data_loader_batch_size": 2} for name, changes in meters.RUNS.items()}
    monkeypatch.setattr(meters, "RUNS", runs)
    monkeypatch.setattr(meters.sys, "argv", ["meters.py", "--rounds", "1", "--steps", "30"])
    meters.main()
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line[:32].strip() for line in lines] == list(runs)
    assert all(len(re.findall(r"-?[\d.]+", line[32:])) == 3 for line in lines)


def test_without_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    given = meters.train.train

    def watched(model, objective, data, settings, report):
        given(model, objective, data, settings, lambda step, values: seen.append(set(values)))

    monkeypatch.setattr(meters.train, "train", watched)
    changes = {"objective": "listwise", "data_loader_batch_size": 2, "max_steps": 30}
    for wanted in (False, True):
        seen.clear()
        meters.trainer(meters.RunConfig(**changes), meters=wanted)()
        assert ("effective_samples" in seen[0]) == wanted
        assert ("policy_snr" in seen[29]) == wanted
