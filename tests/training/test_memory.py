"""The memory of chains, and finite training sets."""

from __future__ import annotations

import itertools

import torch

from tests import tiny
from toyqs.config.builders.training import build_training_params
from toyqs.training.batches import draw_batches
from toyqs.training.sampling.ahead import sample_thoughts
from toyqs.training.sampling.memory import Memory

SETTINGS = {"objective": "mcmc_em", "trice_samples": 3, "train_examples": 9}


def test_a_chain_is_recalled_where_its_example_comes_again_and_moves_by_its_law() -> None:
    memory, examples = Memory(3), torch.tensor([[0, 2]])
    drawn = torch.arange(2 * 3 * 2).view(1, 2, 1, 3, 2)  # two sequences, three thoughts of two symbols
    assert torch.equal(memory.recall(examples, drawn), drawn)
    log_q = torch.tensor([[-1.0, -9.0, -9.0], [-9.0, -1.0, -9.0]]).view(1, 2, 1, 3)
    numbers = torch.tensor([[[0.5], [0.5]]]).double()
    memory.keep([memory.next(examples, drawn, log_q, numbers)])
    again = memory.recall(torch.tensor([[2, 1]]), drawn + 100)
    assert again[0, 0, 0, -1].tolist() == drawn[0, 1, 0, 1].tolist(), "the accepted proposal of example 2"
    assert torch.equal(again[0, 0, 0, :-1], drawn[0, 0, 0, :-1] + 100)
    assert torch.equal(again[0, 1], drawn[0, 1] + 100), "example 1 was never seen"


def test_a_finite_set_is_passed_through_and_its_examples_are_known() -> None:
    settings = tiny.config(**SETTINGS)
    like = torch.zeros(()).double()
    batches = draw_batches(settings.task, [0, 1], build_training_params(settings), like)
    of: dict[tuple[int, int], list[int]] = {}
    for batch in itertools.islice(batches, 40):
        assert batch.examples is not None and batch.moves is not None
        for seed, places in enumerate(batch.examples.tolist()):
            assert len(set(places)) == len(places) == 4
            for row, place in enumerate(places):
                found = batch.inputs[seed, row].tolist()
                assert of.setdefault((seed, place), found) == found
    assert len(of) == 2 * 9
    assert any(of[0, place] != of[1, place] for place in range(9))


def test_the_chain_of_parts_is_that_of_the_whole() -> None:
    """Sequences taken one by one or all at once."""
    settings = tiny.config(**SETTINGS)
    params = build_training_params(settings)
    found = []
    for size in (None, 1):
        model, memory = tiny.model(settings, 1), Memory(9)
        for batch in itertools.islice(draw_batches(settings.task, [0], params, torch.zeros(()).double()), 6):
            ready = sample_thoughts(model, batch, size=size, memory=memory)
        assert memory.states is not None and memory.known is not None
        found.append((memory.states, memory.known, ready.forced))
    for whole, parts in zip(*found, strict=True):
        assert torch.equal(whole, parts)
