"""What a loss is to be compared with: the best possible one, or models of counts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.findings import floor_of
from toyqs.evidence.judging.gain import mean_of
from toyqs.evidence.text import WIDTH, listed

COUNTS = {
    "unigram_nll": "by the frequency of each token alone (unigram)",
    "bigram_nll": "by the token before it (bigram)",
}
PLAIN = "no_reasoner"
JOINT = """\
joint NLL: of the {} tokens ahead together, predicted from what was read before all of them; {}. A language
model that is given each true token before it predicts the next (teacher forcing) closes this gap, too."""


def reference_lines(cells: Sequence[Cell]) -> list[str]:
    """Return lines above a table of cells: with what their losses can be compared.

    Args:
        cells: of one task.
    """
    floor = floor_of(cells)
    if floor is not None:
        return [f"Best possible NLL (Bayes), per counted position: {floor:.3f} nats"]
    counts = [f"  {mean:.3f} {words}" for name, words in COUNTS.items() if (mean := _shared(cells, name))]
    if any(len(cell.arms.get(PLAIN, ())) for cell in cells):
        kind = {cell.settings.get("backbone", "gru") for cell in cells} == {"gru"}
        counts.append(f"  {PLAIN}, below: a plain {'GRU' if kind else 'model'} of the base's width")
    if not counts:
        return ["Best possible NLL, per counted position: not known"]
    head = "To compare with, NLL in nats per counted position (the best possible is not known):"
    return [line[:WIDTH] for line in [head, *counts]]


def joint_lines(cells: Sequence[Cell]) -> list[str]:
    """Return lines below a table of cells: what a joint loss is, where there is one in it."""
    joint = [cell for cell in cells if cell.loss == "nll_joint"]
    if not joint:
        return []
    numbers = listed({cell.settings["n_tokens_ahead"] for cell in joint})
    return textwrap.wrap(JOINT.replace("\n", " ").format(numbers, _summed(joint)), WIDTH)


def joint_note(cells: Sequence[Cell]) -> list[str]:
    """Return `joint_lines` as one line, as figures and the page break it by themselves; none or one."""
    return [*filter(None, [" ".join(joint_lines(cells))])]


def _summed(cells: Sequence[Cell]) -> str:
    """Return whether joint losses are summed over all thoughts, or from how many they are estimated."""
    frames = [frame for cell in cells for frame in cell.arms.values() if "joint_samples" in frame]
    counts = {int(count) for frame in frames for count in frame["joint_samples"].dropna()} - {0}
    if not counts:
        return "summed over all thoughts"
    return (
        f"where thoughts are too many to be summed over, estimated from K = {listed(counts)} of them, on "
        "average too high"
    )


def _shared(cells: Sequence[Cell], column: str) -> float | None:
    """Return the mean of a column over the rows of cells where all rows agree on it; else None."""
    frames = [frame for cell in cells for frame in cell.arms.values() if len(frame)]
    means = {mean_of(frame, column) for frame in frames}
    return means.pop() if len(means) == 1 else None
