"""Held-out metrics: with thoughts sampled, shuffled, constant and absent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from toyqs.objectives import coherence
from toyqs.objectives.rewards import hits, over_tokens, target_log_prob, token_log_prob
from toyqs.positions import rows
from toyqs.rng import ThoughtSizes
from toyqs.training.evaluation.information import CONTEXTS, information_of
from toyqs.training.evaluation.joint import joint_losses
from toyqs.training.evaluation.reading import Forced, each, other_thoughts, parts, read_positions, spans
from toyqs.training.evaluation.thought_language import ThoughtSample
from toyqs.training.evaluation.watcher import Watcher
from toyqs.training.hard_positions import PositionSelection
from toyqs.training.shortage import in_fewer
from toyqs.types import Batch, Model, Trace

THOUGHTS = 8192  # evaluated at once, per seed: bounds the memory; independent of S, as results have to be
LOGITS = 2**26  # likewise; with a large vocabulary this bound is reached first
OVERALL = ("nll", "nll_marginal", "nll_shuffled", "nll_constant", "nll_no_thought")  # of all positions


class Meter:
    """Weighted means of per-position values, seed by seed, in float64."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, weights: Tensor) -> None:
        """Add values (S, B, T) with weights (S, B, T)."""
        self.sums[name] = self.sums.get(name, 0.0) + (values * weights).double().sum((1, 2))
        self.weights[name] = self.weights.get(name, 0.0) + weights.double().sum((1, 2))

    def means(self, more: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return name -> (S,), also of `more`, NaN throughout where a seed's `nll` is not finite."""
        means = {name: value / self.weights[name] for name, value in self.sums.items()}
        if "nll_marginal" in means:
            means["marginal_gap"] = means["nll"] - means["nll_marginal"]
        diverged = ~means["nll"].isfinite()
        return {
            name: value.to(diverged.device).masked_fill(diverged, math.nan)
            for name, value in (means | more).items()
        }


@torch.no_grad()
def evaluate(
    model: Model,
    held_out: Batch,
    seeds: Sequence[int],
    sizes: ThoughtSizes,
    *,
    full: bool,
    at_once: int = THOUGHTS,
    watcher: Watcher | None = None,
) -> dict[str, Tensor]:
    """Compute metrics on held-out sequences, in nats per counted position.

    Always `nll`, the mean over thoughts (as it is trained), and `accuracy` likewise. Where a position
    predicts several tokens these are of the first, and `nll_ahead` is the mean over thoughts and all tokens
    in the sequence. Where thoughts differ in length `thought_length`, the mean, and where their ends are
    sampled `unfinished`, the share without an end. With thoughts of at least one symbol also
    `thought_entropy` and `gate`, the mean weight of a thought, where the model has them, and of the first
    token

        nll_marginal    −log (1/K) Σ_k q(y | h_k, x), the honest mixture
        marginal_gap    nll − nll_marginal, at least 0: how far the predictions with the K thoughts differ
        pass_at_k       the share of positions at which at least one of the K thoughts makes it the likeliest

    Where all K thoughts give one prediction (mixing=attend) there are none of these three, but
    `attention_entropy`, of the weights of the thoughts in it; log K: all weigh the same.

    With log_coherence, or where it is put to use, the means over thoughts of `thought_semantic`,
    `thought_syntactic`, `thought_predictive`, those that exist, and of their mean `thought_coherence`; see
    objectives/coherence.py.

    Where symbols are tokens, of the first thought of about 1,024 positions, see thought_language.py,

        symbol_zipf         exponent of the symbols' frequencies by rank; 0: all are as frequent
        distinct_thoughts   their number
        homogeneity         how well a thought tells the answer, 1 at most, 0 by chance
        completeness        how well the answer tells the thought, likewise

    Where symbols have a density `information` and `information_shuffled`, see there. And with `full`, of the
    first token,

        nll_shuffled    with the thoughts that another sequence had at that position
        nll_constant    with one and the same thought everywhere
        nll_no_thought  the same head and no thought, where the model can do that

    Where a model predicts its N tokens jointly (ahead=joint) `nll_joint` and more; see joint.py.

    Where only the hardest positions think, the others count in all of these, predicted without a thought;
    added are `thinking_share` of the positions, `nll_hard` of those that think and `nll_easy` of the others.
    Shuffled thoughts are then those of another sequence's position of the same rank.

    What does not fit into memory is computed with fewer sequences at a time; the numbers are the same to
    rounding.

    Args:
        model: S seeds.
        held_out: (S, B, T), B ≥ 2.
        seeds: S of them; thought noise comes from each one's own stream.
        sizes: of the thoughts.
        full: compute all metrics, not only those that need no other thoughts.
        at_once: about how many thoughts are evaluated at once, per seed.
        watcher: looks at all of it; None: nobody does.

    Returns:
        Name -> (S,) float64.
    """

    def measured(most: int) -> dict[str, Tensor]:
        if watcher is not None:
            watcher.begin()
        return _evaluate(model, held_out, seeds, sizes, full, at_once, watcher, most)

    largest = max(span.stop - span.start for span in spans(held_out, sizes, at_once))
    return in_fewer(largest, measured, "an evaluation")


def _evaluate(
    model: Model,
    held_out: Batch,
    seeds: Sequence[int],
    sizes: ThoughtSizes,
    full: bool,
    at_once: int,
    watcher: Watcher | None,
    most: int,
) -> dict[str, Tensor]:
    """Do what `evaluate` does, with at most so many sequences at a time."""
    meter, language = Meter(), ThoughtSample(model.num_symbols, held_out)
    fixed: Forced | None = None
    told = False  # whether thoughts have symbols with a density
    for part in parts(model, held_out, seeds, sizes, full, at_once, most):
        noise = part.noise
        context, batch, selection = read_positions(model, part.whole, sizes)
        thoughts = model.think(context, noise, None, batch.lengths)
        trace = model.talk(context, thoughts)
        has_symbols = thoughts is not None and thoughts.symbols.shape[4] > 0
        told = has_symbols and trace.log_prob is not None
        _add_predictions(meter, trace, batch, has_symbols)
        for name, values in joint_losses(model, part, context, batch, thoughts, trace, full).items():
            meter.add(name, values, torch.ones_like(values) if name == "joint_samples" else batch.weights)
        if selection is not None:
            _add_other_positions(meter, selection)
        language.add(part.start, thoughts, batch)
        if watcher is not None:
            watcher.see(part.start, part.whole, batch, selection, trace)
        context = context._replace(ahead=None, following=None)  # from here on the first token alone
        if not full:
            continue
        if thoughts is not None and model.predicts_without_thought:
            _add_nll(meter, "nll_no_thought", model.talk(context, None), batch, watcher)
        if thoughts is None or not has_symbols:
            continue
        given = (thoughts.symbols, thoughts.given_length)
        fixed = each(lambda x: x[:, :1, :1, :1], given) if fixed is None else fixed
        for name, (symbols, lengths) in other_thoughts(given, fixed, part.others).items():
            other = model.talk(context, model.think(context, noise, symbols, lengths))
            _add_nll(meter, name, other, batch, watcher)
    _count_other_positions(meter)
    means = meter.means(language.measures())
    if not told or model.thinks_in_turn:  # such thoughts depend on more than their context
        return means
    return means | information_of(model, rows(held_out, slice(0, CONTEXTS)), seeds, sizes, most)


def _add_other_positions(meter: Meter, selection: PositionSelection) -> None:
    """Measure the positions that do not think."""
    weights = selection.weights
    meter.add("nll_easy", selection.nll, weights)
    for name in ("accuracy", "pass_at_k") if "pass_at_k" in meter.sums else ("accuracy",):
        meter.add(name, selection.accuracy, weights)
    meter.add("thinking_share", selection.think.to(weights), torch.ones_like(weights))


def _count_other_positions(meter: Meter) -> None:
    """Count the positions that do not think in every NLL: their prediction is the same with any thoughts."""
    sums, weights = meter.sums, meter.weights
    if "nll_easy" not in sums:
        return
    sums["nll_hard"], weights["nll_hard"] = sums["nll"], weights["nll"]
    for name in OVERALL:
        if name in sums:
            sums[name], weights[name] = sums[name] + sums["nll_easy"], weights[name] + weights["nll_easy"]
    if not weights["nll_easy"].any():
        del sums["nll_easy"]


def _add_predictions(meter: Meter, trace: Trace, batch: Batch, has_symbols: bool) -> None:
    targets, first = batch.targets.unsqueeze(-1), trace.logits[..., :1, :]
    log_q = target_log_prob(first, targets)
    meter.add("nll", -log_q.mean(-1), batch.weights)
    right = hits(first, targets).squeeze(-1)
    meter.add("accuracy", right.mean(-1), batch.weights)
    if batch.ahead is not None:
        log_q_ahead = over_tokens(token_log_prob(trace.logits, batch.ahead.targets), batch).mean(-1)
        count = batch.ahead.weights.sum(-1)
        meter.add("nll_ahead", -log_q_ahead / count.clamp(min=1), batch.weights * count)
    if has_symbols:
        if trace.attention is None:  # else there is one prediction, and nothing to average or to choose from
            meter.add("nll_marginal", math.log(log_q.shape[-1]) - log_q.logsumexp(-1), batch.weights)
            meter.add("pass_at_k", right.amax(-1), batch.weights)
        _add_thoughts(meter, trace, batch)


def _add_nll(meter: Meter, name: str, trace: Trace, batch: Batch, watcher: Watcher | None) -> None:
    log_q = target_log_prob(trace.logits[..., :1, :], batch.targets.unsqueeze(-1))
    meter.add(name, -log_q.mean(-1), batch.weights)
    if watcher is not None:
        watcher.see_other(name, trace)


def _add_thoughts(meter: Meter, trace: Trace, batch: Batch) -> None:
    if trace.entropy is not None:
        meter.add("thought_entropy", trace.entropy.sum(-1).mean(-1), batch.weights)
    if trace.thought_weight is not None:
        meter.add("gate", trace.thought_weight.mean(-1), batch.weights)
    if trace.attention is not None:
        share = trace.attention.clamp(min=1e-30)  # 0 · log 0 is 0
        meter.add("attention_entropy", -(share * share.log()).sum(-1), batch.weights)
    for name, scores in coherence.scores(trace, batch).items():
        meter.add(f"thought_{name}", scores.mean(-1), batch.weights)
    for name, values in (("thought_length", trace.length), ("unfinished", trace.unfinished)):
        if values is not None:
            meter.add(name, values.to(trace.logits.dtype).mean(-1), batch.weights)
