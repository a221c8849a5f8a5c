"""An outside oracle: numbers that the original replication computed, against ours.

Source: github.com/jakob-bjorner/quiet-star-replicate at commit d776d68, whose README is the logbook of
tests/logbook.txt. Six tiny models of its code (simple head, float64) were made to think given thoughts, and
asked for logits, log-probabilities of the symbols, the loss and its gradient. original.json.gz holds
the numbers alone, as gzipped JSON. For each model:

setting    D base width, R width of reasoner and interpreter, K, L, groups, share = share_lm_head, base =
           use_base_lm, reason = use_reasoner, plb = policy_loss_beta
weights    by our names of parameters, without the axis S; the original keeps some transposed
tokens     (B, T + 1): the inputs, then the last target
thoughts   (B, T, K, L), forced
logits (B, T, K, V), log_prob (B, T, K, L), loss: policy loss and NLL, both a mean over B, T and K
gradients  of that loss, by the same names

In the original one symbol, V - 1, marks start and end of a thought, so a table's last row is the marker too
and has the gradient of both. Its interpreter starts from zeros that do not learn.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.types import Batch, Trace

CASES = json.loads(gzip.decompress((Path(__file__).parents[1] / "original.json.gz").read_bytes()))
THINKING = [case for case in CASES if case["setting"]["reason"]]


def name_of(case: dict[str, Any]) -> str:
    return " ".join(f"{key}={case['setting'][key]}" for key in ("groups", "share", "plb", "reason"))


@dataclass
class Six(tiny.Toy):
    """A task of as many tokens as the original's models had."""

    vocab_size: ClassVar[int] = 6


def settings_of(case: dict[str, Any], **changes: Any) -> RunConfig:
    given = case["setting"]
    assert given["simple"] and given["linear"] and given["base"] and case["vocab"] == Six.vocab_size
    same = {
        "base_lm_hidden_dim": given["D"],
        "reasoner_hidden_dim": given["R"],
        "trice_samples": given["K"],
        "max_reasoning_len": given["L"],
        "weight_groups": given["groups"],
        "share_lm_head": given["share"],
        "use_reasoner": given["reason"],
        "policy_loss_beta": given["plb"],
        "simple_lm_head": True,
        "different_eot": False,
        "baseline": "group_mean",
    }
    return tiny.config(task=Six(), **same | changes)


def lent(case: dict[str, Any], settings: RunConfig) -> LatentReasoner:
    """Build our model with the original's weights."""
    model = build_model(settings, [0])
    named = dict(model.named_parameters())
    assert named.keys() == case["weights"].keys()
    for name, parameter in named.items():
        parameter.data = torch.tensor(case["weights"][name], dtype=torch.float64).unsqueeze(0)
    return model


def scored(case: dict[str, Any], settings: RunConfig) -> tuple[Trace, Tensor, tiny.Gradients]:
    """Score the forced thoughts: the trace, the loss, and its gradient without the axis S."""
    model, numbers = lent(case, settings), build_training_params(settings)
    tokens = torch.tensor(case["tokens"]).unsqueeze(0)
    inputs, targets = tokens[..., :-1], tokens[..., 1:]
    batch = Batch(inputs, targets, torch.ones(inputs.shape).double(), torch.ones_like(inputs).bool())
    forced = torch.tensor(case["thoughts"]).unsqueeze(0) if settings.use_reasoner else None
    trace = model(inputs, None, torch.empty(0), forced)
    parts = build_objective(settings)(trace, batch).parts
    loss = sum(numbers.weights[name].at(0.0) * part for name, part in parts.items())
    grads = {name: g[0] for name, g in tiny.gradients(loss.sum(), model).items()}
    return trace, loss, as_the_original_counts(grads)


def as_the_original_counts(grads: tiny.Gradients) -> tiny.Gradients:
    """Add each marker's gradient to its symbol's, and leave out the start that does not learn there."""
    counted = {name: g.clone() for name, g in grads.items() if not name.endswith(".start_state")}
    for name in [name for name in counted if name.endswith("markers.weight")]:
        counted[name.replace("markers", "tokens")][-1] += counted.pop(name)[0]
    return counted


def wanted_gradients(case: dict[str, Any]) -> tiny.Gradients:
    given = {name: torch.tensor(g, dtype=torch.float64) for name, g in case["gradients"].items()}
    return {name: g for name, g in given.items() if not name.endswith(".start_state")}


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_ours_are_the_originals_numbers(case: dict[str, Any]) -> None:
    trace, loss, grads = scored(case, settings_of(case))
    found = [(trace.logits[0, ..., 0, :], "logits"), (loss[0], "loss")]
    if case["setting"]["reason"]:
        found.append((trace.log_prob[0], "log_prob"))
    for ours, name in found:
        theirs = torch.tensor(case[name], dtype=torch.float64)
        torch.testing.assert_close(ours.detach(), theirs, rtol=0, atol=1e-12, msg=name)
    tiny.close(grads, wanted_gradients(case), tolerance=1e-12)
    assert all(bool(g.any()) for g in grads.values()), "nothing to compare"


@pytest.mark.parametrize("case", THINKING, ids=name_of)
@pytest.mark.parametrize(
    "mutant",
    [
        {"baseline": "leave_one_out"},  # the mean of the others, not of all K
        {"baseline": "none"},
        {"policy_loss_beta": 1.01},
        {"train_nll_num": 1},
        {"advantage_scale": "group_std"},
    ],
    ids=str,
)
def test_a_mutant_is_caught(case: dict[str, Any], mutant: dict[str, Any]) -> None:
    _, _, grads = scored(case, settings_of(case, **mutant))
    wanted = wanted_gradients(case)
    assert max(float((grads[name] - wanted[name]).abs().max()) for name in wanted) > 1e-5
