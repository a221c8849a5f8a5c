"""The training loop: seeds side by side, schedules, and the data that arms share."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.model.test_gru import torch_gru
from toyqs.build import build_model, build_objective, build_settings
from toyqs.config import RunConfig
from toyqs.config_key import resolved
from toyqs.drawn import prepared, stack
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.objective import nll
from toyqs.objectives.reinforce import Reinforce
from toyqs.streams import ThoughtSizes, stream
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.rev_prog import RevProg
from toyqs.train import CHUNK, Settings, Weight, accumulate, draws, learning_rate, train
from toyqs.types import Batch, Trace, focus, thinking_positions

Values = list[dict[str, Tensor]]


def quick(**changes: Any) -> RunConfig:
    """A float32 run of 30 steps on rev_prog, of odd sizes unless told otherwise."""
    plain: dict[str, Any] = {
        "base_lm_hidden_dim": 5,
        "reasoner_hidden_dim": 7,
        "data_loader_batch_size": 9,
        "trice_samples": 3,
        "thought_vocab": None,
        "max_reasoning_len": 2,
        "advantage_scale": "batch_std",
        "entropy_encouragement_coef": 0.1,
        "clip_gradients": 1.0,
        "max_steps": 30,
    }
    return resolved(RunConfig(**(plain | changes)))


def trained(
    settings: RunConfig, seeds: list[int], broken: int | None = None
) -> tuple[dict[str, Tensor], Values]:
    """Parameters after training and every step's values; one seed's weights may be broken beforehand."""
    model, numbers = build_model(settings, seeds), build_settings(settings)
    like = next(model.parameters())
    if broken is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter[broken] = torch.nan
    values: Values = []
    data = draws(settings.task, seeds, numbers, like)
    train(model, build_objective(settings), data, numbers, lambda step, seen: values.append(dict(seen)))
    return {name: p.detach().clone() for name, p in model.named_parameters()}, values


def same(
    a: tuple[dict[str, Tensor], Values], b: tuple[dict[str, Tensor], Values], at: tuple[int, int]
) -> None:
    """One seed's run in two stacks, bit for bit."""
    (parameters, values), (others, other_values) = a, b
    i, j = at
    for name, parameter in parameters.items():
        assert torch.equal(parameter[i], others[name][j]), name
    for step, (here, there) in enumerate(zip(values, other_values, strict=True)):
        assert here.keys() == there.keys()
        for name in here:
            assert torch.equal(here[name][i], there[name][j]), f"{name} at step {step}"


PATH = {"objective": "pathwise"}
RUNS = {
    "plain": {"use_reasoner": False},
    "plain, width 3": {"use_reasoner": False, "base_lm_hidden_dim": 3, "data_loader_batch_size": 7},
    "zero length": {"max_reasoning_len": 0},
    "afresh": {},
    "afresh, even": {"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 32, "data_loader_batch_size": 16},
    "onward": {"interpreter_start": "onward", "data_loader_batch_size": 5},
    "gate": {"mixing": "gate", "trice_samples": 5},
    "gate, width 33": {"mixing": "gate", "reasoner_hidden_dim": 33, "data_loader_batch_size": 17},
    "shared head": {"share_lm_head": True, "mixing": "add", "reasoner_hidden_dim": 3},
    "all shared": {"weight_groups": list("AAAA"), "base_lm_hidden_dim": 7, "interpreter_start": "onward"},
    "mlp head": {"linear_lm_head": False, "max_steps": 10},
    "one sequence": {"data_loader_batch_size": 1, "baseline": "ema"},
    "many symbols": {"task": RevProg(p=17, m=4, k=2), "think_at": "all"},
    "hidden": {"mixing": "hidden", "trice_samples": 5},
    "logits": {"mixing": "logits", "gate_floor": 0.5, "data_loader_batch_size": 5},
    "residual": {"mixing": "residual", "n_tokens_ahead": 2},
    "three tokens ahead": {"n_tokens_ahead": 3, "mixing": "gate", "ahead_decay": 0.9},
    "reading on": {"n_tokens_ahead": 2, "ahead": "continue", "teacher_forcing_weight": 0.5},
    "accumulated": {"data_loader_batch_size": 6, "grad_acc": 2},
    "gaussian": {"thoughts": "gaussian", "prior_beta": 0.1},
    "gaussian, clipped": {"thoughts": "gaussian", "objective": "ppo_clip", "inner_steps": 2, "max_steps": 10},
    "gaussian, one number": {"thoughts": "gaussian", "latent_dim": 1, "interpreter_start": "onward"},
    "gaussian, a path": {"thoughts": "gaussian", "latent_dim": 19, **PATH, "max_steps": 10},
    "state": {"thoughts": "state", "interpreter_start": "onward", "prior_beta": 0.1},
    "state, a path": {"thoughts": "state", **PATH, "reasoner_hidden_dim": 33, "max_steps": 10},
    "gumbel": {"thoughts": "gumbel", **PATH},
    "gumbel, many symbols": {"thoughts": "gumbel", "thought_vocab": 21, **PATH, "max_steps": 10},
    "deterministic": {"thoughts": "deterministic", **PATH},
    "deterministic, onward": {"thoughts": "deterministic", **PATH, "interpreter_start": "onward"},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_seed_alone_and_in_company_is_the_same_run(name: str) -> None:
    settings = quick(**RUNS[name])
    alone, company = trained(settings, [5]), trained(settings, [4, 5, 6, 7])
    same(alone, company, (0, 1))
    parameters = company[0]
    assert all(not torch.equal(p[0], p[1]) for p in parameters.values()), "seeds differ"


def test_the_same_seed_twice_is_the_same_run() -> None:
    same(trained(quick(), [3, 4]), trained(quick(), [3, 4]), (1, 1))


@pytest.mark.parametrize("name", ["plain", "afresh", "onward", "gate", "shared head", "gaussian", "gumbel"])
def test_a_seed_that_is_not_a_number_touches_no_other(name: str) -> None:
    """Wherever it stands in the stack, the last place included."""
    settings = quick(**RUNS[name], max_steps=10)
    alone = trained(settings, [5])
    for broken, at in ((0, 1), (1, 0)):
        seeds = [6, 5] if at else [5, 6]
        company = trained(settings, seeds, broken)
        same(alone, company, (0, at))
        assert any(bool(p[broken].isnan().any()) for p in company[0].values())


@pytest.mark.parametrize("task", [tiny.Toy(), RevProg(), HiddenMarkov()])
def test_arms_with_one_seed_see_the_same_batches(task: Any) -> None:
    """Whatever else they draw: K, L and S differ."""
    arms = [
        quick(task=task),
        quick(task=task, use_reasoner=False, base_lm_hidden_dim=50),
        quick(task=task, trice_samples=7, max_reasoning_len=4, mixing="gate"),
        quick(task=task, max_reasoning_len=0),
    ]
    streams = [
        draws(task, seeds, build_settings(arm), torch.zeros(1))
        for arm, seeds in zip(arms, ([3], [3], [2, 3], [3]), strict=True)
    ]
    seen = set()
    for _ in range(40):  # more than are drawn from the task at once
        batches = [next(s).counted for s in streams]
        for batch in batches[1:]:
            for ours, theirs in zip(batches[0][:4], batch[:4], strict=True):
                assert torch.equal(ours[-1], theirs[-1])
        seen.add(str(batches[0].inputs.tolist()))
    assert len(seen) == 40, "every step has a batch of its own"


def test_arms_with_one_seed_start_from_the_same_base_lm() -> None:
    arms = [
        build_model(quick(**changes), [3])
        for changes in ({}, {"use_reasoner": False}, {"max_reasoning_len": 0}, {"mixing": "gate"})
    ]
    for arm in arms[1:]:
        mine, theirs = arms[0].cores["A"].state_dict(), arm.cores["A"].state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_noise_is_drawn_anew_each_step_and_for_each_seed() -> None:
    settings = quick()
    data = draws(settings.task, [0, 1], build_settings(settings), torch.zeros(1))
    noises = [next(data).noise for _ in range(3)]
    assert noises[0].shape == (2, 9, settings.task.queries, 3, 2)
    assert len({float(noise[s].sum()) for noise in noises for s in range(2)}) == 6


def test_a_task_is_told_how_far_the_training_is() -> None:
    seen: list[tuple[float, int]] = []

    class Watching(tiny.Toy):
        def sample(self, *args: Any) -> Batch:
            seen.append((args[4], args[1]))
            return super().sample(*args)

    settings = quick(task=Watching(), max_steps=80)
    data = draws(settings.task, [0, 1], build_settings(settings), torch.zeros(1))
    for _ in range(CHUNK * 4):  # more than are asked for
        next(data)
    size = CHUNK * settings.data_loader_batch_size
    assert seen == [(share, size) for share in (0.0, 0.4, 0.8, 1.0) for _ in range(2)]


def test_the_oracle_comes_along_where_every_batch_has_one() -> None:
    task = HiddenMarkov(states=3, vocab=4, positions=5)
    settings = build_settings(quick(task=task))
    batch = next(draws(task, [3, 8], settings, torch.zeros(1, dtype=torch.float64))).counted
    assert batch.oracle is not None and batch.oracle.shape == (2, 9, 5, 4)
    assert torch.equal(batch.oracle, task.oracle(batch.inputs))
    one, two = (task.sample(stream(seed, "x"), 6, 5, "held_out") for seed in (0, 1))
    both = stack([one, two], torch.zeros(1), False).oracle
    assert both is not None and both.dtype == torch.float32
    assert torch.equal(both[1], two.oracle[0].float())
    assert stack([one, two._replace(oracle=None)], torch.zeros(1), False).oracle is None
    assert stack([x._replace(oracle=None) for x in (one, two)], torch.zeros(1), False).oracle is None


def plain_language_model(model: LatentReasoner, inputs: Tensor) -> tuple[Tensor, list[nn.Parameter]]:
    """Logits (B, T, V) of torch's own layers with the weights of the first seed, and its parameters."""
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
    plain = Settings(steps=100, batch_size=1, seq_len=1, thoughts=ThoughtSizes(1, 0), lr=2.0)
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
    assert [Weight(0.5).at(x) for x in (0.0, 0.5, 1.0)] == [0.5, 0.5, 0.5]
    assert [Weight(0.5, linear=True).at(x) for x in (0.0, 0.5, 1.0)] == [0.5, 0.25, 0.0]


def test_a_gates_floor_falls_with_the_training() -> None:
    numbers = build_settings(tiny.config(mixing="gate", gate_floor=0.8))
    assert [numbers.floor_at(x) for x in (0.0, 0.125, 0.25, 1.0)] == [0.8, 0.4, 0.0, 0.0]
    assert build_settings(tiny.config(mixing="add", gate_floor=0.8)).floor_at(0.0) == 0.0


def test_the_loop_tells_the_model_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, right = [], LatentReasoner.forward

    def watching(self: LatentReasoner, *args: Any) -> Trace:
        seen.append(args[-1])
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
        accumulate(model, Reinforce(), prepared(batch, noise), each, build_settings(tiny.config()), running)
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


def test_the_running_reward_is_the_mean_of_earlier_steps() -> None:
    settings = tiny.config(baseline="ema", max_steps=4)
    model, numbers = tiny.model(settings, 2), build_settings(settings)
    seen: list[Tensor] = []
    objective = Reinforce(baseline="ema")

    def watching(trace: Trace, batch: Batch) -> Any:
        seen.append(trace.running_reward.clone())
        return objective(trace, batch)

    values: Values = []
    data = draws(settings.task, [0, 1], numbers, next(model.parameters()))
    train(model, watching, data, numbers, lambda step, v: values.append(dict(v)))
    assert not seen[0].any()
    for step in range(1, 4):
        decays = torch.tensor([0.99 ** (step - 1 - i) for i in range(step)]).double()
        earlier = torch.stack([v["reward"] for v in values[:step]])
        wanted = (decays[:, None] * earlier).sum(0) / decays.sum()
        torch.testing.assert_close(seen[step].double(), wanted, rtol=1e-6, atol=0)


def test_training_learns() -> None:
    """The plain NLL of a constant target falls to about nothing."""

    class Constant(tiny.Toy):
        def sample(self, *args: Any) -> Batch:
            return super().sample(*args)._replace(targets=torch.ones(1, args[1], 4, dtype=torch.long))

    settings = replace(tiny.config(task=Constant(), max_steps=80, base_lr=0.05), schedule="linear")
    _, values = trained(settings, [0, 1])
    assert bool((values[0]["nll"] > 0.7).all()) and bool((values[-1]["nll"] < 0.05).all())
