"""The columns that tables of arms share: loss, its floor, accuracy, gain of thinking, costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from toyqs.evidence.judging.findings import COSTS, Finding, arm_table
from toyqs.evidence.measures import loss_words
from toyqs.evidence.tables.layout import Column
from toyqs.evidence.text import human, plus_minus

HEADINGS = {
    "parameters": ("used", "params"),
    "recurrent_steps_per_token": ("recurrent", "steps/tok"),
    "flops_per_token": ("FLOPs", "/token"),
    "train_steps": ("train", "steps"),
    "cpu_seconds": ("CPU s", "/seed"),
}


def arm_columns(findings: Sequence[Finding]) -> list[Column]:
    """Return the columns of a table with a line for each cell and arm: the arm, its results, its costs.

    Of the results the first is the loss, the last the gain; between them is its floor where one is known,
    and the accuracy, of cells that are not judged by a joint loss.
    """
    table = arm_table(findings)
    rows = table.to_dict("records")
    measures = [finding.cell.loss for finding in findings for _ in finding.cell.arms]
    losses = [
        _number(row, measure, ".3f", "diverged" if row["seeds"] else "–")
        for row, measure in zip(rows, measures, strict=True)
    ]
    results = [
        Column("", "arm", list(table["arm"]), left=True),
        Column(loss_words(measures), "nats", losses),
    ]
    if "joint_floor" in table:
        floors = [plus_minus(floor, math.nan, ".3f") for floor in table["joint_floor"]]
        results.append(Column("floor", "nats", floors))
    if "nll" in measures:  # of the first token alone, so that it says nothing about a joint loss
        right = [
            _number(row, "accuracy", ".1f", factor=100) if measure == "nll" else "–"
            for row, measure in zip(rows, measures, strict=True)
        ]
        results.append(Column("accuracy", "%", right))
    gains = [_number(row, "gain", "+.3f") for row in rows]
    results.append(Column("gain of thinking", "over this arm, nats", gains))
    costs = [Column(*HEADINGS[name], [_cost(name, row[name]) for row in rows]) for name in COSTS]
    return [*results, *costs]


def _number(row: dict[str, float], name: str, form: str, nothing: str = "–", factor: float = 1.0) -> str:
    return plus_minus(factor * row[name], factor * row[f"{name}_half_width"], form, nothing)


def _cost(name: str, value: float) -> str:
    return f"{value:,.0f}" if name == "train_steps" and pd.notna(value) else human(value)
