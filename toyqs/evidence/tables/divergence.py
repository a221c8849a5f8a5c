"""Seeds whose training diverged, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from toyqs.evidence.judging.gain import column_of

FAR = 10.0  # times the loss of a uniform guess: no training that works is so bad at held-out data


def diverged_seeds(frame: pd.DataFrame) -> str:
    """Return the seeds of an arm that diverged, and where: "0 at step 2 (nll; largest logit 3e+30), 4".

    Args:
        frame: one row per seed; rows of older versions do not say where.
    """
    if not len(frame) or not (lost := pd.to_numeric(frame["nll"]).isna()).any():
        return ""
    return ", ".join(_where(row) for row in frame[lost].sort_values("seed").to_dict("records"))


def _where(row: Mapping[Any, Any]) -> str:
    if pd.isna(row.get("diverged_at")):
        return f"{row['seed']}"
    logit = row["largest_logit"]
    size = "a logit is not finite" if pd.isna(logit) else f"largest logit {logit:.3g}"
    return f"{row['seed']} at step {row['diverged_at']:.0f} ({row['diverged_parts']}; {size})"


def far_seeds(frame: pd.DataFrame) -> str:
    """Return the seeds of an arm whose loss is finite and beyond all reason, as "0 (1e+12 nats)".

    Args:
        frame: one row per seed; rows of older versions have no `uniform_nll` to compare with.
    """
    return ", ".join(f"{seed} ({loss:.3g} nats)" for seed, loss in _far(frame))


def _far(frame: pd.DataFrame) -> Iterator[tuple[int, float]]:
    if "uniform_nll" not in frame:
        return
    losses = frame["nll_joint" if column_of(frame, "nll_joint").notna().any() else "nll"]
    for seed, loss, uniform in zip(frame["seed"], losses, frame["uniform_nll"], strict=True):
        if pd.notna(loss) and pd.notna(uniform) and loss > FAR * uniform:
            yield int(seed), loss


def divergence_notes(arms: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return a sentence on the seeds that diverged and one on those far off; none where there are none.

    Args:
        arms: name -> one row per seed.
    """
    lost = [f"{arm}, seed {seeds}" for arm, frame in arms.items() if (seeds := diverged_seeds(frame))]
    far = [f"{arm}, seed {seeds}" for arm, frame in arms.items() if (seeds := far_seeds(frame))]
    notes = []
    if lost:
        notes.append(f"Diverged: {'; '.join(lost)}; no mean is given over the others alone.")
    if far:
        notes.append(f"Far above the loss of a uniform guess: {'; '.join(far)}.")
    if notes:
        notes.append("Remedies: a lower base_lr, use_scheduler=true for its warm-up, clip_gradients=1.")
    return notes
