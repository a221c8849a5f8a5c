"""The direct continuation: what a model says without thinking, and how far thoughts are from it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import Sampled
from toyqs.config.run_config import RunConfig
from toyqs.model.core import Core
from toyqs.model.layers import gather_rows
from toyqs.positions import pick_positions
from toyqs.types import Batch, Context


def why_not(config: RunConfig, whole: Batch) -> str | None:
    """Say why a run's thoughts cannot be compared with a continuation of the text; None: they can.

    Args:
        config: the run's.
        whole: some of its sequences, all positions.
    """
    if not config.symbols_are_tokens:
        return f"thoughts={config.symbol_kind} are vectors, no tokens"
    if config.thought_vocab is not None and not config.share_lm_head:
        return f"thought_vocab={config.thought_vocab}: thoughts have symbols of their own"
    if not config.predicts_without_thought:
        return "the run has no prediction without a thought"
    follows = whole.targets[..., :-1] == whole.inputs[..., 1:]
    if not bool(follows[whole.weights[..., :-1] > 0].all()):
        return f"task={config.task.name}: what a position predicts is not what follows it"
    return None


@torch.no_grad()
def direct_continuation(run: LoadedRun, sampled: Sampled, length: int) -> Tensor:
    """Write on from every thinking position without thinking, each token the likeliest: (B, T, length) long.

    The tokens come from the run's own prediction without a thought, which its training may never have asked
    for.
    """
    model, whole = run.model, sampled.whole
    core = cast(Core, model.cores[model.letters["base_lm"]])
    rows = core.token_rows()
    outputs, state = core.backbone.read(gather_rows(rows, whole.inputs))
    outputs, state = (
        pick_positions(outputs, sampled.positions),
        core.backbone.gather(state, sampled.positions),
    )
    tokens = []
    for _ in range(length):
        tokens.append(model.talk(Context(outputs, None), None).logits[..., 0, 0, :].argmax(-1))
        out, state = core.backbone.step(gather_rows(rows, tokens[-1]).unsqueeze(3), state)
        outputs = out.squeeze(3)
    return torch.stack(tokens, -1)[0]


def edit_distances(a: Tensor, b: Tensor) -> Tensor:
    """Compute the edit distance (Levenshtein 1966) of the first n symbols of two sequences, for every n ≤ L.

        D(i, j) = min(D(i−1, j) + 1, D(i, j−1) + 1, D(i−1, j−1) + [a_i ≠ b_j])

    Args:
        a: (..., L) long.
        b: (..., L) long, broadcast against a.

    Returns:
        (..., L + 1), D(n, n) for n = 0 … L.
    """
    length = a.shape[-1]
    zero = (a[..., :1] != b[..., :1]).squeeze(-1).double() * 0
    above = [zero + j for j in range(length + 1)]
    diagonal = [zero]
    for i in range(1, length + 1):
        row = [zero + i]
        for j in range(1, length + 1):
            replaced = above[j - 1] + (a[..., i - 1] != b[..., j - 1])
            row.append(torch.minimum(torch.minimum(above[j], row[-1]) + 1, replaced))
        diagonal.append(row[i])
        above = row
    return torch.stack(diagonal, -1)


def distances(run: LoadedRun, sampled: Sampled) -> tuple[Tensor, Tensor, Tensor]:
    """Compare thoughts with direct continuations of as many tokens as they have symbols.

        edit distance / number of symbols, 0 (the thought is the continuation) … 1

    Args:
        run: with thoughts of tokens.
        sampled: at least two sequences.

    Returns:
        (B, T, K) each: the distance from the continuation, from that of the sequence before, and bool: which
        thoughts have a symbol.
    """
    thoughts = sampled.thoughts
    assert thoughts is not None
    symbols = thoughts.symbols if run.config.symbol_kind == "token" else thoughts.symbols.argmax(-1)
    longest = symbols.shape[4]
    length = thoughts.length
    length = torch.full_like(symbols[..., 0], longest) if length is None else length
    continuation = direct_continuation(run, sampled, longest).unsqueeze(2)
    own, other = (
        edit_distances(symbols[0], x).gather(-1, length[0].unsqueeze(-1)).squeeze(-1) / length[0].clamp(min=1)
        for x in (continuation, continuation.roll(1, 0))
    )
    return own, other, length[0] > 0
