"""RunConfig -> what a record of the run's thoughts has to know."""

from __future__ import annotations

from toyqs.config.builders.training import build_training_params, objective_of
from toyqs.config.choices import REFERENCE_MODELS
from toyqs.config.run_config import RunConfig
from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.rewards import READ_REFERENCE
from toyqs.training.evaluation.recording import Recorded

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def build_recorded(config: RunConfig) -> Recorded | None:
    """Return what a record tells of a run beside what its model does; None where it has no thoughts.

    Rewards are left out where none trains a policy, and where they compare with another model, which a
    finished run does not have.

    Args:
        config: resolved, with max_steps.
    """
    if not config.has_thoughts:
        return None
    objective = objective_of(config) if config.has_policy_loss else None
    if config.reward in READ_REFERENCE and config.reference in REFERENCE_MODELS:
        objective = None
    assert objective is None or isinstance(objective, ThoughtObjective)
    params = build_training_params(config)
    return Recorded(config.task, own_symbol_names(config), objective, params, config.thoughts_every)


def own_symbol_names(config: RunConfig) -> list[str] | None:
    """Return the names of a run's thought symbols: letters, or numbers if many; None: they are tokens."""
    own = None if config.share_lm_head else config.thought_vocab
    if own is None:
        return None
    return list(LETTERS[:own]) if own <= len(LETTERS) else [str(i) for i in range(own)]
