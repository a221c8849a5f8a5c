"""Thought records that no model made: sequences, thoughts and predictions drawn at random around a code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toyqs.thought_record import Evaluation, Feature, Record

SYMBOLS = ("a", "b", "c", "d", "e", "f")
OPERATORS = 3  # at the start of a sequence, before its queries
QUERIES = 4


def number_of(sequence: int) -> int:
    """Return a sequence's number among the held-out ones."""
    return 4 * sequence + 1


def code_record(seed: int, num: int = 40, steps: Sequence[int] = (), answers: int = 6) -> Record:
    """Return a record of a task with a few answers; a thought's first symbol mostly names the answer.

    Args:
        seed: of what is drawn.
        num: sequences.
        steps: of the evaluations in training, of half of the sequences each.
        answers: tokens that may be the answer.
    """
    drawn = np.random.default_rng(seed)
    tokens = [*(f"{x}" for x in range(answers)), *(f"op{x}" for x in range(OPERATORS))]
    inputs = np.concatenate(
        [drawn.integers(answers, len(tokens), (num, OPERATORS)), drawn.integers(0, answers, (num, QUERIES))],
        1,
    )
    positions = np.tile(np.arange(OPERATORS, OPERATORS + QUERIES), (num, 1))
    truth = drawn.integers(0, answers, (num, QUERIES))
    arrays = {"inputs": inputs, **_thinking(drawn, truth, positions, answers)}
    evaluations = []
    for step in steps:
        rows = list(range(0, num, 2))
        evaluations.append(Evaluation(step, rows, _thinking(drawn, truth[rows], positions[rows], answers)))
    features = {"parity": Feature(truth % 2, ["even", "odd"])}
    return Record(
        "rev_prog",
        4 * num,
        [number_of(x) for x in range(num)],
        tokens,
        list(SYMBOLS),
        arrays,
        features,
        evaluations,
    )


def vector_record(seed: int, num: int = 40, named: bool = True, size: int = 4) -> Record:
    """Return a record whose thoughts are vectors, near a point for each symbol, named or not."""
    record, drawn = code_record(seed, num), np.random.default_rng(seed + 1)
    arrays = dict(record.arrays)
    symbols = arrays.pop("symbols")
    arrays["vectors"] = np.eye(len(SYMBOLS), size)[symbols] + 0.2 * drawn.normal(size=(*symbols.shape, size))
    if named:
        arrays["nearest"] = symbols
    return record._replace(arrays=arrays, symbols=list(SYMBOLS) if named else None)


def text_record(seed: int, text: str, num: int = 12, length: int = 32) -> Record:
    """Return a record of a text's characters, each the answer of the one before."""
    drawn = np.random.default_rng(seed)
    tokens = sorted(set(text))
    whole = np.array([tokens.index(x) for x in text])
    starts = drawn.integers(0, len(text) - length - 1, num)
    inputs = np.stack([whole[s : s + length] for s in starts])
    truth = np.stack([whole[s + 1 : s + length + 1] for s in starts])
    positions = np.tile(np.arange(length), (num, 1))
    arrays = {"inputs": inputs, **_thinking(drawn, truth, positions, len(tokens))}
    return Record("char_text", 400, list(range(num)), tokens, list(SYMBOLS), arrays, {}, [])


def _thinking(drawn: Any, truth: Any, positions: Any, answers: int, count: int = 4, length: int = 3) -> Any:
    """Return the arrays of thoughts at some positions; those that name another answer predict that."""
    shape = (*truth.shape, count)
    named = np.where(drawn.random(shape) < 0.6, truth[..., None], drawn.integers(0, answers, shape))
    symbols = drawn.integers(0, len(SYMBOLS), (*shape, length))
    symbols[..., 0] = named % len(SYMBOLS)
    logits = drawn.normal(size=(*shape, answers)) + 4 * np.eye(answers)[named]
    chances = _softmax(logits)
    without = _softmax(drawn.normal(size=(*truth.shape, answers)) * 0.5)
    log_q = np.log(
        np.take_along_axis(chances, np.broadcast_to(truth[..., None, None], (*shape, 1)), -1)[..., 0]
    )
    classes = np.broadcast_to(np.arange(answers), chances.shape)
    return {
        "positions": positions,
        "truth": truth,
        "counted": np.ones_like(truth),
        "symbols": symbols,
        "log_prob": -drawn.random(shape) * 4,
        "reward": log_q,
        "log_q": log_q,
        "log_q_none": np.log(np.take_along_axis(without, truth[..., None], -1)[..., 0]),
        "log_q_shuffled": np.roll(log_q, 1, 0) - 1,
        "predicted": classes,
        "predicted_p": chances,
        "predicted_none": np.broadcast_to(np.arange(answers), without.shape),
        "predicted_p_none": without,
    }


def _softmax(logits: Any) -> Any:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def measured(kind: str, runs: Sequence[str] = ("a",)) -> dict[str, Any]:
    """Return what `python -m toyqs.answers` writes of "lengths" or "interventions", without a model."""
    one = {"mean": 0.5, "half_width": 0.1, "count": 1}
    found: dict[str, Any] = {"runs": [*runs], "seeds": [7], "sequences": 40, "intervals_over": "sequences"}
    if kind == "lengths":
        row = {"length": 1, "nll": one, "accuracy": one, "nll_by_seed": {"7": 0.5}}
        return found | {"trained_with": 1, "lengths": [row | {"length": 0}, row]}
    symbol = {"symbol": 1, "share": 1.0, "swapped": one, "drawn_on": None}
    whole = {"shuffled": one, "constant": None, "no_thought": one}
    return found | {"own": one, "whole": whole, "symbols": [symbol], "cut": [one, None], "moves": []}
