"""The files of one run, from its settings to its row."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import save
from torch import Tensor

from toyqs import thought_record
from toyqs.config import identity
from toyqs.config.builders.kernels import description
from toyqs.config.keys import OUTSIDE_KEY
from toyqs.config.run_config import RunConfig
from toyqs.experiment import checkpoint
from toyqs.experiment.trackers import NOWHERE, Place, Shown, TensorBoard, Tracker, Wandb
from toyqs.experiment.tracking import RunLog, environment
from toyqs.files import ROW, make_folder, read_json, sealed, write_bytes, write_json
from toyqs.thought_record import Record

FILES = (
    "config.json",
    "env.json",
    "metrics.jsonl",
    "model.safetensors",
)  # beside record and row, which notes all

NOTHING: Mapping[str, Any] = MappingProxyType({})
PARTS_FOUND = "grad_acc_found"  # in env.json: where memory ran out, and the micro-batches from there on

_environment = functools.cache(environment)  # once: the source that this process runs stays the same


class RunFolder:
    """The folder of one run, named by its key."""

    def __init__(
        self,
        config: RunConfig,
        seed: int,
        place: Place = NOWHERE,
        say: checkpoint.Say = checkpoint.say_on_stderr,
    ) -> None:
        """Name the folder.

        Args:
            config: resolved, of the stack.
            seed: of the run.
            place: in the command, for a tracker.
            say: prints a line for the user, where a tracker fails.
        """
        self.record = identity.record(config, seed)
        self.settings = identity.settings(config, seed)
        changed = identity.changed(config)
        self.changed = {name: x for name, x in changed.items() if name not in (*OUTSIDE_KEY, "seed")}
        self.key = identity.run_key(config, seed)
        self.folder = Path(config.runs_dir) / self.key
        self.tracker = _tracker(config, Shown(self.folder, place, seed, self.settings))
        self.say = say

    def begin(self, stack_size: int, log_size: int, started_from: Mapping[str, Any] = NOTHING) -> None:
        """Remove older rows, records and temporary files, write the settings, open metrics.jsonl.

        Args:
            stack_size: number of seeds trained side by side.
            log_size: bytes of an older metrics.jsonl to keep; 0: none.
            started_from: what was taken over from finished runs; see `take_over`.
        """
        make_folder(self.folder)
        for name in (".*.*", ROW, thought_record.NAME):
            for file in self.folder.glob(name):
                file.unlink()
        before = _parts_found(self.folder) if log_size else []
        self.environment = _environment() | {"stack_size": stack_size, "changed": self.changed}
        if self.settings["kernels"] == "native":
            self.environment["kernels"] = description()
        if started_from:
            self.environment["started_from"] = dict(started_from)
        self.environment |= {PARTS_FOUND: before} if before else {}
        write_json(self.folder / "config.json", self.record)
        write_json(self.folder / "env.json", self.environment)
        self.log = RunLog(self.folder, self.tracker, keep=log_size, say=self.say)

    def note_parts(self, step: int, sequences: int) -> None:
        """Note in env.json that a step, from 1, did not fit into memory, and how many sequences did since."""
        self.environment.setdefault(PARTS_FOUND, []).append({"step": step, "micro_batch": sequences})
        write_json(self.folder / "env.json", self.environment)

    def end(
        self, weights: dict[str, Tensor], index: int, values: dict[str, Any], record: Record | None
    ) -> None:
        """Write the weights of the seed at `index` of weights (S, ...), the record of its thoughts, the row.

        Each file and its name are on the disk before the row, so a power cut leaves no row without them.
        """
        weights = {name: weight[index : index + 1].contiguous() for name, weight in weights.items()}
        write_bytes(self.folder / "model.safetensors", save(weights))
        names: tuple[str, ...] = FILES
        if record is not None:
            thought_record.write(self.folder, record)
            names = (*FILES, thought_record.NAME)
        self.log.sync()
        row = {"key": self.key, "commit": self.environment["commit"], **self.settings, **values}
        row = sealed(row, self.folder, names)
        write_json(self.folder / ROW, row)
        checkpoint.remove(self.folder)
        self.log.close(row, record)


def _tracker(config: RunConfig, shown: Shown) -> Tracker | None:
    """Return the tracker that a run's settings ask for; None: the files alone."""
    if config.tracked_by == "wandb":
        where = {"project": config.wandb_project, "entity": config.wandb_entity}
        tags = [*config.wandb_tags, *([config.info] if config.info else [])]
        return Wandb(shown, where, tags, online=config.wandb_mode == "online")
    return TensorBoard(shown) if config.tracked_by == "tensorboard" else None


def _parts_found(folder: Path) -> list[Any]:
    """Return what `note_parts` noted before the training was interrupted."""
    try:
        noted: list[Any] = read_json(folder / "env.json").get(PARTS_FOUND, [])
    except (OSError, ValueError):
        return []
    return noted
