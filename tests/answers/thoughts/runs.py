"""Finished runs, trained for a few steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import run_stack
from toyqs.training.flops import Cost

SMALL = {
    **{"max_steps": 6, "data_loader_batch_size": 5, "eval_sequences": 40, "controls": "none"},
    **{"base_lm_hidden_dim": 3, "reasoner_hidden_dim": 5, "dtype": "float64"},
}


def trained(folder: Path, seeds: Sequence[int], **changes: Any) -> list[str]:
    """Train runs of one arm; return their folders in the order of the seeds."""
    config = resolved(replace(RunConfig(), **{**SMALL, "runs_dir": str(folder), **changes}))
    run_stack(config, seeds, Cost(1, 2, 3.0, 4.0), lambda step, loss: None)
    return [str(folder / run_key(config, seed)) for seed in seeds]


def row(folder: str) -> dict[str, Any]:
    """Return a run's row."""
    return json.loads((Path(folder) / "summary.json").read_text())
