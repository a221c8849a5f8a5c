"""Checks of objectives whose thoughts follow the posterior: an inference network, a memory of chains."""

from __future__ import annotations

from toyqs.config.errors import refuse
from toyqs.config.run_config import RunConfig
from toyqs.objectives.registry import objective_class


def check_posterior(config: RunConfig, ranks: int) -> None:
    """Refuse an inference network that nothing trains, and a memory of what has no end or no single place.

    Args:
        config: resolved, with thoughts.
        ranks: how many processes torchrun has started.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    kind, objective = objective_class(config), config.objective
    if config.sampler == "inference" and "sampler" not in kind.allowed_values:
        why = f"objective={objective} does not train the network that would draw its thoughts"
        refuse("sampler", "inference", why, "sampler=policy or objective=wake_sleep")
    if config.train_examples and config.train_examples < config.data_loader_batch_size:
        why = f"are fewer than data_loader_batch_size={config.data_loader_batch_size}"
        refuse("train_examples", config.train_examples, why, "more of them, or 0, which is without end")
    if not kind.remembers:
        return
    if not config.train_examples:
        why = f"draws sequences without end, and objective={objective} remembers a thought of each"
        refuse("train_examples", 0, why, "train_examples=512")
    if ranks > 1:
        why = f"remembers chains in one process, and there are {ranks}"
        refuse("objective", objective, why, "one process or another objective")
    if config.length_schedule != "constant":
        why = f"objective={objective} remembers thoughts, which cannot change in length"
        refuse("length_schedule", config.length_schedule, why, "length_schedule=constant")
    if config.train_nll_num != config.trice_samples:
        why = f"objective={objective} weighs all thoughts"
        refuse("train_nll_num", config.train_nll_num, why, "train_nll_num=null")
