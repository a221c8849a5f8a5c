"""Thoughts of every kind, and what the plain reference makes of their symbols, one thought at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import backbones, reference
from tests.run_folders import written
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import load_arm, sample
from toyqs.config.builders.model import build_model
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg

SEED, SIZE, SYMBOLS = 3, 5, 3
Costs = dict[tuple[int, int], list[float]]  # by sequence and position
PATH = {"objective": "pathwise"}
KINDS = [
    {},
    {"interpreter_start": "onward"},
    {"variable_len": True},
    {"variable_len": True, "interpreter_start": "onward"},
    {"adaptive_len": True, "task": Iterate(n=4, k=3)},
    {"adaptive_len": True, "task": Iterate(n=4, k=3), "interpreter_start": "onward"},
]
OTHER_KINDS = [
    {"thoughts": "gaussian"},
    {"thoughts": "gumbel", **PATH},
    {"thoughts": "deterministic", **PATH},
    {"thoughts": "state", **PATH},
    {"thoughts": "state", **PATH, "interpreter_start": "onward"},
    {"thoughts": "gaussian", "use_base_lm": False},
    {"n_tokens_ahead": 2, "ahead": "continue"},
    {"interpreter_start": "onward", "add_last_context_token": True},
    {"interpreter_start": "onward", "interpreter_hidden_dim": 7},
    {"random_thoughts": True, "policy_loss_beta": 0.0, "entropy_encouragement_coef": 0.0},
    {"thought_vocab": 1, "trice_samples": 1, "policy_loss_beta": 0.0, "baseline": "none"},
]


@torch.no_grad()
def untrained(folder: Path, **changes: Any) -> LoadedRun:
    """Load a run of large random weights, so that every symbol matters."""
    plain: dict[str, Any] = {
        **{"task": RevProg(p=3, m=2, k=2, queries=2), "dtype": "float64", "base_lm_hidden_dim": 3},
        **{"reasoner_hidden_dim": 4, "thought_vocab": SYMBOLS, "trice_samples": 2, "max_reasoning_len": 3},
    }
    settings = resolved(RunConfig(**(plain | changes)))
    model = build_model(settings, [SEED])
    for name, parameter in model.named_parameters():
        parameter.copy_(
            3 * parameter if settings.backbone == "gru" else backbones.perturbed(name, parameter, 3)
        )
    return load_arm([written(folder / "run", settings, model)]).first


class Plain:
    """A run's sequences and thoughts, as lists; predictions by the reference."""

    def __init__(self, run: LoadedRun) -> None:
        self.run, (self.sampled,) = run, sample(run, SEED, SIZE)
        batch, thoughts = self.sampled.whole, self.sampled.thoughts
        self.at = [row.nonzero()[:, 0].tolist() for row in batch.think[0]]
        self._nll: dict[tuple[int, ...], float] = {}
        self.positions, self.number = thoughts.symbols.shape[2:4]
        self.own = {
            (b, t, k): thoughts.symbols[0, b, t, k].tolist()[: self._length(b, t, k)]
            for b, t, k in product(range(SIZE), range(self.positions), range(self.number))
        }

    def _length(self, b: int, t: int, k: int) -> int:
        length = self.sampled.thoughts.length
        return self.run.sizes.length if length is None else int(length[0, b, t, k])

    def predicted(self, b: int, t: int, symbols: list[int]) -> reference.Prediction:
        tokens = self.sampled.whole.inputs[0, b, : self.at[b][t] + 1]
        return reference.alike(self.run.model, self.run.config, tokens, torch.tensor([symbols]).long())

    def nll(self, b: int, t: int, symbols: list[int]) -> float:
        name = b, t, *symbols
        if name not in self._nll:
            target = int(self.sampled.whole.targets[0, b, self.at[b][t]])
            self._nll[name] = -float(self.predicted(b, t, symbols).log_q[0, target])
        return self._nll[name]

    def cost(self, change: Callable[[int, int, int], list[list[int]]]) -> Costs:
        """Return the costs of changed thoughts, `change(b, t, k)`."""
        costs: Costs = {}
        for (b, t, k), own in self.own.items():
            found = [self.nll(b, t, x) - self.nll(b, t, own) for x in change(b, t, k)]
            costs.setdefault((b, t), []).extend(found)
        return costs

    def agree(self, got: tuple[torch.Tensor, torch.Tensor], wanted: Costs, draws: int = 1) -> None:
        """Check means by position, and weights: the share of the thoughts, and of their draws, that count."""
        values, weights = got
        for b, t in product(range(SIZE), range(self.positions)):
            each = wanted.get((b, t), [])
            assert float(weights[b, t]) == pytest.approx(len(each) / (draws * self.number))
            assert float(values[b, t]) == pytest.approx(sum(each) / max(1, len(each)), abs=1e-10)
