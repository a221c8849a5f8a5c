"""A step of the training: its loss, the weights of its parts, and how they and the learning rate fall."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.model.test_gru import torch_gru
from tests.training.test_loop import Values, trained
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.objective import nll
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.positions import focus, thinking_positions
from toyqs.rng import ThoughtSizes
from toyqs.training.batches import draw_batches, prepare
from toyqs.training.loop import accumulate, train
from toyqs.training.params import LossWeight, TrainingParams, learning_rate
from toyqs.types import Batch, Trace


def plain_language_model(model: LatentReasoner, inputs: Tensor) -> tuple[Tensor, list[nn.Parameter]]:
    """Return logits (B, T, V) of torch's own layers with the first seed's weights, and their parameters."""
    core = model.cores["A"]
    embedding = nn.Embedding.from_pretrained(core.tokens.weight[0].detach().clone(), freeze=False)
    gru = torch_gru(core.backbone, 0)
    linear = nn.Linear(gru.hidden_size, tiny.SYMBOLS, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(model.head.weight_0[0].T)
        linear.bias.copy_(model.head.bias[0, 0])
    outputs, _ = gru(embedding(inputs))
    return linear(outputs), [embedding.weight, *gru.parameters(), *linear.parameters()]


def test_nll_equals_a_plain_gru_language_model() -> None:
    model, batch, noise = tiny.sampled(tiny.config(use_reasoner=False, base_lm_hidden_dim=5), copies=1)
    everywhere = batch._replace(think=torch.ones_like(batch.think))
    loss = nll(model(batch.inputs, None, noise), everywhere).parts["nll"]
    logits, parameters = plain_language_model(model, batch.inputs[0])
    each = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets[0].flatten(), reduction="none")
    weights = batch.weights[0].flatten()
    wanted = (each * weights).sum() / weights.sum()
    torch.testing.assert_close(loss[0], wanted, rtol=0, atol=1e-12)
    ours = {name: g[0] for name, g in tiny.gradients(loss.sum(), model).items()}
    theirs = torch.autograd.grad(wanted, parameters)
    names = [
        "tokens.weight",
        "backbone.weight_ih",
        "backbone.weight_hh",
        "backbone.bias_ih",
        "backbone.bias_hh",
    ]
    names = [*(f"cores.A.{name}" for name in names), "head.weight_0", "head.bias"]
    assert sorted(names) == sorted(ours)
    for name, grad in zip(names, theirs, strict=True):
        wanted = (grad.T if "weight_" in name else grad).reshape(ours[name].shape)
        torch.testing.assert_close(ours[name], wanted, rtol=0, atol=1e-12)


def test_learning_rates() -> None:
    plain = TrainingParams(steps=100, batch_size=1, seq_len=1, thoughts=ThoughtSizes(1, 0), lr=2.0)
    assert [learning_rate(step, plain) for step in (0, 50, 99)] == [2.0, 2.0, 2.0]
    for schedule, end in (("linear", 0.0), ("cosine", 0.1)):
        rates = [learning_rate(step, replace(plain, schedule=schedule)) for step in range(101)]
        assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0)
        assert rates[9] == rates[10] == pytest.approx(2.0)
        assert rates[100] == pytest.approx(end)
        assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
        middle = 1.0 if schedule == "linear" else 1.05
        assert rates[55] == pytest.approx(middle)
        assert learning_rate(0, replace(plain, schedule=schedule, steps=1)) == 2.0


def test_weights_of_the_loss_may_fall() -> None:
    assert [LossWeight(0.5).at(x) for x in (0.0, 0.5, 1.0)] == [0.5, 0.5, 0.5]
    assert [LossWeight(0.5, linear=True).at(x) for x in (0.0, 0.5, 1.0)] == [0.5, 0.25, 0.0]


def test_a_gates_floor_falls_with_the_training() -> None:
    numbers = build_training_params(tiny.config(mixing="gate", gate_floor=0.8))
    assert [numbers.gate_floor_at(x) for x in (0.0, 0.125, 0.25, 1.0)] == [0.8, 0.4, 0.0, 0.0]
    assert build_training_params(tiny.config(mixing="add", gate_floor=0.8)).gate_floor_at(0.0) == 0.0


def test_the_loop_passes_the_gate_floor_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, right = [], LatentReasoner.forward

    def watching(self: LatentReasoner, *args: Any) -> Trace:
        seen.append(args[5])
        return right(self, *args)

    monkeypatch.setattr(LatentReasoner, "forward", watching)
    trained(tiny.config(mixing="gate", gate_floor=0.8, max_steps=8), [0])
    assert seen == [0.8, 0.4, *[0.0] * 6]


def test_parts_are_weighted_and_added() -> None:
    model, batch, noise = tiny.sampled(tiny.config(), size=4, copies=2)
    running = torch.zeros(2).double()

    def gradient(**weights: float) -> tiny.Gradients:
        model.zero_grad()
        each = {"nll": 0.0, "policy": 0.0, "entropy": 0.0} | weights
        accumulate(
            model, Reinforce(), prepare(batch, noise), each, build_training_params(tiny.config()), running
        )
        return {
            n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()
        }

    apart = [gradient(nll=1.0), gradient(policy=1.0), gradient(entropy=1.0)]
    wanted = {n: 2.0 * apart[0][n] - apart[1][n] + 0.3 * apart[2][n] for n in apart[0]}
    tiny.close(gradient(nll=2.0, policy=-1.0, entropy=0.3), wanted, tolerance=1e-12)
    parts = Reinforce()(
        model(batch.inputs, thinking_positions(batch), noise), focus(batch, thinking_positions(batch))
    ).parts
    tiny.close(apart[1], tiny.gradients(parts["policy"].sum(), model), tolerance=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "weight_decay", "largest"),
    [("adamw", 0.0, 0.5), ("adamw", 0.3, 0.5), ("adam", 0.3, 0.75), ("sgd", 0.3, 0.8)],
)
def test_training_is_a_plain_loop_of_clipped_steps(
    optimizer: str, weight_decay: float, largest: float
) -> None:
    """Check it against torch's own optimiser, with losses whose weights fall and a rate that does."""
    settings = tiny.config(
        clip_gradients=largest, entropy_encouragement_coef=0.1, entropy_schedule="linear", max_steps=6
    )
    settings = replace(settings, schedule="linear", weight_decay=weight_decay, optimizer=optimizer)
    model, plain, objective = tiny.model(settings), tiny.model(settings), build_objective(settings)
    numbers, found = build_training_params(settings), []

    def parameters(of: LatentReasoner) -> Tensor:
        return torch.cat([p.detach().flatten() for p in of.parameters()])

    data, again = (draw_batches(settings.task, [3], numbers, next(plain.parameters())) for _ in range(2))
    train(model, objective, data, numbers, lambda step, values: found.append(parameters(model)))
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    theirs, norms = kind(plain.parameters(), weight_decay=weight_decay), []
    for step, ours in enumerate(found):
        theirs.zero_grad()
        weights = {name: weight.at(step / 6) for name, weight in numbers.weights.items()}
        accumulate(plain, objective, next(again), weights, numbers, torch.zeros(1).double())
        norms.append(float(nn.utils.clip_grad_norm_(plain.parameters(), largest)))
        theirs.param_groups[0]["lr"] = learning_rate(step, numbers)
        theirs.step()
        torch.testing.assert_close(ours, parameters(plain), rtol=0, atol=1e-12)
    assert len(norms) == 6 and min(norms) < largest < max(norms), "the case needs both"


def test_inner_steps_are_all_made_on_the_same_thoughts() -> None:
    settings = tiny.config(objective="ppo_clip", inner_steps=2, max_steps=3)
    model, numbers = tiny.model(settings), build_training_params(settings)
    objective = build_objective(settings)
    seen: list[Trace] = []

    def watching(trace: Trace, batch: Batch) -> Any:
        seen.append(trace)
        return objective(trace, batch)

    data = draw_batches(settings.task, [3], numbers, next(model.parameters()))
    train(model, watching, data, numbers, lambda step, values: None)
    assert len(seen) == 6
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(first.symbols, second.symbols)
        one, other = ((x.log_prob.detach() - x.sampler_log_prob).sum(-1) for x in (first, second))
        assert float(one.abs().max()) < 1e-12, "drawn by the policy as it is"
        assert float(other.abs().max()) > 1e-6, "the policy has moved on"


def test_the_running_reward_is_the_mean_of_earlier_steps() -> None:
    settings = tiny.config(baseline="ema", max_steps=4)
    model, numbers = tiny.model(settings, 2), build_training_params(settings)
    seen: list[Tensor] = []
    objective = Reinforce(baseline="ema")

    def watching(trace: Trace, batch: Batch) -> Any:
        seen.append(trace.running_reward.clone())
        return objective(trace, batch)

    values: Values = []
    data = draw_batches(settings.task, [0, 1], numbers, next(model.parameters()))
    train(model, watching, data, numbers, lambda step, v: values.append(dict(v)))
    assert not seen[0].any()
    for step in range(1, 4):
        decays = torch.tensor([0.99 ** (step - 1 - i) for i in range(step)]).double()
        earlier = torch.stack([v["reward"] for v in values[:step]])
        wanted = (decays[:, None] * earlier).sum(0) / decays.sum()
        torch.testing.assert_close(seen[step].double(), wanted, rtol=1e-6, atol=0)


def test_training_learns() -> None:
    """Check that the plain NLL of a constant target falls to about 0."""

    class Constant(tiny.Toy):
        def sample(self, *args: Any) -> Batch:
            return super().sample(*args)._replace(targets=torch.ones(1, args[1], 4, dtype=torch.long))

    settings = replace(tiny.config(task=Constant(), max_steps=80, base_lr=0.05), schedule="linear")
    _, values = trained(settings, [0, 1])
    assert bool((values[0]["nll"] > 0.7).all()) and bool((values[-1]["nll"] < 0.05).all())
