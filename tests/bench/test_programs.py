"""The programs that are compared: all compute the same, a difference is noticed, and time and bytes count."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor

from bench import programs, reference, step
from bench.programs import JAX, NATIVE, REFERENCE, TORCH, Program, Ratio, compare_gradients
from bench.reference import Prediction, Recipe, Reference
from bench.step import QUICK, Size
from toyqs.config.builders.model import build_model
from toyqs.config.run_config import RunConfig

TOLERANCE = 1e-10


def tiny(groups: str = "ABCD", base: int = 6, reasoner: int = 6) -> RunConfig:
    return replace(Size(base, reasoner, 2, 5, 3, 3, 7).config, weight_groups=list(groups))


@pytest.mark.parametrize(
    "config",
    [tiny(), tiny(base=4), tiny("AABB"), tiny("ABBC", base=3), tiny("AAAA")],
    ids=["ABCD", "ABCD two widths", "AABB", "ABBC two widths", "AAAA"],
)
def test_gradients_are_equal(config: RunConfig) -> None:
    found = compare_gradients(config, names=(REFERENCE, NATIVE))
    assert found.keys() == {*programs.programs(config)} - {TORCH, JAX}
    for gradients in found.values():
        assert gradients.difference <= TOLERANCE
        assert gradients.largest > 1e-3


def test_every_parameter_is_compared() -> None:
    config = tiny()
    model = build_model(config, [0])
    translated = reference.translated(model, lambda parameter: parameter.detach())
    plain = Reference(model.letters, config.widths, config.task.vocab_size)
    assert sum(v.numel() for v in translated.values()) == sum(p.numel() for p in model.parameters())
    assert {n: p.shape for n, p in plain.named_parameters()} == {n: v.shape for n, v in translated.items()}


def test_a_wrong_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reference.thinking_loss

    def wrong(prediction: Prediction, targets: Tensor, entropy_beta: float) -> Tensor:
        return right(prediction._replace(log_prob=prediction.log_prob * 0.99), targets, entropy_beta)

    monkeypatch.setattr(reference, "thinking_loss", wrong)
    assert compare_gradients(tiny(), names=(REFERENCE,))[REFERENCE].difference > 1e3 * TOLERANCE


def test_the_reference_samples_what_it_scores() -> None:
    """Thoughts that were sampled get the same numbers when they are forced."""
    config, recipe = tiny(), Recipe(3, 1, 1e-3, 0.1, 1.0)
    model = build_model(config, [0])
    plain = Reference(model.letters, config.widths, config.task.vocab_size)
    inputs = torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sampled = plain(inputs, recipe)
    # A thought of one symbol can be recognised by its log-probability.
    each = [plain(inputs, recipe, torch.full((2, 3, 5, 1), symbol)) for symbol in range(7)]
    symbols = torch.stack([x.log_prob for x in each], -1).sub(sampled.log_prob.unsqueeze(-1)).abs().argmin(-1)
    forced = plain(inputs, recipe, symbols.unsqueeze(-1))
    torch.testing.assert_close(forced.logits, sampled.logits)
    torch.testing.assert_close(forced.log_prob, sampled.log_prob)
    assert len(symbols.unique()) > 1


def test_the_steps_of_a_turn_are_timed_and_the_one_before_them_is_not() -> None:
    made: list[int] = []

    def run(data: Iterator[int], count: int) -> None:
        for batch in islice(data, count):
            end = time.process_time() + (0.2 if not made else 0.01)
            made.append(batch)
            while time.process_time() < end:
                pass

    assert 0.01 <= programs._timed(run, [5, 6], 3) < 0.05
    assert made == [5, 6, 5, 6]
    made.clear()
    assert programs._timed(run, [5], 1) >= 0.2 and made == [5]


def test_all_have_their_turns_and_each_is_first_in_turn() -> None:
    order: list[str] = []

    def named(name: str, seconds: float) -> Program:
        def steps(count: int) -> float:
            order.append(name)
            return seconds * count

        return Program(steps, lambda: 0.0)

    times = programs.in_turns({"a": named("a", 1.0), "b": named("b", 2.0)}, 3, 2)
    assert times == {"a": [2.0] * 3, "b": [4.0] * 3}
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert programs.turn_of(named("a", 0.1), 1.0) == 10
    assert programs.turn_of(named("a", 9.0), 1.0) == 1
    assert (
        programs.turn_of(named("a", 1e-9), 1.0) == programs.MOST < 30
    )  # from which on gradients are measured


def test_ratios_are_of_the_same_round() -> None:
    assert programs.ratio([2, 8, 12, 2, 5], [1, 2, 4, 2, 1]) == Ratio(3, 2, 4)
    assert programs.ratio([3], [2]) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("config", QUICK.runs.values(), ids=QUICK.runs)
def test_a_program_trains(config: RunConfig) -> None:
    made = programs.program(TORCH, config, [0, 1])
    assert made.steps(2) > 0 and made.peak() > 1000


def test_bytes_alive_at_once_are_counted() -> None:
    with step.Peak() as counted:
        first = torch.zeros(1000)
        view = first[10:]
        second = view + 1
        assert counted.peak == 4000 + 3960
        del second
        third = torch.zeros(100)
        assert counted.peak == 7960
        del first, view, third
        torch.zeros(2000)
    assert counted.peak == 8000


def test_chunks_hold_little_of_a_step() -> None:
    """The step of 32768 thought tokens at 32/32; whole it holds 1,700 bytes for each."""
    size = Size()
    by_sizes = programs.program(TORCH, size.config).peak() / size.tokens
    assert 600 < by_sizes < 685
    smaller = programs.program(TORCH, replace(size.config, chunk_positions=14))
    assert smaller.peak() / size.tokens < 500
