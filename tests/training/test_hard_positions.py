"""Which positions think, and what is trained and measured at the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.config.checks.checking import accepted, refused
from tests.objectives.test_hard import alone
from tests.training.test_loop import quick, same, trained
from toyqs.config.builders.training import build_objective, build_training_params, thought_sizes
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.training.batches import draw_batches
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.hard_positions import entropy_of, highest_entropy, select_positions
from toyqs.training.loop import accumulate
from toyqs.types import Batch

HARD = {"think_at": "hard"}
CHAIN = HiddenMarkov(states=3, vocab=4, positions=8)
KINDS = {
    "token": {},
    "onward": {"interpreter_start": "onward"},
    "gaussian": {"thoughts": "gaussian"},
    "a path": {"thoughts": "gaussian", "objective": "pathwise"},
    "vargrad": {"objective": "vargrad", "entropy_encouragement_coef": 0.0},
    "multi_sample": {"objective": "multi_sample"},
    "ratio": {"reward": "log_ratio", "reference": "no_thought"},
    "gate": {"mixing": "gate", "gate_floor": 0.5},
    "average": {"baseline": "average_thought"},
    "greedy": {"baseline": "greedy_thought"},
    "zero length": {"max_reasoning_len": 0},
    "no reasoner": {"use_reasoner": False},
}


@pytest.mark.parametrize(("quantile", "available", "wanted"), [
    (0.75, 32, 8), (0.75, 30, 8), (0.7, 10, 3), (0.9, 10, 1), (0.99, 10, 1), (0.01, 10, 10), (None, 10, 10),
])  # fmt: skip
def test_how_many_think(quantile: float | None, available: int, wanted: int) -> None:
    assert ThoughtSizes(1, 1, hard_quantile=quantile).thinking(available) == wanted


def test_the_highest_entropies_are_chosen_in_order_and_of_equal_ones_the_earliest() -> None:
    entropy = torch.tensor(
        [[[0.1, 0.9, 0.3, 0.9, 0.5], [0.2, 0.2, 0.2, 0.2, 0.2], [5.0, 4.0, 3.0, 2.0, 1.0]]]
    )
    assert highest_entropy(entropy, 2).tolist() == [[[1, 3], [0, 1], [0, 1]]]
    assert highest_entropy(entropy, 1).tolist() == [[[1], [0], [0]]]
    assert highest_entropy(entropy, 5).tolist() == [[[0, 1, 2, 3, 4]] * 3]


def test_entropy() -> None:
    logits = tiny.noise((3, 20)).log()
    wanted = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy_of(logits), wanted, rtol=0, atol=1e-12)
    assert not entropy_of(logits.requires_grad_()).requires_grad


def chain(settings: RunConfig, size: int = 4) -> tuple[LatentReasoner, Batch]:
    return tiny.model(settings), CHAIN.sample(stream(0, "x"), size, 8, "train")


def everywhere(settings: RunConfig, model: LatentReasoner, batch: Batch) -> Any:
    return select_positions(model, model.read(batch.inputs, None), batch, 2)


def test_the_choice_sees_no_target_and_each_entropy_only_what_came_before() -> None:
    settings = tiny.config(task=CHAIN, **HARD)
    model, batch = chain(settings)
    chosen = everywhere(settings, model, batch)
    other = batch._replace(targets=(batch.targets + 1) % 4)
    assert torch.equal(chosen.think, everywhere(settings, model, other).think)
    assert bool((chosen.think.sum(-1) == 2).all())
    later = batch.inputs.clone()
    later[..., 5:] = (later[..., 5:] + 1) % 4
    mine, theirs = (
        entropy_of(model.talk(model.read(inputs, None), None).logits)[..., 0, 0]
        for inputs in (batch.inputs, later)
    )
    assert torch.equal(mine[..., :5], theirs[..., :5])
    assert not torch.equal(mine[..., 5:], theirs[..., 5:])


def gradient(settings: RunConfig, parts: int = 1) -> tuple[tiny.Gradients, dict[str, Tensor]]:
    numbers = build_training_params(settings)
    numbers = type(numbers)(**{**numbers.__dict__, "grad_acc": parts})
    model = tiny.model(settings, 2)
    drawn = next(draw_batches(settings.task, [0, 1], numbers, next(model.parameters())))
    weights = {name: weight.at(0.0) for name, weight in numbers.weights.items()}
    running = torch.full((2,), -0.5).double()
    values = accumulate(model, build_objective(settings), drawn, weights, numbers, running)
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}, values


@pytest.mark.parametrize("kind", ["token", "gaussian", "vargrad", "zero length"])
@pytest.mark.parametrize("task", [CHAIN, tiny.Toy()])
def test_parts_of_a_batch_add_up_to_its_gradient(kind: str, task: Any) -> None:
    """Check it with positions of different weights, as in the toy task."""
    settings = tiny.config(task=task, **HARD, **KINDS[kind], hard_quantile=0.5)
    whole, values = gradient(settings)
    for parts in (2, 4):
        grads, found = gradient(settings, parts)
        tiny.close(grads, whole, tolerance=1e-12)
        torch.testing.assert_close(found["nll"], values["nll"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "no reasoner"])
def test_where_all_are_hard_it_is_thinking_everywhere(kind: str) -> None:
    """Check it where all positions are marked, and the quantile is so low that all think."""
    plain = tiny.config(task=CHAIN, **KINDS[kind])
    grads, values = gradient(tiny.config(task=CHAIN, **HARD, hard_quantile=0.01, **KINDS[kind]))
    wanted, wanted_values = gradient(plain)
    tiny.close(grads, wanted, tolerance=1e-12)
    for name, value in wanted_values.items():
        torch.testing.assert_close(values[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_alone_and_in_company_is_the_same_run(kind: str) -> None:
    settings = quick(task=CHAIN, **HARD, **KINDS[kind], max_steps=8)
    same(trained(settings, [5]), trained(settings, [4, 5, 6]), (0, 1))


def test_noise_is_drawn_for_the_thinking_positions_alone() -> None:
    settings = quick(task=CHAIN, **HARD)
    drawn = next(draw_batches(CHAIN, [0], build_training_params(settings), torch.zeros(1)))
    assert drawn.noise.shape == (1, 9, 2, 3, 2) and drawn.counted.inputs.shape == (1, 9, 8)


def test_the_context_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, right, count = tiny.config(task=CHAIN, **HARD), LatentReasoner.read, []

    def counting(self: LatentReasoner, *args: Any) -> Any:
        count.append(1)
        return right(self, *args)

    monkeypatch.setattr(LatentReasoner, "read", counting)
    gradient(settings)
    assert len(count) == 1


SEEDS, SIZE, THOUGHTS = [4, 9], 5, 3


def measured(quantile: float = 0.5, **changes: Any) -> tuple[RunConfig, Any, Batch, dict[str, Tensor]]:
    settings = tiny.config(trice_samples=THOUGHTS, **HARD, hard_quantile=quantile, **changes)
    model, batch = tiny.model(settings, len(SEEDS)), tiny.batch(SIZE, copies=len(SEEDS))
    with torch.no_grad():
        return settings, model, batch, evaluate(model, batch, SEEDS, thought_sizes(settings), full=True)


Case = tuple[Tensor, Tensor, Tensor]  # log q (K, V) at a position, its target, its weight


def naive(settings: RunConfig, model: LatentReasoner, batch: Batch, noise: Tensor) -> dict[str, list[Case]]:
    """Measure the harder position of every sequence, with own and shuffled thoughts, and the easier one."""
    found: dict[str, list[Case]] = {"hard": [], "shuffled": [], "easy": []}
    prefixes, thoughts = [], []
    for b in range(SIZE):
        tokens, places = batch.inputs[0, b], batch.think[0, b].nonzero()[:, 0]
        without = {int(t): alone(model, settings, tokens[: t + 1]) for t in places}
        harder, easier = sorted(without, key=lambda t: float((without[t].exp() * without[t]).sum()))
        context = model.read(batch.inputs[:1, b : b + 1], torch.full((1, 1, 1), harder))
        thoughts.append(model.think(context, noise[:, b : b + 1]).symbols[0, 0, 0])
        prefixes.append((tokens[: harder + 1], batch.targets[0, b, harder], batch.weights[0, b, harder]))
        found["easy"].append(
            (without[easier][None], batch.targets[0, b, easier], batch.weights[0, b, easier])
        )
    for b, (tokens, *rest) in enumerate(prefixes):
        for name, symbols in (("hard", thoughts[b]), ("shuffled", thoughts[b - 1])):
            found[name].append((reference.predict(model, settings, tokens, symbols).log_q, *rest))
    return found


def mean(cases: list[Case], value: Callable[[Tensor, Tensor], Tensor]) -> float:
    weighted = sum(weight * value(log_q, target) for log_q, target, weight in cases)
    return float(weighted / sum(weight for _, _, weight in cases))


def lost(log_q: Tensor, target: Tensor) -> Tensor:
    return -log_q[:, target].mean()


def right(log_q: Tensor, target: Tensor) -> Tensor:
    return (log_q.argmax(-1) == target).double().mean()


@torch.no_grad()
def test_all_counted_positions_are_measured() -> None:
    """Compare with a naive loop: the harder of two positions thinks, the other does not."""
    settings, _, batch, got = measured()
    noise = thought_noise(
        [stream(s, "evaluation noise") for s in SEEDS], batch.think, thought_sizes(settings)
    )
    for s in range(len(SEEDS)):  # both seeds hold the same weights
        cases = naive(settings, tiny.model(settings), batch, noise[s : s + 1])
        wanted = {
            "nll_hard": mean(cases["hard"], lost),
            "nll_easy": mean(cases["easy"], lost),
            "nll": mean(cases["hard"] + cases["easy"], lost),
            "nll_shuffled": mean(cases["shuffled"] + cases["easy"], lost),
            "accuracy": mean(cases["hard"] + cases["easy"], right),
        }
        for name, value in wanted.items():
            assert float(got[name][s]) == pytest.approx(value, abs=1e-12), name
    assert got["thinking_share"].tolist() == [0.5, 0.5]


def test_without_other_positions_there_is_nothing_easy() -> None:
    settings, model, batch, got = measured(0.01)
    assert "nll_easy" not in got and torch.equal(got["nll"], got["nll_hard"])
    with torch.no_grad():
        sizes = thought_sizes(settings)._replace(hard_quantile=None)
        wanted = evaluate(model, batch, SEEDS, sizes, full=True)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=1e-12)


def test_zero_length_thoughts_are_measured_likewise() -> None:
    _, _, _, got = measured(max_reasoning_len=0)
    assert {"nll", "accuracy", "nll_no_thought", "nll_hard", "nll_easy", "thinking_share"} == got.keys()


def test_the_controls_choose_too_where_they_have_thoughts() -> None:
    config = quick(**HARD)
    controls = unmatched_controls(config)
    chooses = {name: thought_sizes(control).hard_quantile for name, control in controls.items()}
    assert chooses.pop("no_reasoner") is None
    thinking = ["zero_length", "state_handed_on", "pause", "policy_off"]
    assert chooses == dict.fromkeys(thinking, 0.75)
    plain = unmatched_controls(quick())
    keys = {name: run_key(controls[name], 0) == run_key(plain[name], 0) for name in controls}
    assert keys == {"no_reasoner": True, **dict.fromkeys(thinking, False)}


def test_refusals() -> None:
    refused("think_at=hard: .*no prediction without a thought", **HARD, use_base_lm=False)
    refused("think_at=hard: .*no prediction without", **HARD, mixing="thought", max_reasoning_len=0)
    refused("think_at=hard: .*n_tokens_ahead=2", **HARD, n_tokens_ahead=2)
    refused("think_at=hard: .*reward=kl_forward", **HARD, reward="kl_forward", reference="oracle")
    refused("think_at=hard: .*critic", **HARD, baseline="value")
    refused("think_at=hard: .*ppo_clip", **HARD, objective="ppo_clip")
    for quantile in (0.0, 1.0, -0.1, 1.5):
        refused(f"hard_quantile={quantile}: ", hard_quantile=quantile)
    for kind in KINDS.values():
        assert accepted(**HARD, **({"controls": "none"} | kind)) == []
