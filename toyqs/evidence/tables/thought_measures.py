"""Lines on the thoughts of a run: whether they are used, what they hold, how far they are a code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from toyqs.evidence.judging.gain import mean_of
from toyqs.evidence.measures import loss_of, loss_words
from toyqs.evidence.text import WIDTH, aligned, plus_minus, short, wrapped

CONTEXTS = 64  # that the estimate of the mutual information compares; it is at most their logarithm
NLL = {  # what is added to the name of the loss
    "": "with its own thought",
    "_shuffled": "with another sequence's thought",
    "_no_thought": "without a thought",
    "_marginal": "averaging the predictions of all its thoughts",
}


def thought_lines(frame: pd.DataFrame, settings: Mapping[str, Any]) -> list[str]:
    """Return a few lines on the thoughts of an arm, means over its seeds; none where it has no such rows.

    Args:
        frame: the arm's rows.
        settings: of its cell.
    """
    loss = loss_of(settings)
    means = {name: mean for name in NLL if (mean := mean_of(frame, loss + name)) is not None}
    losses = [f"{short(mean, '.3f')} {NLL[name]}" for name, mean in means.items()]
    rows = [
        (f"{loss_words([loss])}, nats", ", ".join(losses) if "_shuffled" in means else ""),
        ("content, nats", _content(frame, settings)),
        ("as a code", _code(frame)),
    ]
    rows = [row for row in rows if row[1]]
    if not rows:
        return []
    names = [f"  {name}" for name, _ in rows]
    columns = wrapped([names, [text for _, text in rows]], WIDTH - 2 - max(map(len, names)))
    return ["Thoughts of the thinking model, means over its seeds:", *aligned(columns, left=[0, 1])]


def most_information(settings: Mapping[str, Any]) -> float:
    """Return the most that the estimate of the information of thoughts and contexts can be, nats."""
    return math.log(min(CONTEXTS, settings.get("eval_sequences") or CONTEXTS))


def _content(frame: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Return the entropy of a thought, and its mutual information with the context."""
    parts = []
    if (entropy := mean_of(frame, "thought_entropy")) is not None:
        parts.append(f"entropy of a thought {short(entropy, '.2f')}")
    if (found := mean_of(frame, "information")) is not None:
        number = f"{short(found, '.2f')} of at most {most_information(settings):.2f}"
        parts.append(f"mutual information of thought and context {number}")
    return "; ".join(parts)


def _code(frame: pd.DataFrame) -> str:
    """Return how far thoughts whose symbols are tokens are a code for the answers."""
    names = ("homogeneity", "completeness", "distinct_thoughts", "pass_at_k")
    found = [mean_of(frame, name) for name in names]
    if found[0] is None:
        return ""
    tells, told, distinct, passes = (math.nan if mean is None else mean for mean in found)
    code = (
        f"homogeneity {plus_minus(tells, math.nan, '.2f')}, completeness {plus_minus(told, math.nan, '.2f')} "
        f"(0: chance, 1: perfect); {distinct:.0f} distinct thoughts; "
    )
    if (entropy := mean_of(frame, "attention_entropy")) is not None:
        return (
            f"{code}one prediction from all K (no pass@K); entropy of their weights {short(entropy, '.2f')}"
        )
    return (
        f"{code}with one of its K thoughts or more the answer is the likeliest at {100 * passes:.1f} % of "
        "positions (pass@K)"
    )
