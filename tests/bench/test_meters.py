"""The benchmark of the meters: what it clocks is spent on meters, and its table can be read."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from bench import meters
from toyqs.config.run_config import RunConfig
from toyqs.objectives.registry import member

SMALL = {"data_loader_batch_size": 2, "max_steps": 30}


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {name: {**changes, "data_loader_batch_size": 2} for name, changes in meters.RUNS.items()}
    monkeypatch.setattr(meters, "RUNS", runs)
    monkeypatch.setattr(meters.sys, "argv", ["meters.py", "--rounds", "1", "--steps", "30"])
    meters.main()
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line[:32].strip() for line in lines] == list(runs)
    assert all(len(re.findall(r"[\d.]+%", line[32:])) == 5 for line in lines)


def test_what_meters_spend_is_clocked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(objective="listwise", **SMALL)
    kind = member(config)
    plain, _, signal = meters.shares(config)

    def slow(*given, unchanged=kind.meters):
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        return unchanged(*given)

    monkeypatch.setattr(kind, "meters", slow)
    step, often, _ = meters.shares(config)
    assert often * step > 0.02 and step < 3 * plain
    none = meters.shares(replace(config, max_steps=29))
    assert signal > 0.0 == none[2]
