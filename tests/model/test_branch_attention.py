"""A branch's attention against one plain softmax over all that it sees, one branch after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from toyqs.model.backbones import branch_attention
from toyqs.model.backbones.branch_attention import Block, to_all, to_prefix, visible_blocks

BATCH, SHARED, GROUP, TIME, THOUGHTS, WIDTH, PREFIX = 2, 2, 2, 5, 3, 4, 7
NUM_BRANCHES = (BATCH, TIME, THOUGHTS)
SIDE_BY_SIDE = torch.arange(1, TIME + 1).expand(BATCH, -1)
ANY_ORDER = torch.tensor([[7, 1, 4, 1, 2], [3, 3, 3, 3, 3]])


class Given(NamedTuple):
    query: Tensor  # (B, H_kv, G, T, K, d)
    prefix: tuple[Tensor, Tensor] | None
    visible: Tensor
    symbols: list[tuple[Tensor, Tensor]]
    consumed: list[Tensor | None]

    def leaves(self) -> list[Tensor]:
        return [self.query, *(self.prefix or ()), *(x for symbol in self.symbols for x in symbol)]


def random(*shape: int, seed: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_()


def given(
    visible: Tensor | None = ANY_ORDER, *, batch: int = BATCH, group: int = GROUP, scale: float = 1.0
) -> Given:
    """Return keys and values shared by all, by positions, by thoughts, and by none."""
    query = (scale * random(BATCH, SHARED, group, TIME, THOUGHTS, WIDTH, seed=0)).detach().requires_grad_()
    axes = [(1, 1, 1), (BATCH, 1, THOUGHTS), (1, TIME, 1), NUM_BRANCHES]
    symbols = [
        (random(b, SHARED, 1, t, k, WIDTH, seed=2 * i + 1), random(b, SHARED, 1, t, k, WIDTH, seed=2 * i + 2))
        for i, (b, t, k) in enumerate(axes)
    ]
    consumed = [None, random(1, TIME, 1, seed=9) > 0, None, random(*NUM_BRANCHES, seed=10) > 0]
    if visible is None:
        return Given(query, None, ANY_ORDER, symbols, consumed)
    prefix = tuple(random(batch, SHARED, PREFIX, WIDTH, seed=seed) for seed in (11, 12))
    return Given(query, (prefix[0], prefix[1]), visible, symbols, consumed)


def ours(of: Given) -> Tensor:
    prefix = None
    if of.prefix is not None:
        blocks = visible_blocks(of.visible, TIME, PREFIX, torch.float64)
        prefix = to_prefix(of.query, *of.prefix, blocks)
    return to_all(of.query, of.symbols, of.consumed, prefix)


def plain(of: Given) -> Tensor:
    """Compute one softmax for each branch and head over its keys."""
    out, visible = torch.zeros_like(of.query), of.visible.expand(BATCH, TIME)
    for index in torch.cartesian_prod(*map(torch.arange, of.query.shape[:-1])).tolist():
        b, h, _, t, k = index
        pairs = [] if of.prefix is None else [(x[min(b, len(x) - 1), h] for x in of.prefix)]
        seen = [tuple(x[: visible[b, t]] for x in pair) for pair in pairs]
        for symbol, by in zip(of.symbols, of.consumed, strict=True):
            if by is None or by.expand(NUM_BRANCHES)[b, t, k]:
                wide = (x.expand(BATCH, -1, -1, TIME, THOUGHTS, -1) for x in symbol)
                seen.append(tuple(x[b, h, 0, t, k][None] for x in wide))
        keys, values = (torch.cat(x) for x in zip(*seen, strict=True))
        out[tuple(index)] = (keys @ of.query[tuple(index)]).softmax(0) @ values
    return out


def worst(of: Given, attend: Callable[[Given], Tensor] = ours) -> float:
    """Return the largest difference of outputs and of gradients."""
    pull = random(*of.query.shape, seed=13).detach()
    results = []
    for way in (attend, plain):
        out = way(of)
        results.append([out.detach(), *torch.autograd.grad((out * pull).sum(), of.leaves())])
    assert all(x.any() for x in results[1])
    return max(float((mine - theirs).abs().max()) for mine, theirs in zip(*results, strict=True))


@pytest.mark.parametrize("block", [1, 2, 128])
@pytest.mark.parametrize(
    "of",
    [
        given(),
        given(SIDE_BY_SIDE),
        given(SIDE_BY_SIDE[:1], batch=1),
        given(torch.tensor([[4]]), group=1),
        given(None),
        given(scale=300.0),
    ],
    ids=["any order", "side by side", "one prefix", "one place, own heads", "no prefix", "large scores"],
)
def test_outputs_and_gradients(of: Given, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch_attention, "POSITIONS", block)
    assert worst(of) < (1e-12 if of.query.abs().max() < 100 else 1e-10)


def test_blocks_end_with_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch_attention, "POSITIONS", 2)
    blocks = visible_blocks(SIDE_BY_SIDE, TIME, PREFIX, torch.float64)
    assert [(x.positions.start, x.positions.stop, x.first, x.last) for x in blocks] == [
        (0, 2, 1, 2),
        (2, 4, 3, 4),
        (4, 5, 5, 5),
    ]


@pytest.mark.parametrize("change", ["one key more", "block too short", "no gradient of the log-sum-exp"])
def test_a_wrong_form_is_noticed(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch_attention, "POSITIONS", 2)

    def wrong(of: Given) -> Tensor:
        assert of.prefix is not None
        visible = of.visible + (change == "one key more")
        blocks = visible_blocks(visible, TIME, PREFIX, torch.float64)
        if change == "block too short":
            blocks = [shorter(block) for block in blocks]
        out, total = to_prefix(of.query, *of.prefix, blocks)
        cut = change == "no gradient of the log-sum-exp"
        return to_all(of.query, of.symbols, of.consumed, (out, total.detach() if cut else total))

    assert worst(given(SIDE_BY_SIDE), wrong) > 1e-3


def shorter(block: Block) -> Block:
    """Drop the last key, where not all positions see it."""
    if block.last == block.first:
        return block
    return block._replace(last=block.last - 1, beyond=block.beyond[..., :-1])


def test_no_scores_of_the_prefix_are_kept() -> None:
    kept: list[torch.Size] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x.shape)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        ours(given())
    assert kept and all(PREFIX not in shape for shape in kept if len(shape) != 4)
    assert [shape for shape in kept if len(shape) == 4] == 2 * [(BATCH, SHARED, PREFIX, WIDTH)]
