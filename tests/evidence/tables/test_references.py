"""The lines above a table: with what its losses can be compared."""

from __future__ import annotations

import pandas as pd
import pytest

from toyqs.evidence.cells import Cell
from toyqs.evidence.tables.references import reference_lines

COUNTS = {"unigram_nll": 3.3151, "bigram_nll": 2.4849}


def cell(arms=("thinking", "no_reasoner"), backbone="gru", **columns):
    frame = pd.DataFrame({"seed": [1, 2], "nll": [0.5, 0.7]}).assign(**columns)
    return Cell({"task": "char_text", "backbone": backbone}, dict.fromkeys(arms, frame), {})


def test_a_known_best_loss_is_all_that_is_said():
    assert reference_lines([cell(bayes_floor=0.25, **COUNTS)]) == [
        "Best possible NLL (Bayes), per counted position: 0.250 nats"
    ]


def test_a_text_has_counts_and_a_plain_model_beside_it():
    assert reference_lines([cell(**COUNTS)]) == [
        "To compare with, NLL in nats per counted position (the best possible is not known):",
        "  3.315 by the frequency of each token alone (unigram)",
        "  2.485 by the token before it (bigram)",
        "  no_reasoner, below: a plain GRU of the base's width",
    ]
    assert reference_lines([cell(backbone="gpt2", **COUNTS)])[-1].endswith(
        "a plain model of the base's width"
    )


@pytest.mark.parametrize("cells", [[cell(["thinking"])], [cell(["thinking"], unigram_nll=None)]])
def test_what_no_row_says_is_not_known(cells):
    assert reference_lines(cells) == ["Best possible NLL, per counted position: not known"]


def test_texts_that_differ_have_no_line_in_common():
    lines = reference_lines([cell(**COUNTS), cell(unigram_nll=3.0, bigram_nll=2.4849)])
    assert [line.split()[0] for line in lines] == ["To", "2.485", "no_reasoner,"]
