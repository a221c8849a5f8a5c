"""The benchmark of one prediction's products: what they compute in each precision, and how much they read."""

from __future__ import annotations

import pytest
import torch

from bench import latency


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("bfloat16", 0.01), ("int8", 0.02)])
def test_products_are_those_of_the_weight(precision: str, error: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(24, 40, generator=generator), torch.randn(3, 40, generator=generator)
    found, wanted = latency.product(weight, precision)(x), x @ weight.t()
    assert found.dtype == torch.float32 and found.shape == wanted.shape
    assert float((found - wanted).norm() / wanted.norm()) < error


def test_a_prediction_reads_what_smollm2_has_once_a_pass() -> None:
    """Of the checkpoint's 134,515,008 weights all but the norms' 35,136 are in products, tied rows once."""
    layers, head = 106_168_320, 49152 * 576
    assert layers + head + 61 * 576 == 134_515_008
    assert latency.rows_of_passes(4, 10) == [1, 1, *[4] * 11]
    assert latency.rows_of_heads(4, 10) == [1, *[4] * 9, 1, 4]
    assert latency.weights_read(4, 10) == 13 * layers + 12 * head


def test_a_report_of_small_shapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "LAYERS", 1)
    monkeypatch.setattr(latency, "VOCABULARY", 99)
    monkeypatch.setattr(latency, "bandwidth", lambda rounds: 2e9)
    assert latency.main(["--rounds", "1", "--thoughts", "2", "--length", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Memory     read at 2.0 GB/s at best" and "in 4 passes of 2 rows" in lines[2]
    assert [line.split()[0] for line in lines[4:]] == [*latency.BYTES]
    assert float(lines[4].split()[2]) == pytest.approx(2 * float(lines[5].split()[2]), abs=1)
    assert latency.main(["--rounds", "0"]) == 2
