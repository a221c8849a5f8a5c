"""Rows and what follows from them: the names that scripts of one's own import."""

from toyqs.evidence.cells import load_cells
from toyqs.evidence.judging.decision import verdict
from toyqs.evidence.judging.gain import interval, onset, reasoning_gain
from toyqs.evidence.rows import load_curve, load_rows

__all__ = ["interval", "load_cells", "load_curve", "load_rows", "onset", "reasoning_gain", "verdict"]
