"""The benchmark of vocabularies: what is kept grows with them."""

from __future__ import annotations

import pytest

from bench import vocabulary


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(vocabulary, "SIZES", (65, 1300))
    monkeypatch.setattr(vocabulary, "WIDTH", 8)
    vocabulary.main()
    small, large = ([float(x) for x in line.split()] for line in capsys.readouterr().out.splitlines()[1:])
    assert (small[0], large[0]) == (65, 1300)
    # of a symbol probabilities and their logarithms, of a prediction its logits' difference and log-softmax
    assert large[1] >= 2 * 4 * 1300 / 1e6 - 1e-3 and large[3] >= 2 * 4 * 1300 / 1e6 - 1e-3
    assert large[1] > 4 * small[1]
