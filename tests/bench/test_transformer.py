"""The benchmark of a transformer's branches: all ways compute the same, and a difference is noticed."""

from __future__ import annotations

import re
import sys

import pytest
import torch

pytest.importorskip("transformers")

from bench import transformer, transformer_parts
from bench.transformer import Size

SMALL = Size(16, 6, 3, 2, 2)


@pytest.mark.parametrize("family", transformer.TOLERANCES)
@pytest.mark.parametrize("size", [SMALL, SMALL._replace(thoughts=2, sequences=3)])
def test_all_ways_are_the_same(family: str, size: Size) -> None:
    assert transformer.difference(family, size) <= transformer.TOLERANCES[family]


def test_another_way_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = transformer.diagonal
    monkeypatch.setattr(transformer, "diagonal", lambda *given: right(*given) * 1.001)
    assert transformer.difference("gpt2", SMALL) > 1e-5
    monkeypatch.setattr(sys, "argv", ["transformer.py", "--positions", "3", "--length", "2"])
    assert transformer.main() == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["transformer.py", "--positions", "4", "--length", "2", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", words)
    assert transformer.main() == 0
    out = capsys.readouterr().out
    assert "equal, in float64" in out
    rows = out.splitlines()[6:]
    assert len(rows) == 11 and all(len(re.findall(r"[\d.]+", row)) == 4 for row in rows)


def test_where_the_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--positions", "4", "--length", "2", "--rounds", "1", "--width", "16", "--thoughts", "2"]
    assert transformer_parts.main(words) == 0
    out = capsys.readouterr().out
    for name in (transformer.DENSE, transformer.NATIVE):
        assert re.search(rf"{name}: \d+ ms at least", out)
    numbers = [float(x) for x in re.findall(r"([\d.]+)%$", out, re.MULTILINE)]
    assert sum(numbers) == pytest.approx(200.0, abs=0.1 * len(numbers))
    assert out.count("products of matrices") == 2 and out.count("torch's kernel of attention") == 2


def test_the_floor_counts_the_products() -> None:
    left, right = torch.rand(3, 5), torch.rand(5, 7)
    flops, least = transformer_parts.floor(lambda: left @ right)
    assert flops == 2 * 3 * 5 * 7 and 0.0 < least < 1e-3
