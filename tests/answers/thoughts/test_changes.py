"""Changes of symbols: their laws, by enumeration, and what follows a changed symbol."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.answers.thoughts.plain import KINDS, OTHER_KINDS, PATH, SEED, SIZE, SYMBOLS, Plain, untrained
from toyqs.answers.thoughts import changes
from toyqs.answers.thoughts.arm import log_likelihood, sample, with_symbols
from toyqs.model.core import START, marker


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_noise_has_every_symbol_equally_often(tmp_path: Path) -> None:
    """All uniform numbers of a grid, and so the sum over the vocabulary is exact."""
    run = untrained(tmp_path)
    (sampled,) = sample(run, SEED, SIZE)
    scale = changes.scale_of(sampled.thoughts, 0)
    grid = (torch.arange(60, dtype=torch.float64) + 0.5).view(1, 1, 1, 60, 1) / 60
    assert changes.noise_symbols(run, grid, scale).flatten().bincount().tolist() == [20] * SYMBOLS


@pytest.mark.parametrize("kind", [{}, {"interpreter_start": "onward"}], ids=str)
def test_how_far_a_symbol_moves_the_next_is_a_divergence(tmp_path: Path, kind: dict[str, Any]) -> None:
    """Check the mean over all thoughts, by their probability, against Σ_s π(s) KL(π(· | s) ‖ π(· | s'))."""
    run = untrained(tmp_path, max_reasoning_len=2, trice_samples=9, **kind)
    plain, (sampled,) = Plain(run), sample(run, SEED, SIZE)
    every = torch.tensor(list(product(range(SYMBOLS), repeat=2)))
    own = with_symbols(run, sampled, every.expand(1, SIZE, 2, 9, 2))
    for other in range(SYMBOLS):
        change = changes.replaced(own, 0, torch.tensor(other))
        then = with_symbols(run, sampled, change.symbols)
        ratio, counts = changes.moved(own, change, then, 1)
        assert bool(counts.all())
        got = (own.log_prob.sum(-1).exp() * ratio).sum(-1)[0]
        for b, t in product(range(SIZE), range(2)):
            log_p = torch.stack([plain.predicted(b, t, s).log_prob[0] for s in every.tolist()]).view(3, 3, 2)
            first, second = log_p[:, 0, 0], log_p[..., 1]
            divergence = (second.exp() * (second - second[other])).sum(-1)
            assert float(got[b, t]) == pytest.approx(float((first.exp() * divergence).sum()), abs=1e-10)


def test_later_symbols_drawn_anew_follow_the_policy(tmp_path: Path) -> None:
    """Check each against the inverse of the reference's distribution at the thought's own uniform number."""
    run = untrained(tmp_path)
    plain = Plain(run)
    sampled = plain.sampled
    change = changes.swapped(sampled.thoughts, 0, 2)
    anew = changes.continued(run, sampled, change, 0).symbols[0]
    moved = 0
    for (b, t, k), mine in plain.own.items():
        symbols = [plain.own[(b - 2) % SIZE, t, k][0]]
        for place in (1, 2):
            law = [plain.predicted(b, t, [*symbols, s]).log_prob[0, place].exp() for s in range(SYMBOLS)]
            u = float(sampled.noise[0, b, t, k, place])
            symbols.append(next(s for s in range(SYMBOLS) if u < sum(law[: s + 1]) + 1e-12))
        assert anew[b, t, k].tolist() == symbols
        moved += symbols[1:] != mine[1:]
    assert moved, "nothing to compare"


def test_deterministic_thoughts_go_on_from_the_changed_state(tmp_path: Path) -> None:
    run = untrained(tmp_path, thoughts="deterministic", interpreter_start="onward", **PATH)
    (sampled,) = sample(run, SEED, SIZE)
    own = sampled.thoughts.symbols
    change = changes.swapped(sampled.thoughts, 1, 1)
    anew = changes.continued(run, sampled, change, 1)
    core = run.model.cores["C"]
    rows = core.thought_rows()
    _, state = core.backbone.step(marker(rows, START), sampled.context.branches)
    for symbol in (own[..., 0, :], own[..., 1, :].roll(1, 1)):
        hidden, state = core.step_symbols(symbol, rows, state)
    torch.testing.assert_close(anew.symbols[..., 2, :], hidden, rtol=0, atol=1e-12)
    assert not torch.equal(anew.symbols[..., 2, :], own[..., 2, :])
    kept = with_symbols(run, sampled, change.symbols)
    assert torch.equal(kept.symbols[..., 2, :], own[..., 2, :])


@pytest.mark.parametrize("kind", KINDS + OTHER_KINDS, ids=str)
def test_a_symbol_that_is_not_changed_changes_nothing(tmp_path: Path, kind: dict[str, Any]) -> None:
    run = untrained(tmp_path, **kind)
    (sampled,) = sample(run, SEED, SIZE)
    own = sampled.thoughts
    for index in range(run.sizes.length):
        same = changes.replaced(own, index, own.symbols.select(4, index))
        assert torch.equal(same.symbols, own.symbols)
        assert torch.equal(changes.continued(run, sampled, same, index).symbols, own.symbols)
        kept = with_symbols(run, sampled, same.symbols, same.lengths)
        assert torch.equal(log_likelihood(run, sampled, kept), log_likelihood(run, sampled, own))
