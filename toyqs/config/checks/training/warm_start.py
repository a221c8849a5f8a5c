"""Checks of a warm start: right thoughts, or the same as labels of states."""

from __future__ import annotations

from toyqs.config.errors import refuse
from toyqs.config.run_config import RunConfig
from toyqs.tasks.task import GoldSizes

MOST_STEPS = 64  # of a right thought: those of all positions of many batches are in memory together


def check_warm_start(config: RunConfig) -> None:
    """Refuse a warm start where there are no right thoughts, or the run cannot think them.

    Args:
        config: resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if not config.has_gold:
        return
    if config.task.gold is None:
        _refuse(config, f"task={config.task.name} does not say the right steps of a thought", "task=iterate")
    steps = config.max_steps
    if steps < 1:
        steps = config.task.steps(config.data_loader_batch_size, config.seq_len, config.epochs)
    if config.warm_start > steps:
        _refuse(config, f"the training has {steps} steps", f"warm_start={steps} or fewer")
    if config.cuda_graphs:
        _refuse(config, "its steps are not alike, and a graph replays one", "cuda_graphs=false")
    sizes = config.task.gold_sizes()
    if sizes.longest > MOST_STEPS:
        why = f"right thoughts have up to {sizes.longest} symbols, and may have {MOST_STEPS}"
        _refuse(config, why, f"a task={config.task.name} of less depth")
    if config.warm_start_as == "thoughts":
        _check_symbols(config, sizes)
    if config.use_reasoner:
        _check_steps(config, sizes)


def _check_symbols(config: RunConfig, sizes: GoldSizes) -> None:
    """Refuse thoughts that cannot be made of the task's symbols."""
    if not config.has_thoughts:
        _refuse(config, "this run has no thoughts, which could be right ones", "warm_start_as=labels")
    if config.symbol_kind != "token" or config.random_thoughts:
        what = "random_thoughts=true" if config.random_thoughts else f"thoughts={config.thoughts}"
        why = f"no policy learns the tokens of right thoughts with {what}"
        _refuse(config, why, "thoughts=token with random_thoughts=false, or warm_start_as=labels")
    if config.num_symbols < sizes.symbols:
        given = "null, the task's tokens," if config.thought_vocab is None else f"{config.thought_vocab}"
        what = f"right thoughts are made of {sizes.symbols} different symbols"
        why = f"{what}, and thought_vocab={given} has fewer"
        _refuse(config, why, f"thought_vocab={sizes.symbols} or more")


def _check_steps(config: RunConfig, sizes: GoldSizes) -> None:
    """Refuse thoughts whose length is not that of the right ones."""
    if config.hands_on:
        _refuse(config, "with thought_into=state a thought is one of a chain", "thought_into=prediction")
    if config.think_at != "marked":
        why = f"right thoughts are at marked positions, and think_at={config.think_at} takes others"
        _refuse(config, why, "think_at=marked")
    if not config.has_thoughts:
        return
    if config.length_schedule != "constant":
        why = f"length_schedule={config.length_schedule} cuts right thoughts off"
        _refuse(config, why, "length_schedule=constant")
    if config.learned_reward:
        why = "learned_reward=true is fitted on halves of a batch, and the sampled thoughts are ever fewer"
        _refuse(config, why, "learned_reward=false")
    if config.tokens_per_symbol:
        why = "right thoughts have a symbol for each step, and adaptive_by=problem asks for another number"
        _refuse(config, why, "adaptive_by=task")
    shortest, longest, length = sizes.shortest, sizes.longest, config.max_reasoning_len
    if length < longest:
        why = f"right thoughts have up to {longest} symbols, and max_reasoning_len={length}"
        _refuse(config, why, f"max_reasoning_len={longest}")
    if config.warm_start_as == "thoughts" and not config.lengths_vary and shortest < length:
        known = str(longest) if shortest == longest else f"{shortest} to {longest}"
        able = "adaptive_len=true" if config.task.thought_length is not None else "variable_len=true"
        remedy = f"max_reasoning_len={longest}" if shortest == longest else able
        _refuse(config, f"right thoughts have {known} symbols, and all thoughts {length}", remedy)


def _refuse(config: RunConfig, why: str, instead: str) -> None:
    refuse("warm_start", config.warm_start, why, f"{instead}, or warm_start=0")
