"""The transformer backbone: the library's numbers, and the backbone's law against plain forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from transformers import AutoModel

from tests.branching import CONFIGS, EACH, NATIVE, WIDTH, backbone, diagonal, one_by_one, plain_model, whole
from toyqs.model.backbones.transformer import BranchCache, TransformerBackbone

BATCH, TIME, THOUGHTS, LENGTH = 2, 4, 2, 3
BOTH = pytest.mark.parametrize("family", ["gpt2", "llama"])  # learned positions; rotary, with shared keys


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context_and_symbols() -> tuple[Tensor, Tensor]:
    return random(1, BATCH, TIME, WIDTH), random(1, BATCH, TIME, THOUGHTS, LENGTH, WIDTH, seed=1)


def think(of: TransformerBackbone, symbols: Tensor, state: BranchCache) -> tuple[Tensor, BranchCache]:
    """Step all symbols (1, B, T, K, L, D); return outputs in that shape, and the last state."""
    outputs = []
    for symbol in symbols.unbind(4):
        output, state = of.step(symbol, state)
        outputs.append(output)
    return torch.stack(outputs, 4), state


def close(ours: Tensor, theirs: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("family", [*CONFIGS, NATIVE])
@pytest.mark.parametrize("exact", [True, False], ids=["norms in float64", "the library's norms"])
def test_reading_then_stepping_equals_reading_it_all(family: str, exact: bool) -> None:
    ours, (context, symbols) = backbone(family, exact=exact), context_and_symbols()
    plain, atol = plain_model(ours), 1e-12 if exact or "gpt2" in family else 1e-5
    outputs, state = ours.read(ours.project_input(context))
    close(outputs[0], whole(plain, context[0]), atol)
    thoughts, _ = think(ours, symbols, state)
    close(thoughts[0], one_by_one(plain, context[0], symbols[0]), atol)


@EACH
@pytest.mark.parametrize("change", ["sees the next position", "position stands still"])
def test_the_law_can_fail(family: str, change: str) -> None:
    ours, (context, symbols) = backbone(family), context_and_symbols()
    _, state = ours.read(context)
    if change == "sees the next position":
        wrong = think(ours, symbols, state._replace(visible=state.visible + 1))[0]
    else:
        _, next_state = ours.step(symbols[..., 0, :], state)
        stuck = next_state._replace(position=state.position)
        wrong = think(ours, symbols[..., 1:, :], stuck)[0]
    wanted = one_by_one(plain_model(ours), context[0], symbols[0])
    assert (wrong[0] - wanted[..., -wrong.shape[4] :, :]).abs().max() > 1e-3


@EACH
def test_the_law_holds_for_gradients_too(family: str) -> None:
    ours, (context, symbols) = backbone(family), context_and_symbols()
    context.requires_grad_()
    symbols.requires_grad_()
    pull = random(*symbols.shape, seed=2)
    inputs = [*ours.parameters(), context, symbols]
    stepped = think(ours, symbols, ours.read(context)[1])[0]
    wanted = one_by_one(plain_model(ours), context[0], symbols[0]).unsqueeze(0)
    for mine, theirs in zip(
        torch.autograd.grad((stepped * pull).sum(), inputs),
        torch.autograd.grad((wanted * pull).sum(), inputs),
        strict=True,
    ):
        assert mine.any()
        close(mine, theirs, 1e-12 * max(1.0, float(theirs.abs().max())))


@EACH
def test_branches_equal_the_diagonal_mask(family: str) -> None:
    ours, (context, symbols) = backbone(family), context_and_symbols()
    outputs, state = ours.read(context)
    read, thought = diagonal(plain_model(ours), context[0], symbols[0])
    close(outputs[0], read)
    close(think(ours, symbols, state)[0][0], thought)


@EACH
def test_thoughts_see_neither_later_positions_nor_each_other(family: str) -> None:
    ours, (context, symbols) = backbone(family), context_and_symbols()
    context.requires_grad_()
    symbols.requires_grad_()
    outputs, state = ours.read(context)
    thoughts = think(ours, symbols, state)[0]
    loss = thoughts[0, 1, 2, 1, 1].square().sum()
    at_context, at_symbols = torch.autograd.grad(loss, (context, symbols), retain_graph=True)
    assert at_context[0, 1, :3].all() and not at_context[0, 1, 3:].any() and not at_context[0, 0].any()
    assert at_symbols[0, 1, 2, 1, :2].all()
    at_symbols[0, 1, 2, 1, :2] = 0.0
    assert not at_symbols.any()
    (at_context,) = torch.autograd.grad(outputs[0, 1, 2].square().sum(), context)
    assert at_context[0, 1, :3].all() and not at_context[0, 1, 3:].any()


@EACH
def test_one_marker_serves_all_branches_and_thoughts_split_later(family: str) -> None:
    """Check that axes broadcast from 1: one row of the start marker, one state for K thoughts at first."""
    ours, (context, symbols) = backbone(family), context_and_symbols()
    marker = random(1, 1, 1, 1, WIDTH, seed=3)
    output, state = ours.step(marker, ours.read(context)[1])
    assert output.shape == (1, BATCH, TIME, 1, WIDTH)
    thoughts = think(ours, symbols, state)[0]
    start = marker.unsqueeze(4).expand(*symbols.shape[:4], 1, WIDTH)
    wanted = one_by_one(plain_model(ours), context[0], torch.cat([start, symbols], 4)[0])
    close(output[0], wanted[:, :, :1, 0])
    close(thoughts[0], wanted[..., 1:, :])


@EACH
@pytest.mark.parametrize("before", [0, 1, 2])
def test_gather_takes_the_branches_asked_for(family: str, before: int) -> None:
    """Check it after any number of symbols, for positions in any order and more than once."""
    ours, (context, symbols) = backbone(family), context_and_symbols()
    index = torch.tensor([[[3, 0, 3], [1, 2, 0]]])
    wanted, _ = think(ours, symbols, ours.read(context)[1])
    early, state = symbols[..., :before, :], ours.read(context)[1]
    if before:
        _, state = think(ours, early, state)
    places = torch.arange(BATCH)[:, None], index[0]
    taken, _ = think(ours, symbols[0][places][None][..., before:, :], ours.gather(state, index))
    close(taken[0], wanted[0][places][..., before:, :])


def test_one_branch_point_taken_three_times_is_three() -> None:
    ours = backbone("gpt2")
    marker = random(1, 1, 1, 1, WIDTH)
    _, state = ours.step(marker, ours.empty())
    output, _ = ours.step(marker, ours.gather(state, torch.zeros(1, BATCH, 3, dtype=torch.long)))
    assert output.shape == (1, BATCH, 3, 1, WIDTH)


@EACH
def test_a_symbol_that_a_branch_does_not_consume_leaves_no_trace(family: str) -> None:
    """Let one branch consume the second symbol, another not; the third follows what each consumed."""
    ours, (context, symbols) = backbone(family), context_and_symbols()
    symbols.requires_grad_()
    live = torch.zeros(1, BATCH, TIME, THOUGHTS, dtype=torch.bool)
    live[..., 0] = True
    live[:, 1, 2] = torch.tensor([False, True])
    _, old = ours.step(symbols[..., 0, :], ours.read(context)[1])
    _, new = ours.step(symbols[..., 1, :], old)
    index = torch.arange(TIME).expand(1, BATCH, -1)  # a gather keeps who consumed what
    output, _ = ours.step(symbols[..., 2, :], ours.gather(ours.keep_ended(new, old, live), index))
    plain = plain_model(ours)
    full = one_by_one(plain, context[0], symbols[0])[..., -1, :]
    short = one_by_one(plain, context[0], symbols[0][..., [0, 2], :])[..., -1, :]
    close(output[0], torch.where(live[0].unsqueeze(-1), full, short))
    (grad,) = torch.autograd.grad(output.square().sum(), symbols)
    assert grad[..., 1, :][live].all() and not grad[..., 1, :][~live].any()


@EACH
def test_from_an_empty_memory_a_thought_is_the_whole_sequence(family: str) -> None:
    """Check it also where prefixes are shared: every first symbol once, each followed by its second ones."""
    ours = backbone(family)
    plain, marker, first = plain_model(ours), random(1, 1, 1, 1, WIDTH), random(1, 1, 3, 1, WIDTH, seed=1)
    second = random(1, 1, 6, 1, WIDTH, seed=2)
    _, state = ours.step(marker, ours.empty())
    _, state = ours.step(first, state)
    parents = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    output, _ = ours.step(second, ours.gather(state, parents))
    rows = [marker.expand(1, 1, 6, 1, WIDTH), first[:, :, parents[0, 0]], second]
    wanted = whole(plain, torch.stack([x[0, 0, :, 0] for x in rows], 1))
    close(output[0, 0, :, 0], wanted[:, -1])
    each = random(1, BATCH, TIME, THOUGHTS, WIDTH, seed=3)
    output, _ = ours.step(each, ours.step(marker, ours.empty())[1])
    wanted = whole(plain, torch.stack([marker.expand_as(each), each], 4).flatten(0, 3))[:, -1]
    close(output, wanted.view_as(output))


def test_no_parameter_is_left_over() -> None:
    """Check that tokens are passed as embeddings: the library's token table is removed."""
    for family in (*CONFIGS, NATIVE):
        ours, (context, symbols) = backbone(family), context_and_symbols()
        think(ours, symbols, ours.read(context)[1])[0].square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in ours.parameters())


def test_another_attention_under_it_is_noticed() -> None:
    """Check it for a config that models share: without the keys a branch would silently attend to nothing."""
    ours = backbone("llama")
    AutoModel.from_config(ours.decoder._code[0].config, attn_implementation="eager")
    with pytest.raises(RuntimeError, match="was its config shared"):
        ours.read(context_and_symbols()[0])
