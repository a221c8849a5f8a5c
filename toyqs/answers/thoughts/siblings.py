"""The controls of finished runs, found among the runs of their folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from toyqs.answers.thoughts.arm import Arm, load_arm
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import is_complete
from toyqs.evidence.text import spans
from toyqs.installation import program
from toyqs.sweep.words.spelling import typed_words


class Siblings(NamedTuple):
    """Controls of some runs, with the same seeds."""

    arms: dict[str, Arm]  # by the control's name, those of which some seed was trained
    missing: dict[str, list[int]]  # control -> the seeds that were not


def siblings(arm: Arm, names: Sequence[str], device: str = "cpu") -> Siblings:
    """Find controls in the folder that the runs are in, by the keys that they would have.

    Args:
        arm: the thinking runs.
        names: of the controls, in their order; those that these runs have no such control of are left out,
            and so is one that is the same run as the arm itself or as one before it.
        device: to load them on.

    Raises:
        Refusal: a control's files are damaged; see `load_arm`.
    """
    arms: dict[str, Arm] = {}
    missing: dict[str, list[int]] = {}
    known = {run_key(run.config, seed) for seed, run in arm.runs.items()}
    for name in names:
        folders = control_folders(arm, name)
        if not folders or known & {folder.name for folder in folders.values()}:
            continue
        known |= {folder.name for folder in folders.values()}
        found = [str(x) for x in folders.values() if is_complete(x.parent, x.name)]
        if found:
            arms[name] = load_arm(found, device)
        if left := [seed for seed in folders if name not in arms or seed not in arms[name].runs]:
            missing[name] = left
    return Siblings(arms, missing)


def control_folders(arm: Arm, name: str) -> dict[int, Path]:
    """Return where the runs of a control are, or would be, by seed; empty: the runs have no such control."""
    if (control := controls_of(arm).get(name)) is None:
        return {}
    return {seed: Path(run.folder).parent / run_key(control, seed) for seed, run in arm.runs.items()}


def controls_of(arm: Arm) -> dict[str, RunConfig]:
    """Return the settings of all controls of some runs but the matched ones, by name."""
    return unmatched_controls(replace(arm.first.config, controls="all"))


def command(arm: Arm) -> str:
    """Spell the command that trains the controls of finished runs that are missing."""
    folder = str(Path(arm.first.folder).parent)
    config = replace(arm.first.config, seed=list(arm.runs), controls="fair", runs_dir=folder)
    return " ".join([program(), *typed_words(config)])


def missing_lines(arm: Arm, missing: dict[str, list[int]]) -> list[str]:
    """Return what was not trained, and the command that trains it; nothing where nothing is missing."""
    if not missing:
        return []
    each = [f"{name} (seed {spans(seeds)})" for name, seeds in missing.items()]
    return [f"Not trained: {', '.join(each)}. This trains what is missing:", f"  {command(arm)}"]
