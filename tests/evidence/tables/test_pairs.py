"""Cells that differ by use_reasoner alone."""

from __future__ import annotations

import math

import pandas as pd

from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.gain import interval
from toyqs.evidence.selection import differing
from toyqs.evidence.tables.pairs import reasoner_pairs


def rows(values, first=0):
    return pd.DataFrame({"seed": range(first, first + len(values)), "nll": values})


def cell(nll, first=0, **settings):
    arm = "thinking" if settings.get("use_reasoner") else "no_reasoner"
    return Cell(settings, {arm: rows(nll, first)}, {})


def pairs(cells):
    return reasoner_pairs(cells, list(differing(cells)))


def test_each_pair_has_a_line():
    cells = [
        cell([1.0, 1.1, 0.9], use_reasoner=True, width=4, trice_samples=2),
        cell([0.5, 0.4, 0.3], use_reasoner=True, width=4, trice_samples=8),
        cell([2.0, 2.2, 2.3], use_reasoner=False, width=4),
        cell([0.2, 0.1, 0.2], use_reasoner=True, width=8, trice_samples=2),
        cell([0.1, 0.2, 0.1], use_reasoner=False, width=8),
        cell([0.1, 0.2, 0.1], use_reasoner=False, width=16),
    ]
    lines = pairs(cells)
    assert lines[1].startswith("Gain of thinking over use_reasoner=false") and lines[2] == "seed:"
    found = interval([1.0, 1.1, 1.4])
    assert lines[6] == f"width=4 trice_samples=2  {found.mean:+.3f} ± {found.half_width:.3f}  seed 0, 1, 2"
    assert [line.split()[0:2] for line in lines[6:]] == [
        ["width=4", "trice_samples=2"],
        ["width=4", "trice_samples=8"],
        ["width=8", "trice_samples=2"],
    ]
    assert [line.split()[2] for line in lines[6:]] == ["+1.167", "+1.767", "-0.033"]
    assert max(map(len, lines)) <= 110


def test_only_seeds_of_both_are_paired():
    thinking = cell([1.0, 1.0, 1.0], use_reasoner=True)
    lines = pairs([thinking, cell([3.0, 4.0, 9.0], 1, use_reasoner=False)])
    assert lines[6].split() == ["use_reasoner=true", "+2.500", "±", "6.353", "seed", "1,", "2"]
    diverged = pairs([thinking, cell([3.0, math.nan], 1, use_reasoner=False)])
    assert "diverged" in diverged[6]
    for left in (
        cell([3.0], 7, use_reasoner=False),
        Cell({"use_reasoner": False}, {"no_reasoner": rows([])}, {}),
    ):
        assert pairs([thinking, left])[6].endswith("no seed of both has finished")


def test_other_sweeps_have_none():
    assert pairs([cell([1.0], width=4), cell([2.0], width=8)]) == []
    apart = [cell([1.0], use_reasoner=True, width=4), cell([2.0], use_reasoner=False, width=8)]
    assert pairs(apart) == [], "the width differs too"
    plain = [cell([1.0], use_reasoner=False, width=4), cell([2.0], use_reasoner=False, width=8)]
    assert pairs(plain) == []
