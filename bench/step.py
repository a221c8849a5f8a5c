"""The training step that is timed: its task, its sizes, its time on a device and its memory."""

from __future__ import annotations

import math
import platform
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toyqs.config.builders.kernels import can_be_native
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.files import Refusal
from toyqs.tasks.task import Task
from toyqs.training.batches import draw_batches
from toyqs.training.loop import train
from toyqs.types import Batch


@dataclass
class RandomCharacters(Task):
    """A task with nothing to learn: every position counts and thinks."""

    vocab_size: int = 65

    def length(self, seq_len: int) -> int:
        """Return the number of positions, which is seq_len."""
        return seq_len

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw uniform symbols, each the target of the one before; all splits are alike."""
        text = torch.randint(self.vocab_size, (1, batch_size, seq_len + 1), generator=generator)
        inputs, targets = text[..., :-1].contiguous(), text[..., 1:].contiguous()
        return Batch(inputs, targets, torch.ones(inputs.shape), torch.ones(inputs.shape, dtype=torch.bool))


CONSTANT: Mapping[str, Any] = {"entropy_schedule": "constant", "use_scheduler": False}  # no schedules

CONFIG = RunConfig(
    base_lm_hidden_dim=32,
    reasoner_hidden_dim=32,
    weight_groups=["A", "B", "C", "D"],
    mixing="concat",
    linear_lm_head=True,
    interpreter_start="afresh",
    thought_vocab=None,
    trice_samples=4,
    max_reasoning_len=8,
    data_loader_batch_size=16,
    seq_len=64,
    reward="likelihood",
    baseline="leave_one_out",
    advantage_scale="none",
    entropy_encouragement_coef=0.1,
    base_lr=1e-3,
    clip_gradients=1.0,
    max_steps=1,
    seed=[0],
    task=RandomCharacters(),
    **CONSTANT,
)


# What doubles in the part `growth`: fields of a Size; both widths as one.
AXES = {
    **{"B": ("sequences",), "T": ("positions",), "K": ("thoughts",)},
    **{"L": ("length",), "D": ("base", "reasoner"), "V": ("vocab",)},
}


class Size(NamedTuple):
    """The size of a thinking GRU's step; written "base/reasoner B T K L"."""

    base: int = 32  # width of base_lm
    reasoner: int = 32  # width of the other roles
    sequences: int = 16  # B
    positions: int = 64  # T
    thoughts: int = 4  # K
    length: int = 8  # L
    vocab: int = 65  # V, of tokens and thought symbols alike

    def __str__(self) -> str:
        return f"{self.base}/{self.reasoner} {' '.join(map(str, self[2:6]))}"

    @property
    def tokens(self) -> int:
        """Return the sampled symbols of a step, B · T · K · L."""
        return math.prod(self[2:6])

    def times(self, factor: int, axis: str) -> Size:
        """Return the size with one of AXES so many times as large."""
        return self._replace(**{name: factor * getattr(self, name) for name in AXES[axis]})

    @property
    def config(self) -> RunConfig:
        """Return the settings of a run whose step has this size, resolved."""
        names = ("base_lm_hidden_dim", "reasoner_hidden_dim", "data_loader_batch_size", "seq_len")
        sizes: Any = dict(zip((*names, "trice_samples", "max_reasoning_len"), self, strict=False))
        return resolved(replace(CONFIG, **sizes, task=RandomCharacters(self.vocab)))


DEFAULT_JOB = RunConfig(**CONSTANT)


class Plan(NamedTuple):
    """What is measured."""

    sizes: Sequence[Size]  # of the table
    runs: dict[str, RunConfig]  # of the stacks
    stacks: Sequence[int]  # seeds side by side
    chunks: Sequence[int]  # chunk_positions of the first middle size, beside all and what the sizes choose
    doubled: Size  # where growth begins
    turn: float  # seconds of a program's turn, about


WHOLE = Plan(
    sizes=(
        Size(8, 8, 16, 64, 4, 8),
        Size(32, 32, 16, 64, 4, 8),
        Size(32, 100, 16, 64, 4, 8),
        Size(32, 32, 32, 128, 10, 10),
        Size(32, 256, 8, 128, 10, 10),
    ),
    runs={
        "plain, base 2": replace(DEFAULT_JOB, use_reasoner=False, base_lm_hidden_dim=2),
        "plain, base 12 (default job)": replace(DEFAULT_JOB, use_reasoner=False),
        "plain, base 64": replace(DEFAULT_JOB, use_reasoner=False, base_lm_hidden_dim=64),
        "thinking, 8/8 4 32 2 4": Size(8, 8, 4, 32, 2, 4).config,
        "thinking, 12/24 (default job)": DEFAULT_JOB,
        "thinking, 32/100": replace(DEFAULT_JOB, base_lm_hidden_dim=32, reasoner_hidden_dim=100),
    },
    stacks=(1, 2, 4, 8, 16),
    chunks=(32, 16, 13, 8),
    doubled=Size(32, 32, 16, 64, 4, 8),
    turn=0.3,
)
QUICK = Plan(
    sizes=(Size(4, 5, 2, 5, 2, 2, 7),),
    runs={
        "plain": replace(DEFAULT_JOB, use_reasoner=False, data_loader_batch_size=2),
        "thinking": replace(DEFAULT_JOB, data_loader_batch_size=2),
    },
    stacks=(1, 3),
    chunks=(2,),
    doubled=Size(4, 4, 2, 4, 2, 2, 7),
    turn=0.0,
)


def thought_tokens(config: RunConfig) -> int:
    """Count the sampled symbols of a training step, B · T · K · L."""
    positions = config.data_loader_batch_size * config.seq_len
    return positions * config.trice_samples * config.max_reasoning_len


def around_table(file: Path) -> tuple[str, str]:
    """Return what stands before and after the table in toyqs/sweep/step_times.py, or in a copy of it.

    Raises:
        Refusal: the file has no table, or native kernels cannot be measured here.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    before, name, rest = text.partition('MEASURED = """\n')
    if not name or not can_be_native():
        raise Refusal("--table: give toyqs/sweep/step_times.py, on a machine with a C++ compiler")
    return before + name, rest[rest.index('"""') :]


def with_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the file's text with the times that `stacks` has measured in place of its table."""
    before, after = around_table(file)
    lines = [f"{'kind':<10}{'kernels':<8}{'FLOPs':>11}" + "".join(f"{size:>9}" for size in rows[0]["ms"])]
    for row in rows:
        if row["program"] in ("torch", "native"):
            times = "".join(f"{size * ms:9.4g}" for size, ms in row["ms"].items())
            kind = row["run"].split(",")[0]
            lines.append(f"{kind:<10}{row['program']:<8}{row['FLOPs']:>11}{times}")
    return "\n".join([before + lines[0], *sorted(lines[1:]), after])


def now(device: str) -> float:
    """Wait until the device (cpu or cuda) is idle and return the time in seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def processor() -> str:
    """Return the CPU's name, as far as the system knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors made within it that are alive at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)
            self.peak = max(self.peak, sum(self.alive.values()))


class Enough(Exception):
    """Raised to end a training that has run long enough."""


def step_seconds(config: RunConfig, size: int, limit: float = math.inf) -> list[float]:
    """Time the training steps of a new model, each until the device has finished it.

    Args:
        config: resolved; it trains for max_steps, if the limit allows.
        size: seeds side by side.
        limit: seconds after which the training ends, but not before its fourth step.

    Returns:
        Seconds of each step but the first two, which also draw data and allocate memory.
    """
    seeds = list(range(size))
    model, settings = build_model(config, seeds), build_training_params(config)
    data = draw_batches(config.task, seeds, settings, next(model.parameters()))
    times = [now(config.device)]

    def report(step: int, _: object) -> None:
        times.append(now(config.device))
        if step >= 4 and times[-1] - times[2] > limit:
            raise Enough

    with suppress(Enough):
        train(model, build_objective(config), data, settings, report)
    return [after - before for before, after in pairwise(times[2:])]
