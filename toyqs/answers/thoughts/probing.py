"""Linear probes of a task's features in finished runs, and what they find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import Arm, sample
from toyqs.answers.thoughts.linear_probe import Scores, probe
from toyqs.answers.thoughts.places import places, with_prefixes
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.errors import Refusal
from toyqs.evidence.judging.gain import Interval, interval
from toyqs.rng import stream
from toyqs.tasks.task import Feature
from toyqs.types import Batch

MANY = 2**12  # sequences, in which a task shows whether it has enough groups
ROWS = 2**13  # thinking positions that are probed by default, at most
FOLDS = 3  # of the groups of sequences; each is scored once, by probes fitted on the others
LEAST = 20  # groups
NOTHING = ""  # the name of the place where nothing is read


class Found(NamedTuple):
    """What one run's probe of a feature finds at one place; a value for each group of sequences.

    Their mean is the mean over all positions, and the spread of the values is that of the mean: a group
    with s_i in all, at w_i positions, has m + (s_i − m w_i) n / Σ w, where m = Σ s / Σ w.
    """

    accuracy: Tensor  # (n,) share of the positions whose class is the probe's likeliest
    nll: Tensor  # (n,) nats per position
    shuffled_accuracy: Tensor  # (n,) of a probe of shuffled labels
    shuffled_nll: Tensor  # (n,)


Table = dict[str, dict[str, dict[int, Found]]]  # feature -> place -> seed -> what is found there


class Split(NamedTuple):
    """Held-out sequences in folds; those of one group (`Task.probe_group`) are in one fold."""

    inputs: Tensor  # (B, T) long
    think: Tensor  # (B, T) bool, where the task lets think
    number: Tensor  # (B,) long, equal for sequences of one group, 0 … G − 1
    fold: Tensor  # (G,) long, 0 … FOLDS − 1

    def seen(self) -> float:
        """Return the share of positions at which the whole context is that of a sequence of another fold."""
        fold, shared, total = self.fold[self.number], 0, 0
        for t in range(self.inputs.shape[1]):
            context = self.inputs[:, : t + 1].unique(dim=0, return_inverse=True)[1]
            among = torch.zeros(int(context.max()) + 1, len(self.fold), dtype=torch.bool)
            among[context, fold] = True
            shared += int((self.think[:, t] & (among.sum(1) > 1)[context]).sum())
            total += int(self.think[:, t].sum())
        return shared / total


def split_of(run: LoadedRun, count: int | None) -> Split:
    """Draw a run's held-out sequences and part their groups into folds, the same in every run.

    Args:
        run: of any task.
        count: number of sequences; None: as many as its evaluation had, and as have ROWS thinking positions.

    Raises:
        Refusal: there are fewer than LEAST groups.
    """
    like = next(run.model.parameters())
    if count is None:
        each = run.sizes.thinking(int(draw_held_out(run.config, 1, like, 2).think[0, 0].sum()))
        count = min(run.config.eval_sequences, -(-ROWS // each))
    held_out, task = draw_held_out(run.config, 1, like, count), run.config.task
    inputs = held_out.inputs[0].cpu()
    groups, number = task.probe_group(inputs).unique(dim=0, return_inverse=True)
    if len(groups) < LEAST:
        more = draw_held_out(run.config, 1, like, MANY).inputs[0].cpu()
        enough = len(task.probe_group(more).unique(dim=0)) >= LEAST
        remedy = "give more --sequences" if enough else f"give runs of a larger {task.more_groups}"
        raise Refusal(
            f"{run.folder}: {len(groups)} different {task.group_name} among {len(inputs)} held-out sequences "
            f"are too few for probes, which need {LEAST}; {remedy}"
        )
    order = torch.randperm(len(groups), generator=stream(0, "probe"))
    return Split(inputs, held_out.think[0].cpu(), number, order % FOLDS)


def probe_arm(arm: Arm, split: Split, names: Sequence[str] | None = None) -> tuple[Table, dict[str, int]]:
    """Probe every run of an arm for every feature of its task, at every place.

    Args:
        arm: finished runs of a task with features.
        split: of the sequences.
        names: of the features; None: all.

    Returns:
        What is found, and the number of classes of each feature. A feature that no position of some fold has
        is left out.

    Raises:
        Refusal: a feature that the task does not have; or a run whose states are no finite numbers.
    """
    table: Table = {}
    sizes: dict[str, int] = {}
    for seed, run in arm.runs.items():
        inputs, features = read(run, seed, len(split.inputs))
        if unknown := sorted(set(names or ()) - features.keys()):
            raise Refusal(
                f"--features {unknown[0]}: its task has no such feature; it has {', '.join(features)}"
            )
        for name, feature in features.items():
            if (names and name not in names) or not _in_all_folds(feature.values, split):
                continue
            sizes[name] = feature.classes
            for place, x in inputs.items():
                found = find(x, feature, split, name)
                table.setdefault(name, {}).setdefault(place, {})[seed] = found
    return table, sizes


def read(run: LoadedRun, seed: int, count: int) -> tuple[dict[str, Tensor], dict[str, Feature]]:
    """Return what a run has for probes to read, and the features there, at its thinking positions.

    Args:
        run: of a task with features.
        seed: that it was trained with.
        count: number of held-out sequences.

    Returns:
        Place -> (B, T, D), D = 0 where nothing is read; name -> feature, its values (B, T).

    Raises:
        Refusal: something is no finite number.
    """
    assert run.config.task.features is not None
    parts, values, sizes = [], [], {}
    for sampled in sample(run, seed, count, run.sizes._replace(number=1)):
        inputs, targets, weights, think = (x.cpu() for x in sampled.whole[:4])
        whole = Batch(inputs, targets, weights, think)
        features, positions = run.config.task.features(whole), sampled.positions.cpu()
        sizes = {name: feature.classes for name, feature in features.items()}
        values.append({name: feature.values.gather(2, positions)[0] for name, feature in features.items()})
        parts.append({name: x.cpu() for name, x in places(run, sampled).items()})
    readings = with_prefixes(_joined(parts))
    if unfit := [name for name, x in readings.items() if not x.isfinite().all()]:
        raise Refusal(f"{run.folder}: its {unfit[0]} is no finite number; leave out the runs that diverged")
    joined = _joined(values)
    nothing = torch.empty(*next(iter(joined.values())).shape, 0)
    return {NOTHING: nothing, **readings}, {name: Feature(x, sizes[name]) for name, x in joined.items()}


def _joined(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    listed = list(parts)
    return {name: torch.cat([part[name] for part in listed]) for name in listed[0]}


def _in_all_folds(values: Tensor, split: Split) -> bool:
    return len(split.fold[split.number][(values >= 0).any(-1)].unique()) == FOLDS


def find(x: Tensor, feature: Feature, split: Split, name: str) -> Found:
    """Fit probes, and those of shuffled labels, on all folds but one, and score them on that one.

    Args:
        x: (B, T, D).
        feature: values (B, T); positions where they are −1 are left out.
        split: of the B sequences.
        name: of the feature; its labels are shuffled alike in every run and at every place.
    """
    has = feature.values >= 0
    number = split.number.unsqueeze(-1).expand(has.shape)[has]
    labels = feature.values[has]
    order = torch.randperm(len(labels), generator=stream(0, f"probe/{name}"))
    own, shuffled = (
        _by_group(_crossed(x[has], y, feature.classes, number, split), number, split)
        for y in (labels, labels[order])
    )
    return Found(*own, *shuffled)


def _crossed(x: Tensor, labels: Tensor, classes: int, number: Tensor, split: Split) -> Scores:
    """Score every row by a probe fitted on the other folds, with a ridge as if each group were a row."""
    scores = Scores(*torch.empty(2, len(labels), dtype=torch.float64))
    for here in (split.fold[number] == each for each in range(FOLDS)):
        ridge = int((~here).sum()) / len(number[~here].unique())
        for into, values in zip(scores, probe(x, labels, classes, ~here, ridge), strict=True):
            into[here] = values
    return scores


def _by_group(scores: Scores, number: Tensor, split: Split) -> list[Tensor]:
    """Return a value for each group; see `Found`."""
    found = []
    for values in scores:
        empty = torch.zeros(len(split.fold), dtype=values.dtype)
        sums = empty.index_add(0, number, values)
        weights = empty.index_add(0, number, torch.ones_like(values))
        mean = sums.sum() / weights.sum()
        found.append(mean + (sums - mean * weights) * len(sums) / weights.sum())
    return found


def over(values: Mapping[int, Tensor]) -> Interval:
    """Compute a mean and its 95 % t-interval over seeds; of one seed, over its groups.

    Args:
        values: seed -> (n,), one of `Found`, or a difference of two; at least one.
    """
    if len(values) > 1:
        return interval(float(x.mean()) for x in values.values())
    return interval(next(iter(values.values())).tolist())


def difference(more: Mapping[int, Found], less: Mapping[int, Found], measure: str = "nll") -> Interval:
    """Compute the difference of two places' or arms' measures, paired by seed and group; see `over`.

    Args:
        more: seed -> found.
        less: subtracted; the seeds that both have count, at least one.
        measure: a field of `Found`.
    """
    seeds = sorted(more.keys() & less.keys())
    return over({seed: getattr(more[seed], measure) - getattr(less[seed], measure) for seed in seeds})
