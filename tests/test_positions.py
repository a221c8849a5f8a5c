"""Batches reduced to the positions that think, and to some of their sequences."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from toyqs.positions import focus, rows, thinking_positions
from toyqs.types import Batch


def test_focus_keeps_the_thinking_positions_in_order() -> None:
    batch = tiny.batch(5, copies=2)
    oracle = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    focused = focus(batch._replace(oracle=oracle), thinking_positions(batch))
    for s in range(2):
        for b in range(5):
            at = batch.think[s, b].nonzero().flatten()
            for before, after in zip((*batch[:4], oracle), focused[:5], strict=True):
                assert torch.equal(after[s, b], before[s, b][at])
    assert bool(focused.think.all())


def test_focus_leaves_a_batch_that_thinks_everywhere() -> None:
    batch = tiny.batch(3)
    everywhere = batch._replace(think=torch.ones_like(batch.think))
    assert focus(everywhere, thinking_positions(everywhere)) is everywhere
    assert thinking_positions(everywhere) is None


def test_sequences_must_think_equally_often() -> None:
    think = torch.tensor([[[True, False, True], [True, False, False]]])
    with pytest.raises(ValueError, match="equally many positions"):
        thinking_positions(Batch(think.long(), think.long(), think.float(), think))


def test_rows_takes_a_span_of_sequences() -> None:
    batch = tiny.batch(5, copies=2)
    oracle = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    part = rows(batch._replace(oracle=oracle), slice(1, 3))
    for before, after in zip((*batch[:4], oracle), part[:5], strict=True):
        assert torch.equal(after, before[:, 1:3])
    assert rows(batch, slice(0, 2)).oracle is None
