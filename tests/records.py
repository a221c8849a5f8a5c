"""A record of thoughts made by hand, small enough to reckon with."""

from __future__ import annotations

from typing import Any

import numpy as np

from toyqs.evidence.dictionary import gains
from toyqs.thought_record import Evaluation, Feature, Record

NAN = float("nan")


def small(**changes: Any) -> Record:
    """Return a record of two sequences that think at their last two positions, two thoughts each.

    Thoughts have up to two symbols; the last position of the second sequence does not count.
    """
    arrays = {
        "inputs": [[0, 2, 1], [1, 1, 0]],
        "positions": [[1, 2], [1, 2]],
        "truth": [[1, 0], [1, 1]],
        "counted": [[1, 1], [1, 0]],
        "symbols": [[[[0, 1], [0, 2]], [[1, 1], [2, 2]]], [[[0, 1], [0, 1]], [[1, 0], [1, 1]]]],
        "log_prob": [[[-0.5, -1.0], [-2.0, -0.25]], [[-0.5, -0.5], [-1.5, -1.0]]],
        "reward": [[[-0.125, -2.0], [-1.0, -0.5]], [[-0.25, -0.25], [NAN, -3.0]]],
        "log_q": [[[-0.125, -2.0], [-1.0, -0.5]], [[-0.25, -0.25], [-4.0, -3.0]]],
        "log_q_none": [[-1.0, -0.25], [-1.5, -2.0]],
        "log_q_shuffled": [[[-0.5, -2.0], [-1.5, -0.5]], [[-0.25, -4.0], [-4.0, -3.0]]],
        "predicted_p": np.tile([51, 153, 51], (2, 2, 2, 1)) / 255,
        "predicted_p_none": np.tile([0, 255, 0], (2, 2, 1)) / 255,
    }
    arrays = {name: np.array(values) for name, values in arrays.items()}
    later = {name: values[1:] for name, values in arrays.items() if name != "inputs"}
    fields = {
        "task": "toy",
        "held_out": 9,
        "sequences": [0, 4],
        "tokens": ["x", "y", "<b>\x1b[31m"],
        "symbols": ["a", "b"],
        "arrays": arrays,
        "features": {"parity": Feature(np.array([[0, 1], [2, 1]]), ["even", "odd"])},
        "evaluations": [Evaluation(10, [1], later)],
    }
    return Record(**{**fields, **changes})


def ranked(record: Record, way: str) -> list[tuple[int, int]]:
    """Return the positions (n, t) where thinking gained most, lost most or was wrong, in the page's order."""
    gain, arrays = gains(record), record.arrays
    places = [(int(n), int(t)) for n, t in np.argwhere(arrays["counted"] == 1)]
    if way == "gained":
        return sorted((x for x in places if gain[x] > 0), key=lambda x: -gain[x])
    if way == "lost":
        return sorted((x for x in places if gain[x] < 0), key=lambda x: gain[x])
    likeliest = arrays["predicted_p"].argmax(-1)
    if "predicted" in arrays:
        likeliest = np.take_along_axis(arrays["predicted"], likeliest[..., None], -1)[..., 0]
    share = (likeliest != arrays["truth"][..., None]).mean(-1)
    p = np.exp(arrays["log_q"]).mean(-1)
    return sorted((x for x in places if share[x] > 0.5), key=lambda x: p[x])
