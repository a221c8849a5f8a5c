"""Checks of the positions at which a run thinks, and of the lengths of its thoughts."""

from __future__ import annotations

from torch import Tensor

from toyqs.config.errors import refuse
from toyqs.config.run_config import RunConfig
from toyqs.objectives.registry import objective_class
from toyqs.objectives.rewards import OWN_LOSS
from toyqs.rng import stream
from toyqs.training.stacking import with_lengths
from toyqs.types import Batch

SAMPLED = 16  # training sequences that are looked at for what counts in them
LOOKED_AT = 256  # for how long their problems are


def check_extent(config: RunConfig) -> None:
    """Refuse positions or lengths that do not go together.

    Args:
        config: resolved, of a run with thoughts.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.think_at == "hard":
        _check_hard(config)
    if config.length_schedule != "constant":
        _check_schedule(config)
    if config.max_reasoning_len:
        _check_ends(config)


def check_ahead(config: RunConfig) -> None:
    """Refuse tokens ahead that a run, with thoughts or without, cannot predict; see `check_extent`."""
    number, length = config.num_ahead, config.task.length(config.seq_len)
    if number > length:
        refuse(
            "n_tokens_ahead",
            number,
            f"a sequence of task={config.task.name} has only {length} tokens",
            f"n_tokens_ahead={length} or fewer",
        )
    if number > 1 and not counts_ahead(config, number - 1):
        most = max(n for n in range(1, number) if n == 1 or counts_ahead(config, n - 1))
        refuse(
            "n_tokens_ahead",
            number,
            f"where task={config.task.name} thinks, token {number} of those ahead never counts",
            f"n_tokens_ahead={most}" if most == 1 else f"n_tokens_ahead={most} or fewer",
        )
    if config.predicts_jointly:
        _check_joint(config)
    elif config.ahead == "persist" and number > 1 and (config.mixer == "thought" or not config.use_base_lm):
        refuse(
            "ahead",
            "persist",
            "with these settings only the thought is predicted from, and it would give all "
            f"{number} tokens one and the same prediction",
            "ahead=continue, or use_base_lm=true and mixing=auto",
        )


def counts_ahead(config: RunConfig, steps: int) -> bool:
    """Tell whether a position that counts ever stands so many steps after one that thinks; yes of a text."""
    if config.task.encode is not None:
        return True
    batch = config.task.sample(stream(0, "check"), SAMPLED, config.seq_len, "train")
    thinks = batch.think | config.thinks_everywhere
    return bool((thinks[..., :-steps] & (batch.weights[..., steps:] > 0)).any())


def _check_joint(config: RunConfig) -> None:
    if config.uses_reference and config.reference == "oracle":
        refuse(
            "reference",
            "oracle",
            "is the law of each token given those before it, and ahead=joint gives none of them",
            "reference=no_thought or ahead=persist",
        )


def _check_given_lengths(config: RunConfig) -> None:
    """Refuse lengths that nothing says, or that are 0 wherever something is asked."""
    name, per_symbol = config.task.name, config.tokens_per_symbol
    if not config.sets_lengths:
        says = "how long a thought should be" if per_symbol is None else "how long its problems are"
        refuse(
            "adaptive_len" if per_symbol is None else "adaptive_by",
            True if per_symbol is None else config.adaptive_by,
            f"task={name} does not say {says}",
            "a task with a depth (docs/depth.md), a text, or adaptive_len=false",
        )
    if per_symbol is None:
        return
    batch = config.task.sample(stream(0, "check"), LOOKED_AT, config.seq_len, "train")
    longest = int(_problems(config, batch)[batch.think | config.thinks_everywhere].max())
    if longest < per_symbol:
        refuse(
            "problem_per_symbol",
            per_symbol,
            f"of {LOOKED_AT} problems of task={name} the longest has {longest} tokens: no thought would "
            "have a symbol",
            f"problem_per_symbol={longest} or less, or longer problems",
        )


def _problems(config: RunConfig, batch: Batch) -> Tensor:
    """Return how long problems are, (1, B, T) long."""
    lengths = with_lengths(batch, config.task, [batch], tokens_per_symbol=1).thought_length
    assert lengths is not None
    return lengths


def _check_ends(config: RunConfig) -> None:
    if config.variable_len and config.symbol_kind != "token":
        refuse(
            "variable_len",
            True,
            f"the end is one more token, and thoughts={config.thoughts} have none",
            "thoughts=token or variable_len=false",
        )
    if config.adaptive_len and config.variable_len:
        refuse(
            "adaptive_len",
            True,
            "the task says when a thought ends, and variable_len=true lets the reasoner say it",
            "only one of them",
        )
    if config.adaptive_len:
        _check_given_lengths(config)
    for key in ("length_penalty", "punish_unfinished"):
        if getattr(config, key) and not config.variable_len:
            refuse(
                key,
                getattr(config, key),
                "thoughts do not choose their length",
                f"variable_len=true or {key}=0",
            )


def _check_hard(config: RunConfig) -> None:
    if not config.predicts_without_thought:
        refuse(
            "think_at",
            "hard",
            "with these settings there is no prediction without a thought",
            "use_base_lm=true and mixing=auto, or think_at=marked",
        )
    if config.n_tokens_ahead > 1:
        refuse(
            "think_at",
            "hard",
            f"the positions that do not think predict one token, and n_tokens_ahead={config.n_tokens_ahead}",
            "n_tokens_ahead=1 or think_at=marked",
        )
    if config.reward in OWN_LOSS:
        refuse(
            "think_at",
            "hard",
            f"the positions that do not think climb the likelihood, not reward={config.reward}",
            "reward=likelihood or think_at=marked",
        )
    if config.max_reasoning_len and config.has_critic:
        refuse(
            "think_at",
            "hard",
            "a critic reads every position",
            "an objective and a baseline without a critic, or think_at=marked",
        )
    if config.off_policy:
        refuse(
            "think_at",
            "hard",
            f"sampler={config.sampler} draws the thoughts of all positions before they are chosen",
            "sampler=policy or think_at=marked",
        )
    if config.max_reasoning_len and objective_class(config).needs_density:
        refuse(
            "think_at",
            "hard",
            f"objective={config.objective} trains again on thoughts of positions chosen before",
            "objective=reinforce or think_at=marked",
        )


def _check_schedule(config: RunConfig) -> None:
    least, most = config.min_reasoning_len, config.max_reasoning_len
    if not most:
        refuse(
            "length_schedule",
            config.length_schedule,
            "with max_reasoning_len=0 there are no thoughts to lengthen or shorten",
            "max_reasoning_len=2 or more, or length_schedule=constant",
        )
    if least >= most:
        refuse(
            "min_reasoning_len",
            least,
            f"length_schedule={config.length_schedule} goes between it and max_reasoning_len={most}",
            "a larger max_reasoning_len, a smaller min_reasoning_len or length_schedule=constant",
        )
