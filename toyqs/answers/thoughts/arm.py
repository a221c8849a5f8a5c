"""Finished runs that differ in their seed alone, and their thoughts on held-out sequences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

from toyqs.answers.loaded.load import LoadedRun, load_run
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.errors import Refusal, typed
from toyqs.config.finished_run import columns_of
from toyqs.config.identity import named
from toyqs.config.inactive import inactive_keys
from toyqs.config.keys import RATES
from toyqs.evidence.judging.gain import Interval, interval
from toyqs.evidence.text import listed
from toyqs.objectives.rewards import target_log_prob
from toyqs.positions import rows
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.training.evaluation.reading import places, read_positions, spans
from toyqs.types import Batch, Context, Thoughts

MOST_SETTINGS = 4  # in which a control differs, that are printed
TRAINING = ("max_steps", "data_loader_batch_size", "base_lr", *RATES)  # in which a control does not


class Arm(NamedTuple):
    """Finished runs that differ in their seed alone."""

    runs: dict[int, LoadedRun]  # by the seed of their training, ascending; at least one

    @property
    def first(self) -> LoadedRun:
        """Return the run of the lowest seed."""
        return next(iter(self.runs.values()))

    @property
    def folders(self) -> list[str]:
        """Return the runs' folders."""
        return [run.folder for run in self.runs.values()]

    @property
    def keys(self) -> list[str]:
        """Return the runs' keys, the names of their folders."""
        return [Path(run.folder).resolve().name for run in self.runs.values()]


def load_arm(folders: Sequence[str], device: str = "cpu") -> Arm:
    """Load finished runs of one arm.

    Args:
        folders: of the runs, runs/KEY, at least one.
        device: cpu or cuda.

    Raises:
        Refusal: as `load_run`; two runs differ in more than their seed, or have one seed; or a run's text is
            not the one that it was trained on.
    """
    runs: dict[int, LoadedRun] = {}
    settings: dict[str, object] = {}
    for folder in folders:
        run = load_run(folder, device)
        run.check_data()
        seed, own = int(columns_of(folder)["seed"]), named(run.config, 0) | {"info": ""}
        first = settings or own
        if differing := [name for name in {**first, **own} if first.get(name) != own.get(name)]:
            name = differing[0]
            raise Refusal(
                f"{folder}: has {name}={typed(own.get(name))}, and {folders[0]} has "
                f"{name}={typed(first.get(name))}; give runs that differ in their seed alone"
            )
        if seed in runs:
            raise Refusal(f"{folder}: has seed {seed}, as {runs[seed].folder}; give each seed once")
        runs[seed], settings = run, first
    return Arm(dict(sorted(runs.items())))


def load_control(arm: Arm, folders: Sequence[str], device: str = "cpu") -> Arm:
    """Load finished runs of a control, and of them those with the seeds of an arm.

    Args:
        arm: what they are compared with, seed by seed.
        folders: of the runs, runs/KEY; a seed that the arm does not have is left out.
        device: cpu or cuda.

    Raises:
        Refusal: as `load_arm`; the runs are of another task or seq_len, or were trained by other `TRAINING`
            settings (a control without thoughts may have more steps), or one has no run of its seed.
    """
    control = load_arm(folders, device)
    own, other = (named(x.first.config, 0) for x in (arm, control))
    keys = [key for key in {**own, **other} if key.startswith("task") or key == "seq_len"]
    if differing := [key for key in keys if own.get(key) != other.get(key)]:
        key = differing[0]
        raise Refusal(
            f"--against {control.first.folder}: has {key}={typed(other.get(key))}, and {arm.first.folder} "
            f"has {key}={typed(own.get(key))}; give a control of the same task"
        )
    left_out = inactive_keys(arm.first.config) | inactive_keys(control.first.config)
    if not control.first.config.has_thoughts and other["max_steps"] > own["max_steps"]:
        left_out.add("max_steps")  # as compute_matched
    if differing := [key for key in TRAINING if own[key] != other[key] and key not in left_out]:
        key = differing[0]
        raise Refusal(
            f"--against {control.first.folder}: was trained with {key}={typed(other[key])}, and "
            f"{arm.first.folder} with {key}={typed(own[key])}; give a control that was trained alike"
        )
    if missing := arm.runs.keys() - control.runs.keys():
        raise Refusal(
            f"--against: no run has seed {listed(missing)}; give the control's runs of the same seeds, by "
            "which they are paired"
        )
    return Arm({seed: control.runs[seed] for seed in arm.runs})


def differing_settings(run: LoadedRun, control: LoadedRun) -> str:
    """Say what a control is: the settings that have an effect in both and differ."""
    here, there = named(run.config, 0), named(control.config, 0)
    left_out = {"info"} | inactive_keys(run.config) | inactive_keys(control.config)
    names = [name for name in here if here[name] != there.get(name) and name not in left_out]
    differing = [f"{name}={typed(there.get(name))} (here {typed(here.get(name))})" for name in names]
    if len(differing) > MOST_SETTINGS:
        differing[MOST_SETTINGS:] = [f"{len(differing) - MOST_SETTINGS} more"]
    return ", ".join(differing) or "the same settings"


class Sampled(NamedTuple):
    """Some held-out sequences as one run has read them, and its thoughts there; S = 1."""

    batch: Batch  # at the thinking positions
    context: Context  # likewise, of the first token that a position predicts
    noise: Tensor  # (1, B, T, K, L, …) that the thoughts were sampled from
    thoughts: Thoughts | None  # None: the run has no thoughts
    whole: Batch  # the same sequences at all positions
    positions: Tensor  # (1, B, T) long, which of them think


@torch.no_grad()
def sample(
    run: LoadedRun, seed: int, count: int | None = None, sizes: ThoughtSizes | None = None
) -> Iterator[Sampled]:
    """Let a run read the held-out sequences and think there, as at the end of its training.

    With the run's own sizes and number of sequences, sequences and noise are those of its row.

    Args:
        run: of any task.
        seed: that the run was trained with; thoughts come from its evaluation noise.
        count: number of sequences, fewer where the task has fewer; None: as many as the run's evaluation had.
        sizes: number and length of the thoughts; None: as in the last step of the training.
    """
    model, sizes = run.model, sizes or run.sizes
    like = next(model.parameters())
    held_out = draw_held_out(run.config, 1, like, count)
    noise_stream = stream(seed, "evaluation noise")
    for span in spans(held_out, sizes, run.params.eval_chunk):
        whole = rows(held_out, span)
        noise = thought_noise([noise_stream], whole.think, sizes).to(like)
        context, batch, selection = read_positions(model, whole, sizes)
        thoughts = model.think(context, noise, None, batch.lengths)
        context = context._replace(ahead=None, following=None)
        yield Sampled(batch, context, noise, thoughts, whole, places(whole, selection))


@torch.no_grad()
def predict(run: LoadedRun, sampled: Sampled, thoughts: Thoughts | None) -> Tensor:
    """Compute the logits of the first token, (1, B, T, K, 1, V); K = 1 where all thoughts are alike.

    Where all K thoughts give one prediction (mixing=attend) each has that one.
    """
    trace = run.model.talk(sampled.context, thoughts)
    logits = trace.logits[..., :1, :]
    count = logits.shape[3] if trace.attention is None else trace.attention.shape[3]
    return logits.expand(*sampled.batch.targets.shape, count, *logits.shape[4:])


def log_likelihood(run: LoadedRun, sampled: Sampled, thoughts: Thoughts | None) -> Tensor:
    """Compute log q(y | h_k, x) of the first token, (B, T, K), in nats; K = 1 as in `predict`."""
    return target_log_prob(predict(run, sampled, thoughts), sampled.batch.targets.unsqueeze(-1))[0]


@torch.no_grad()
def with_symbols(
    run: LoadedRun, sampled: Sampled, symbols: Tensor, lengths: Tensor | None = None
) -> Thoughts:
    """Return thoughts of given symbols, with the states that the reasoner has after them.

    Args:
        run: whose reasoner consumes the symbols.
        sampled: where.
        symbols: (1, B, T, K, L) long, padded as `Thoughts.symbols` are, or (1, B, T, K, L, Z).
        lengths: (1, B, T, K) long, where thoughts are cut; None: where their symbols end.
    """
    thoughts = run.model.think(sampled.context, sampled.noise, symbols, lengths)
    assert thoughts is not None
    return thoughts


def equal_sequences(run: LoadedRun, count: int | None = None) -> Tensor:
    """Return a number for each held-out sequence, equal ones alike: (n,) long, on the CPU.

    Args:
        run: of any task.
        count: as in `sample`.
    """
    inputs = draw_held_out(run.config, 1, torch.zeros(1), count).inputs[0]
    return inputs.unique(dim=0, return_inverse=True)[1]


def mean_interval(arm: Mapping[int, tuple[Tensor, Tensor]], sequences: Tensor) -> Interval:
    """Compute the weighted mean of a quantity and its 95 % t-interval, over seeds where there are several.

    Of a single run the interval is over its different sequences, for copies of one are not independent: of
    the n that have a weight, with sums s_i of weighted values and w_i of weights over all copies, mean
    m = Σ s_i / Σ w_i, half width t · √(n / (n − 1) · Σ (s_i − m w_i)²) / Σ w_i (the ratio estimator; the
    usual t-interval where all w_i are equal). It says nothing about other seeds.

    Args:
        arm: seed -> values (n, T) and weights (n, T).
        sequences: (n,) long, alike for equal sequences; see `equal_sequences`.

    Returns:
        Its count is the number of seeds, or of different sequences with a weight; of a single one the half
        width is NaN. Where all weights are 0 the numbers are NaN.
    """
    means = [float((values * weights).sum() / weights.sum()) for values, weights in arm.values()]
    if len(arm) > 1:
        return interval(means)
    (values, weights), mean = next(iter(arm.values())), means[0]
    empty = torch.zeros(int(sequences.max()) + 1, dtype=torch.float64)
    sums, totals = (
        empty.index_add(0, sequences, x.sum(-1).double().cpu()) for x in (values * weights, weights)
    )
    count = int((totals > 0).sum())
    if count < 2:
        return Interval(mean, math.nan, count)
    squares = ((sums - mean * totals) ** 2).sum() * count / (count - 1)
    return Interval(mean, float(stdtrit(count - 1, 0.975) * squares.sqrt() / totals.sum()), count)


def interval_words(arm: Arm, units: str = "different sequences") -> str:
    """Say what the intervals of `mean_interval` are over."""
    if len(arm.runs) > 1:
        return f"±: half of a 95 % t-interval over {len(arm.runs)} seeds"
    return f"±: half of a 95 % t-interval over {units}; one run, so it says nothing about other seeds"
