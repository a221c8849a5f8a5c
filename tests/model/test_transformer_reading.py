"""The context's last token fed again, against the library's model on the whole sequence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from tests.branching import EACH, WIDTH, plain_model
from tests.model.test_transformer_thoughts import (
    BATCH,
    LENGTH,
    SYMBOLS,
    THOUGHTS,
    TIME,
    VOCAB,
    core,
    drawn,
    head,
)
from toyqs.model.core import Core
from toyqs.model.interpreter import Onward
from toyqs.model.thoughts import think
from toyqs.types import Thoughts


def thoughts_of(both: Core, tokens: Tensor, lengths: Tensor | None) -> Thoughts:
    forced = drawn(1, BATCH, TIME, THOUGHTS, LENGTH, below=SYMBOLS, seed=1)
    _, state = both.backbone.read(both.token_rows()[:, tokens])
    return think(both, head(), state, forced.double(), forced=forced, lengths=lengths)


def whole_sequences(of: Core, tokens: Tensor, thoughts: Thoughts, later: int) -> Tensor:
    """Return the library's outputs at the end of [x_≤t, start, symbols, end, x_t], one by one: (B, T, K, D).

    Its causal mask is given: left to itself the library takes a position that goes back for the start of
    another sequence, packed with the first.
    """
    plain, rows, table = plain_model(of.backbone), of.thought_rows()[0], of.token_rows()[0]
    lengths = thoughts.length if thoughts.length is not None else torch.tensor(LENGTH)
    lengths = lengths.expand(1, BATCH, TIME, THOUGHTS)
    found = torch.zeros(BATCH, TIME, THOUGHTS, WIDTH, dtype=rows.dtype)
    for b, t, k in torch.cartesian_prod(*map(torch.arange, (BATCH, TIME, THOUGHTS))).tolist():
        own = thoughts.symbols[0, b, t, k, : lengths[0, b, t, k]]
        parts = [table[tokens[b, : t + 1]], rows[[0, *(own + 2).tolist(), 1]], table[tokens[b, t]][None]]
        sequence = torch.cat(parts)
        positions = torch.arange(len(sequence))
        positions[-1] = t + later
        mask = torch.full((len(sequence), len(sequence)), float("-inf"), dtype=rows.dtype).triu(1)
        told = {"attention_mask": mask[None, None], "position_ids": positions[None], "use_cache": False}
        found[b, t, k] = plain(inputs_embeds=sequence[None], **told).last_hidden_state[0, -1]
    return found


@EACH
@pytest.mark.parametrize("later", [0, 1])
@pytest.mark.parametrize("ends_apart", [False, True])
def test_the_reading_is_the_librarys_at_the_token_fed_again(
    family: str, later: int, ends_apart: bool
) -> None:
    both, tokens = core(family), drawn(BATCH, TIME, below=VOCAB)
    lengths = drawn(1, BATCH, TIME, THOUGHTS, below=LENGTH + 1, seed=2) if ends_apart else None
    thoughts = thoughts_of(both, tokens, lengths)
    reading = Onward(both, both, last_token=later)(thoughts, tokens[None])
    wanted = whole_sequences(both, tokens, thoughts, later)
    torch.testing.assert_close(reading[0], wanted, rtol=0, atol=1e-12)
    other = whole_sequences(both, tokens, thoughts, 1 - later)
    assert (reading[0] - other).abs().amax(-1).min() > 1e-3, "the position can be told"


@EACH
def test_at_some_positions_it_is_their_own_token(family: str) -> None:
    both, tokens = core(family), drawn(BATCH, TIME, below=VOCAB)
    _, state = both.backbone.read(both.token_rows()[:, tokens])
    index = torch.tensor([[[2, 0], [1, 3]]])
    forced = drawn(1, BATCH, TIME, THOUGHTS, LENGTH, below=SYMBOLS, seed=1)
    picked = forced.gather(2, index[..., None, None].expand(-1, -1, -1, THOUGHTS, LENGTH))
    there = think(both, head(), both.backbone.gather(state, index), picked.double(), forced=picked)
    reading = Onward(both, both, last_token=0)(there, tokens[None].gather(2, index))
    everywhere = Onward(both, both, last_token=0)(thoughts_of(both, tokens, None), tokens[None])
    wanted = everywhere.gather(2, index[..., None, None].expand(-1, -1, -1, THOUGHTS, WIDTH))
    torch.testing.assert_close(reading, wanted, rtol=0, atol=1e-12)
