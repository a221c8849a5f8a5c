"""The measures of a row in words, with their units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from toyqs.evidence.text import human, short, spelled


class Measure(NamedTuple):
    """What a column of a row measures."""

    words: str
    unit: str = ""
    form: str = ".3f"  # "human": 12.3k; "whole": 1,234; "%": a share, in percent


NATS = "nats per counted position"
OF_PREDICTIONS = {
    "nll": Measure("NLL", NATS),
    "nll_joint": Measure("NLL of all tokens ahead together", NATS),
    "joint_samples": Measure("thoughts that it is estimated from", "0: summed over all", "whole"),
    "nll_joint_no_thought": Measure("the same without a thought", NATS),
    "nll_joint_shuffled": Measure("the same with another sequence's thoughts", NATS),
    "joint_floor": Measure("least possible for a model of its kind", NATS),
    "nll_ahead": Measure("NLL over all tokens ahead", NATS),
    "nll_hard": Measure("NLL where it thinks", NATS),
    "nll_easy": Measure("NLL where it does not think", NATS),
    "nll_deeper": Measure("NLL at depths beyond training's", NATS),
    "accuracy_deeper": Measure("accuracy at depths beyond training's", "%", "%"),
    "nll_hinted": Measure("NLL with a hint", NATS),
    "accuracy_hinted": Measure("accuracy with a hint", "%", "%"),
    "nll_teacher": Measure("NLL of what it learns from, with a hint", NATS),
    "accuracy_teacher": Measure("accuracy of what it learns from, with a hint", "%", "%"),
    "kl_teacher": Measure("divergence from what it learns from", NATS),
    "bayes_floor": Measure("best possible NLL (Bayes)", NATS),
    "uniform_nll": Measure("NLL of a uniform guess", NATS),
    "accuracy": Measure("accuracy", "%", "%"),
    "pass_at_k": Measure("right with one of the K thoughts or more", "%", "%"),
    "nll_marginal": Measure("NLL of the mean prediction of all K thoughts", NATS),
    "marginal_gap": Measure("what this mean saves", NATS),
    "nll_no_thought": Measure("NLL without a thought", NATS),
    "nll_shuffled": Measure("NLL with another sequence's thoughts", NATS),
    "nll_constant": Measure("NLL with one thought everywhere", NATS),
}
OF_THOUGHTS = {
    "started": Measure("started to think"),
    "thinking_share": Measure("positions that think", "%", "%"),
    "thought_entropy": Measure("entropy of a thought", "nats"),
    "information": Measure("information of a thought about its context", "nats"),
    "information_shuffled": Measure("the same of another context's thought", "nats"),
    "distinct_thoughts": Measure("different thoughts, of about 1,024", "", "whole"),
    "homogeneity": Measure("how well a thought tells the answer", "1 at most, 0 by chance"),
    "completeness": Measure("how well the answer tells the thought", "1 at most, 0 by chance"),
    "symbol_zipf": Measure("exponent of the symbols' frequencies by rank", "0: all are as frequent"),
    "thought_length": Measure("length of a thought", "symbols"),
    "unfinished": Measure("thoughts without an end", "%", "%"),
    "gate": Measure("weight of a thought in the mixer"),
    "attention_entropy": Measure("entropy of the weights of the K thoughts", "nats, at most log K"),
    "thought_coherence": Measure("coherence of a thought", "0 to 1"),
    "thought_semantic": Measure("its reading points as the base state", "0 to 1; 0.5: by chance"),
    "thought_syntactic": Measure("probability of its symbols under base_lm", "mean per symbol"),
    "thought_predictive": Measure("the truth gets likelier by it", "0 to 1; 0.5: as likely without"),
    "policy_snr": Measure("signal to noise of the policy's gradient"),
}
OF_COST = {
    "parameters": Measure("parameters that are used", "", "whole"),
    "recurrent_steps_per_token": Measure("recurrent steps", "per token"),
    "flops_per_token": Measure("FLOPs of a training step", "per token", "human"),
    "flops_per_step": Measure("FLOPs of a training step", "", "human"),
    "label_parameters": Measure("parameters that say labels in training, not among those", "", "whole"),
    "label_flops": Measure("FLOPs of a labelled position, likewise", "", "human"),
    "train_steps": Measure("training steps", "", "whole"),
    "sequences_seen": Measure("sequences trained on", "", "whole"),
    "final_reasoning_len": Measure("symbols of a thought at the end", "at most", "whole"),
    "cpu_seconds": Measure("CPU time of this seed", "s", ".2f"),
    "wall_seconds": Measure("wall-clock time of all seeds trained side by side", "s", ".1f"),
    "tokens_per_second": Measure("positions trained by them", "per second", "whole"),
    "peak_memory_bytes": Measure("most memory of their process", "bytes", "human"),
}
OF_DIVERGENCE = {
    "diverged_at": Measure("diverged at step", "", "whole"),
    "diverged_parts": Measure("parts of the loss that were not finite"),
    "largest_logit": Measure("largest logit then"),
}
MEASURES = OF_PREDICTIONS | OF_THOUGHTS | OF_COST | OF_DIVERGENCE


def loss_of(settings: Mapping[str, Any]) -> str:
    """Return the column by which a run of these settings is judged: of all tokens ahead if ahead=joint."""
    return "nll_joint" if settings.get("ahead") == "joint" else "nll"


def loss_words(losses: Iterable[str]) -> str:
    """Return what a table or a figure calls the losses in it, by their columns."""
    found, names = {*losses}, {"nll": "NLL", "nll_joint": "joint NLL"}
    return " or ".join(words for name, words in names.items() if name in found)


def measure_of(name: str) -> Measure:
    """Return what a column measures, by its own name where it has no words."""
    return MEASURES.get(name, Measure(name))


def written(name: str, value: Any, sign: str = "") -> str:
    """Return a measure's value as people read it; "–" for none.

    Args:
        name: of the column.
        value: in a row.
        sign: "+" writes the sign of a number above 0, too.
    """
    form = measure_of(name).form
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return spelled(value)
    if form == "human":
        return f"{sign if value > 0 else ''}{human(value)}"
    if form == "whole":
        return f"{value:{sign},.0f}"
    return short(100 * value, f"{sign}.1f") if form == "%" else short(value, f"{sign}{form}")
