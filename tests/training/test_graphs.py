"""Steps as CUDA graphs, tried on the CPU: recorded operation by operation, and replayed as a graph would.

That a step waits for nothing is checked there too: no number of it goes to the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.training.test_loop import Values, quick, same, trained
from toyqs import graphs
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.graphs import Graphs
from toyqs.training import loop
from toyqs.training.batches import draw_batches
from toyqs.training.divergence import Divergence
from toyqs.training.loop import train

Undo = dict[int, tuple[Tensor, Tensor]]


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


class Recorder(TorchDispatchMode):
    """Keeps every operation with its arguments, plain numbers as they are, and where its results lie."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.changed: Undo = {}  # memory -> all of it, and what was there before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in tensors((args, kwargs)) if func._schema.is_mutable else ():
            memory = tensor.untyped_storage()
            if memory.data_ptr() not in self.changed:
                whole = tensor.detach().new_empty(0).set_(memory)
                self.changed[memory.data_ptr()] = whole, whole.clone()
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, tensors(out)))
        return out

    def undo(self) -> None:
        for whole, before in self.changed.values():
            whole.copy_(before)

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, places in self.calls:
                for place, value in zip(places, tensors(func(*args, **kwargs)), strict=True):
                    place.detach().copy_(value)


def recorded(work: Callable[[], None]) -> Callable[[], None]:
    """Record work and undo it: what `graphs.captured` does on a GPU."""
    with Recorder() as recorder:
        work()
    recorder.undo()
    return recorder.replay


class Unwaiting(TorchDispatchMode):
    """Fails where a number goes to the host, or comes from there."""

    NEVER = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "is_nonzero", "equal", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = func._schema.name.startswith("aten::index") and any(
            x.dtype == torch.bool for x in tensors(args[1:])
        )
        if masks or any(name in func._schema.name for name in self.NEVER):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


RUNS: dict[str, dict[str, Any]] = {
    "plain": {"use_reasoner": False},
    "tokens": {"base_nll_beta": 0.5},
    "two micro-batches, chunks, costs": {
        **{"grad_acc": 3, "chunk_positions": 2, "variable_len": True, "length_penalty": 0.1},
        "interpreter_start": "onward",
    },
    "states": {"thoughts": "gaussian", "mixing": "gate", "gate_floor": 0.2},
    "gumbel": {"thoughts": "gumbel", "objective": "pathwise"},
    "ppo, two inner steps": {"objective": "ppo_clip", "inner_steps": 2},
    "a moving average, other rates": {
        **{"reward": "log_ratio", "reference": "ema", "thought_kl_beta": 0.1, "baseline": "ema"},
        **{"optimizer": "adam", "weight_decay": 0.1, "reasoner_lr": 0.25},
    },
    "lengths at random, rewards exchanged": {"length_schedule": "random", "shuffle_rewards": True},
    "the hardest positions": {"think_at": "hard", "reward": "log_ratio", "reference": "ema"},
    "tokens ahead": {"n_tokens_ahead": 2, "ahead_decay": 0.5, "advantage_scale": "batch_std"},
    "sgd, a critic": {"optimizer": "sgd", "baseline": "value"},
    "muon, a filter": {"optimizer": "muon_grokfast", "grokfast_lambda": 2.0, "weight_decay": 0.1},
    "credit for symbols": {"credit": "prefix", "prefix_nll_beta": 0.5, "variable_len": True},
    "all steps rewarded": {"reward": "trajectory", "trajectory_alpha": 1.0, "interpreter_start": "onward"},
}
# A rate that float32 has too, for a graph holds it so.
SAME: dict[str, Any] = {"dtype": "float64", "base_lr": 0.0078125, "use_scheduler": False, "max_steps": 8}


SLOW = (
    "the hardest positions",
    "tokens ahead",
    "two micro-batches, chunks, costs",
    "states",
    "gumbel",
    "sgd, a critic",
    "all steps rewarded",
)
CASES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNS]


def replayed(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch, capture: graphs.Capture = recorded
) -> tuple[dict[str, Tensor], Values]:
    """Train two seeds with steps that are captured and replayed."""
    made: list[Graphs] = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Graphs", lambda: made.append(Graphs(capture)) or made[-1])
        run = trained(replace(settings, cuda_graphs=True), [4, 5])
    assert made[0].graphs, "nothing was captured"
    return run


@pytest.mark.parametrize("name", CASES)
def test_a_replayed_training_is_the_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check it with weights of the loss that change from step to step."""
    settings = quick(**SAME | RUNS[name])
    found, wanted = replayed(settings, monkeypatch), trained(settings, [4, 5])
    for seed in (0, 1):
        same(found, wanted, (seed, seed))


@pytest.mark.parametrize(
    "changes",
    [
        {"mixing": "gate", "gate_floor": 0.9},
        {"variable_len": True, "punish_unfinished": 5.0, "schedule_punfinished": True},
    ],
)
def test_what_is_no_tensor_makes_another_graph(changes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check it where a least weight falls, and a cost rises, from the first graph on."""
    monkeypatch.setattr(graphs, "REPEATS", 0)
    settings = quick(**SAME | changes)
    same(replayed(settings, monkeypatch), trained(settings, [4, 5]), (1, 1))


def test_a_rate_that_changes_reaches_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = quick(dtype="float64", use_reasoner=False, use_scheduler=True, schedule="linear")
    (found, _), (wanted, _) = replayed(settings, monkeypatch), trained(settings, [4, 5])
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-8)  # float32 rates


def test_a_seed_that_diverges_in_a_graph_is_stopped_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for capture in (None, recorded):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "Graphs", lambda capture=capture: Graphs(capture))
            ends.append(diverged(quick(**SAME, use_reasoner=False, cuda_graphs=capture is not None)))
    (weights, lost), (others, again) = ends
    assert lost == again and lost[1].step == 7 and list(lost) == [1]
    torch.testing.assert_close(weights, others, rtol=0, atol=0, equal_nan=True)


def diverged(settings: RunConfig) -> tuple[Tensor, dict[int, Divergence]]:
    """Train, and let the head of the second seed become infinite after step 6."""
    model, params = build_model(settings, [4, 5]), build_training_params(settings)
    head = dict(model.named_parameters())["head.bias"]

    def harm(step: int, _: object) -> None:
        if step == 6:
            head.data[1, 0, 0] = torch.inf

    data = draw_batches(settings.task, [4, 5], params, head)
    lost = train(model, build_objective(settings), data, params, harm)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), lost


def strict(work: Callable[[], None]) -> Callable[[], None]:
    """Do work, in which nothing may wait, whenever it is asked for."""

    def do() -> None:
        with Unwaiting():
            work()

    return do


@pytest.mark.parametrize("name", RUNS)
def test_nothing_in_a_step_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed(quick(max_steps=8, **RUNS[name]), monkeypatch, strict)


@pytest.mark.parametrize(
    "wait",
    [
        float,
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.new_tensor([1.0]),
        lambda x: bool(x.any()),
    ],
)
def test_what_waits_is_noticed(wait: Callable[[Tensor], Any]) -> None:
    with pytest.raises(AssertionError, match="waits for the device"), Unwaiting():
        wait(torch.ones(1))


def test_kinds_that_never_come_again_are_forgotten() -> None:
    kept, work = Graphs(recorded), dict[str, Tensor]
    for number in range(3 * graphs.KINDS):
        assert kept(number, (torch.ones(1), None, 2), lambda _: work()) is None
    assert len(kept.seen) <= graphs.KINDS and not kept.graphs
