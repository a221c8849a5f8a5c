"""What a command would do, in words: the table of plan=true, and the line before a sweep."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from toyqs.evidence.text import aligned
from toyqs.sweep.estimate import Estimate, wall_seconds
from toyqs.sweep.plan import PlannedCell, Stack

MINUTE = 60.0  # seconds
HEADINGS = (
    ("", "arm"),
    ("cells ×", "seeds"),
    ("", "shared"),
    ("", "runs"),
    ("already", "finished"),
    ("steps", "of each"),
    ("FLOPs", "to spend"),
    ("CPU time", "to spend"),
)


class Plan(NamedTuple):
    """What a command would do."""

    cells: Sequence[PlannedCell]
    undone: Collection[str]  # keys of the runs to be trained
    stacks: Sequence[Stack]  # of these
    runs_dir: str
    processes: int | None  # that would train on this machine; None: other machines would
    estimate: Estimate

    @property
    def keys(self) -> set[str]:
        """Return the keys of all runs, those that are finished too."""
        return {key for cell in self.cells for key in cell.run_keys}

    @property
    def flops(self) -> int:
        """Return the FLOPs of the runs to be trained."""
        return sum(stack.flops for stack in self.stacks)


@dataclass
class Arm:
    """An arm in all cells; a run that several ask for is counted with the first."""

    seeds: list[int] = field(default_factory=list)  # how many, of each cell
    shared: int = 0
    runs: int = 0
    finished: int = 0
    steps: set[int] = field(default_factory=set)
    flops: int = 0
    seconds: float = 0.0


def arms(plan: Plan) -> dict[str, Arm]:
    """Count the runs of each arm, and what those take that are to be trained."""
    found: dict[str, Arm] = {}
    seen: set[str] = set()
    for cell in plan.cells:
        for name, config in cell.arms.items():
            arm, keys = found.setdefault(name, Arm()), cell.keys[name].values()
            new = [key for key in keys if key not in seen]
            seen.update(new)
            arm.seeds.append(len(keys))
            arm.shared += len(keys) - len(new)
            arm.runs += len(new)
            arm.finished += sum(key not in plan.undone for key in new)
            arm.steps.add(config.max_steps)
    for place, stack in enumerate(plan.stacks):
        found[stack.arm].flops += stack.flops
        found[stack.arm].seconds += plan.estimate.seconds[place] if plan.estimate.seconds else 0.0
    return found


def as_table(plan: Plan) -> str:
    """Write what a command would do, by arm, and what that takes."""
    by_arm = arms(plan)
    lines = [_row(name, arm) for name, arm in by_arm.items()]
    total = Arm(
        shared=sum(arm.shared for arm in by_arm.values()),
        runs=len(plan.keys),
        finished=len(plan.keys) - len(plan.undone),
        flops=plan.flops,
        seconds=sum(plan.estimate.seconds or ()),
    )
    if len(lines) > 1:
        lines.append(_row("all", total))
    shown = list(zip(*HEADINGS, strict=True)) + lines
    columns = [list(column) for column in zip(*shown, strict=True)]
    if plan.estimate.seconds is None:
        columns.pop()
    return "\n".join([*aligned(columns, left={0}, rule=True), "", *_below(plan)])


def _row(name: str, arm: Arm) -> tuple[str, ...]:
    """Write a line of the table."""
    steps = "–".join(dict.fromkeys(f"{bound(arm.steps):,}" for bound in (min, max) if arm.steps))
    sizes = set(arm.seeds)
    asked = f"{len(arm.seeds)} × {sizes.pop()}" if len(sizes) == 1 else f"{sum(arm.seeds) or ''}"
    return (
        name,
        asked,
        f"{arm.shared:,}",
        f"{arm.runs:,}",
        f"{arm.finished:,}",
        steps,
        number(arm.flops),
        duration(arm.seconds) if arm.flops else "–",
    )


def _below(plan: Plan) -> Iterator[str]:
    """Write the lines below the table."""
    if any(arm.shared for arm in arms(plan).values()):
        yield "shared: a run of another cell as well, counted there"
    if not plan.stacks:
        yield "Nothing is left to train."
        return
    yield f"stacks  {counted(len(plan.stacks), 'stack')}, each of seeds trained side by side in one process"
    if (seconds := plan.estimate.seconds) is not None:
        most, stack = max(zip(seconds, plan.stacks, strict=True), key=lambda x: x[0])
        yield f"        the longest takes {duration(most)}, whatever the number of cores: {stack.name}"
        trials = counted(plan.estimate.trials, "short trial")
        yield f"time    {_time(plan)}, {f'from {trials}' if plan.estimate.trials else 'a guess'}"
    else:
        yield "time    not known: a trial in this process says nothing of a GPU, or of torchrun's processes"
    checkpoints = max(plan.estimate.checkpoints) * (plan.processes or 1)
    beside = f", and {size(checkpoints)} of checkpoints while they train" if checkpoints else ""
    yield f"disk    {_disk(plan)} in {plan.runs_dir}{beside}"


def as_line(plan: Plan) -> str:
    """Write what a sweep is about to do in one line."""
    asked, missing = len(plan.keys), len(plan.undone)
    finished = f"{asked - missing} of {asked} runs are finished already"
    if not plan.stacks:
        return finished
    runs = f"{finished}, {missing}" if missing < asked else counted(missing, "run")
    parts = [f"{number(plan.flops)} FLOPs", *([_time(plan)] if plan.estimate.seconds else []), _disk(plan)]
    return f"{runs} to train in {counted(len(plan.stacks), 'stack')}: {', '.join(parts)}"


def _time(plan: Plan) -> str:
    """Write the CPU time of all runs to be trained, and how long they take on this machine's cores."""
    seconds = plan.estimate.seconds or []
    spent = sum(seconds)
    if not plan.estimate.trials and spent < MINUTE:
        return "under a minute of CPU time"
    total = f"about {duration(spent)} of CPU time on this machine"
    if plan.processes is None:
        return total
    clock = duration(wall_seconds(seconds, plan.processes))
    return f"{total} ({clock} on {counted(plan.processes, 'core')})"


def _disk(plan: Plan) -> str:
    return size(sum(plan.estimate.bytes))


def counted(count: int, noun: str) -> str:
    """Return a number and what is counted: "1 run", "2 runs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """Return a large number in two digits: 1.2e15, 0."""
    return f"{value:.1e}".replace("e+", "e") if value else "0"


def duration(seconds: float) -> str:
    """Return a time in about two digits: 48 s, 12 min, 1 h 10 min, 20 h."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / MINUTE)
    if minutes < 100:
        return f"{minutes} min"
    hours, tens = divmod(round(minutes / 10), 6)
    return f"{round(minutes / 60)} h" if hours > 9 or not tens else f"{hours} h {10 * tens} min"


def size(count: float) -> str:
    """Return bytes in about two digits: 216 kB, 1.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
