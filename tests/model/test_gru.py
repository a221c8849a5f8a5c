"""The GRU backbone: nn.GRU's numbers, the backbone's law, and the hand-written gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from toyqs.model.backbones import gru_scan
from toyqs.model.backbones.backbone import Rows
from toyqs.model.backbones.gru import GRU, _Branch
from toyqs.model.backbones.gru_scan import Sequence
from toyqs.model.layers import gather_rows, initialise

SEEDS, BATCH, TIME, WIDTH = 2, 3, 5, 4


def backbone(width: int = WIDTH, seeds: int = SEEDS) -> GRU:
    gru = GRU(seeds, width)
    initialise(gru, range(seeds))
    return gru.double()


def torch_gru(gru: GRU, seed: int) -> nn.GRU:
    """Return torch's GRU with the weights of one seed."""
    plain = nn.GRU(gru.width, gru.width, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        plain.weight_ih_l0.copy_(gru.weight_ih[seed].T)
        plain.weight_hh_l0.copy_(gru.weight_hh[seed].T)
        plain.bias_ih_l0.copy_(gru.bias_ih[seed, 0])
        plain.bias_hh_l0.copy_(gru.bias_hh[seed, 0])
    return plain


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(gru: GRU, embeddings: Tensor) -> Tensor:
    """Project embeddings (S, ..., D), in the same shape but for the width."""
    return gru.project_input(embeddings.flatten(1, -2)).view(*embeddings.shape[:-1], 3 * gru.width)


def test_reading_equals_nn_gru_in_values_and_gradients() -> None:
    gru, embeddings = backbone(), random(SEEDS, BATCH, TIME, WIDTH)
    outputs, _ = gru.read(rows(gru, embeddings))
    pull = random(*outputs.shape, seed=1)
    (outputs * pull).sum().backward()
    for seed in range(SEEDS):
        plain = torch_gru(gru, seed)
        wanted, _ = plain(embeddings[seed])
        torch.testing.assert_close(outputs[seed], wanted, rtol=0, atol=1e-12)
        (wanted * pull[seed]).sum().backward()
        for ours, theirs in (
            (gru.weight_ih.grad[seed], plain.weight_ih_l0.grad.T),
            (gru.weight_hh.grad[seed], plain.weight_hh_l0.grad.T),
            (gru.bias_ih.grad[seed, 0], plain.bias_ih_l0.grad),
            (gru.bias_hh.grad[seed, 0], plain.bias_hh_l0.grad),
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_reading_then_stepping_equals_reading_it_all() -> None:
    gru, thoughts, length = backbone(), 3, 4
    context = rows(gru, random(SEEDS, BATCH, TIME, WIDTH))
    symbols = rows(gru, random(SEEDS, BATCH, TIME, thoughts, length, WIDTH, seed=1))
    _, state = gru.read(context)
    for index in range(length):
        hidden, state = gru.step(symbols[..., index, :], state)
        for t in range(TIME):
            for k in range(thoughts):
                whole = torch.cat([context[:, :, : t + 1], symbols[:, :, t, k, : index + 1]], dim=2)
                wanted = gru.read(whole)[0][:, :, -1]
                torch.testing.assert_close(hidden[:, :, t, k], wanted, rtol=0, atol=1e-12)


def test_the_law_holds_for_gradients_too() -> None:
    gru = backbone()
    context, symbol = random(SEEDS, BATCH, TIME, WIDTH), random(SEEDS, BATCH, TIME, 1, WIDTH, seed=1)

    def gradients(hidden: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(hidden.square().sum(), list(gru.parameters())))

    _, state = gru.read(rows(gru, context))
    stepped = gradients(gru.step(rows(gru, symbol), state)[0])
    read = [torch.zeros_like(p) for p in gru.parameters()]
    for t in range(TIME):
        whole = rows(gru, torch.cat([context[:, :, : t + 1], symbol[:, :, t]], dim=2))
        parts = gradients(gru.read(whole)[0][:, :, -1])
        read = [total + part for total, part in zip(read, parts, strict=True)]
    for ours, theirs in zip(stepped, read, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_later_input_changes_no_earlier_output() -> None:
    gru = backbone()
    x = rows(gru, random(SEEDS, BATCH, TIME, WIDTH)).detach()
    outputs, _ = gru.read(x)
    other = x.clone()
    other[:, :, 3] += 1.0
    changed, _ = gru.read(other)
    assert torch.equal(outputs[:, :, :3], changed[:, :, :3])
    assert not torch.equal(outputs[:, :, 3:], changed[:, :, 3:])


def test_gather_takes_the_branch_points_asked_for() -> None:
    gru = backbone()
    outputs, state = gru.read(rows(gru, random(SEEDS, BATCH, TIME, WIDTH)))
    index = torch.randint(TIME, (SEEDS, BATCH, 2), generator=torch.Generator().manual_seed(0))
    taken = gru.gather(state, index)
    for s in range(SEEDS):
        for b in range(BATCH):
            for t in range(2):
                assert torch.equal(taken[s, b, t, 0], outputs[s, b, index[s, b, t]])


def step(x: Tensor, ids: Tensor | None, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _Branch.apply(x, ids, h, h, weight, bias)


def weights(width: int) -> tuple[Tensor, Tensor]:
    shapes = ((2, width, 3 * width), (2, 1, 3 * width))
    return tuple(random(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes, 7))


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("thoughts", [(3, 1), (1, 3), (3, 3), (1, 1)], ids=["state", "x", "none", "both"])
def test_gradient_of_a_branch_step(thoughts: tuple[int, int], width: int) -> None:
    """Check it with the thoughts' axis of size 1 in the inputs, in the state, or in neither."""
    of_x, of_state = thoughts
    x = random(2, 2, 1, of_x, 3 * width).requires_grad_()
    h = random(2, 2, 1, of_state, width, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(step, (x, None, h, *weights(width)))
    table, ids = random(2, 4, 3 * width).requires_grad_(), torch.tensor([3, 1, 1])[:of_x].expand(2, 2, 1, -1)
    assert torch.autograd.gradcheck(step, (table, ids, h, *weights(width)))


def test_gradient_of_a_branch_step_that_all_positions_share() -> None:
    """Check that a marker is one input for all branches, and a start state one state for all symbols."""
    marker, h = (random(2, 1, 1, 1, 6).requires_grad_(), random(2, 2, 2, 3, 2, seed=2).requires_grad_())
    assert torch.autograd.gradcheck(step, (marker, None, h, *weights(2)))
    x, h = random(2, 1, 4, 1, 6).requires_grad_(), random(2, 1, 1, 1, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(step, (x, None, h, *weights(2)))


def test_rows_of_a_table_are_those_gathered_to_the_bit() -> None:
    """Check values and gradients, each seed with its own rows, and some rows used often, others never."""
    gru, state = backbone(), random(SEEDS, BATCH, TIME, 1, WIDTH, seed=2).requires_grad_()
    table = random(SEEDS, 5, 3 * WIDTH).requires_grad_()
    ids = torch.randint(4, (SEEDS, BATCH, TIME, 3), generator=torch.Generator().manual_seed(1))
    found = []
    for x in (Rows(table, ids), gather_rows(table, ids)):
        hidden, _ = gru.step(x, state)
        given = (table, state, gru.weight_hh, gru.bias_hh)
        found.append([hidden, *torch.autograd.grad(hidden.square().sum(), given)])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("time", [1, 2, 4])
def test_gradient_of_a_sequence(time: int) -> None:
    x = random(2, 2, time, 6).requires_grad_()
    weight, bias = random(2, 2, 6, seed=1).requires_grad_(), random(2, 1, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(Sequence.apply, (x, weight, bias))


def test_sequences_of_one_shape_do_not_share_results_in_the_reused_buffers() -> None:
    """Read two sequences before either backward pass, as two roles do, and a longer one between."""
    weight, bias = random(2, 2, 6, seed=1).requires_grad_(), random(2, 1, 6, seed=2).requires_grad_()
    one, two = (random(2, 2, 4, 6, seed=n).requires_grad_() for n in (3, 4))

    def alone(x: Tensor) -> tuple[Tensor, ...]:
        out = Sequence.apply(x, weight, bias)
        return out.detach().clone(), *torch.autograd.grad(out.square().sum(), (x, weight, bias))

    wanted = alone(one), alone(two)
    outs = [Sequence.apply(x, weight, bias) for x in (one, two)]
    alone(random(2, 2, 5, 6, seed=5).requires_grad_())
    for x, out, (values, *grads) in zip((one, two), outs, wanted, strict=True):
        assert torch.equal(out, values)
        found = torch.autograd.grad(out.square().sum(), (x, weight, bias))
        assert all(map(torch.equal, found, grads))


@pytest.mark.parametrize("kept", [0, 2**30])
def test_long_sequences_are_read_like_short_ones(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Check that buffers too large to be reused give the same numbers."""
    gru = backbone()
    x = rows(gru, random(SEEDS, BATCH, TIME, WIDTH)).detach()
    wanted = gru.read(x)[0]
    monkeypatch.setattr(gru_scan, "REUSED_NUMBERS", kept)
    assert torch.equal(gru.read(x)[0], wanted)


def test_seeds_do_not_mix() -> None:
    gru, embeddings = backbone(seeds=3), random(3, BATCH, TIME, WIDTH)
    outputs, _ = gru.read(rows(gru, embeddings))
    grads = torch.autograd.grad(outputs[1].square().sum(), list(gru.parameters()))
    for grad in grads:
        assert bool(grad[1].any()) and not grad[0].any() and not grad[2].any()
