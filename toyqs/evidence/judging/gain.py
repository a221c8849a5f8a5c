"""Gains paired by seed, means and intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit


class Interval(NamedTuple):
    """A mean over seeds and half the width of its confidence interval."""

    mean: float
    half_width: float
    count: int  # type: ignore[assignment]  # tuple.count is of no use here

    @property
    def lower(self) -> float:
        """Return the interval's lower end."""
        return self.mean - self.half_width

    @property
    def upper(self) -> float:
        """Return the interval's upper end."""
        return self.mean + self.half_width


def interval(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """Compute the mean over seeds and Student's t-interval.

        x̄ ± t((1 + confidence) / 2; n − 1) · s / √n

    A value that is not finite (a diverged seed, a missing metric) makes mean and half width NaN: a mean
    over the seeds that happened to survive would flatter the arm.

    Args:
        values: one per seed, at least one.
        confidence: of the interval, between 0 and 1.

    Returns:
        half_width is NaN for one value and 0 for equal ones.

    Raises:
        ValueError: there are no values.
    """
    numbers = np.asarray(list(values), dtype=float)
    count = len(numbers)
    if not count:
        raise ValueError("interval: no values; give one per seed")
    if not np.isfinite(numbers).all():
        return Interval(math.nan, math.nan, count)
    if count == 1:
        return Interval(float(numbers[0]), math.nan, 1)
    # measured from the first value, so that equal values have a spread of exactly 0
    spread = float((numbers - numbers[0]).std(ddof=1))
    quantile = float(stdtrit(count - 1, (1 + confidence) / 2))
    return Interval(float(numbers.mean()), quantile * spread / math.sqrt(count), count)


def estimate(values: pd.Series | None) -> Interval:
    """Compute `interval`, or NaN over 0 seeds where there are no values."""
    return Interval(math.nan, math.nan, 0) if values is None or values.empty else interval(values)


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return the metric as floats, NaN where a row has none; empty where no row has any."""
    if name not in frame or (name != "nll" and frame[name].isna().all()):
        return pd.Series(dtype=float)
    return pd.to_numeric(frame[name]).astype(float)


def mean_of(frame: pd.DataFrame, name: str) -> float | None:
    """Return a metric's mean over seeds; None where no row has it."""
    column = column_of(frame, name)
    return None if column.empty else float(column.mean())


def by_seed(frame: pd.DataFrame, metric: str) -> pd.Series:
    """Return a metric as floats indexed by the seed, NaN where a run diverged."""
    return pd.to_numeric(frame[metric].set_axis(frame["seed"])).astype(float)


def reasoning_gain(thinking: pd.DataFrame, control: pd.DataFrame, metric: str = "nll") -> pd.Series:
    """Compute what thinking gains over a control, run by run.

        gain(seed) = control's metric(seed) − thinking's metric(seed)

    Runs of one seed saw the same data from the same initial base model, so their difference is paired; what
    some controls cannot share (docs/results.md lists it) leaves more of the seeds' noise in it.

    Args:
        thinking: one row per seed.
        control: one row per seed.
        metric: a column where less is better.

    Returns:
        Indexed by the seeds both arms have, ascending; nats per counted position of `nll` and `nll_joint`;
        NaN where either run diverged.

    Raises:
        ValueError: an arm has two rows for one seed, or the arms have no seed in common.
    """
    columns = []
    for frame in (thinking, control):
        column = pd.Series(dtype=float) if frame.empty else by_seed(frame, metric)
        if not column.index.is_unique:
            raise ValueError("reasoning_gain: two rows for one seed; give one row per seed in each arm")
        columns.append(column)
    seeds = columns[0].index.intersection(columns[1].index).sort_values()
    if seeds.empty:
        raise ValueError("reasoning_gain: the two arms have no seed in common, so nothing can be paired")
    return (columns[1].loc[seeds] - columns[0].loc[seeds]).rename("gain").rename_axis("seed")


def paired_gains(arms: Mapping[str, pd.DataFrame], metric: str = "nll") -> dict[str, pd.Series]:
    """Compute `reasoning_gain` over each control that has a seed in common with thinking.

    Args:
        arms: one row per seed in each; the thinking arm first.
        metric: see there.

    Returns:
        By the control's name; empty where thinking has no rows.
    """
    (_, thinking), *controls = arms.items()
    seeds = set() if thinking.empty else set(thinking["seed"])
    shared = {arm: frame for arm, frame in controls if not frame.empty and seeds & set(frame["seed"])}
    return {arm: reasoning_gain(thinking, frame, metric) for arm, frame in shared.items()}


def onset(thinking: pd.DataFrame, control: pd.DataFrame) -> int | None:
    """Return the step from which on thinking is better than a control beyond chance.

    It must be better at every later evaluation too: in the first steps the arms differ by a hundredth of a
    nat that is gone at the next evaluation.

    Args:
        thinking: held-out NLL, a row for each step and a column for each seed.
        control: likewise; the steps and seeds that both have are compared.

    Returns:
        The first step at which, as at all later ones, the 95 % t-interval of the paired gain lies above 0;
        None: there is none, or there are fewer than two seeds in common.
    """
    gains = (control - thinking).dropna(axis=0, how="all").dropna(axis=1, how="all")
    first = None
    for step, row in gains.sort_index(ascending=False).iterrows():
        if not interval(row).lower > 0:
            break
        first = int(step)
    return first
