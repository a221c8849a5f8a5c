"""Checks of the reference that rewards and thoughts are compared with."""

from __future__ import annotations

from typing import cast

from toyqs.config.builders.reference_model import finished_model
from toyqs.config.choices import REFERENCE_MODELS, REFERENCES
from toyqs.config.errors import refuse, refusing
from toyqs.config.finished_run import settings_of
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.registry import objective_class
from toyqs.objectives.rewards import OWN_LOSS, READ_REFERENCE
from toyqs.rng import stream

THOUGHT_KEYS = (
    *("thoughts", "thought_vocab", "max_reasoning_len", "variable_len", "latent_dim", "reasoner_hidden_dim"),
)


def check_reference(config: RunConfig) -> None:
    """Refuse a reward that lacks its reference, or a reference that is not there or cannot serve.

    Args:
        config: resolved; also of a run without thoughts, whose predictor climbs the kl rewards too.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.reward in READ_REFERENCE:
        _check_needed(config, "reward", config.reward)
    if config.penalises_prediction_kl:
        _check_needed(config, "prediction_kl_beta", config.prediction_kl_beta)
    if config.thought_kl_beta and config.has_thoughts:
        _check_thought_kl(config)
    if config.reference == "checkpoint" and (config.uses_reference or config.penalises_thought_kl):
        _check_checkpoint(config)


def _check_needed(config: RunConfig, key: str, value: str | float) -> None:
    """Refuse what compares with a reference that is absent or does not fit."""
    reward, reference = config.reward, config.reference
    if reference is None:
        refuse(key, value, "needs a reference", f"reference=oracle or {', '.join(REFERENCES[1:])}")
    if reference == "oracle" and config.task.oracle is None:
        refuse(
            "reference",
            "oracle",
            f"task={config.task.name} does not know its true distribution",
            "reference=no_thought or another task",
        )
    if reference in ("no_thought", "ema", "initial"):
        if reward in OWN_LOSS:
            refuse(
                "reference",
                reference,
                f"reward={reward} trains the predictor towards its reference, here itself",
                "reference=oracle or checkpoint",
            )
        if config.use_reasoner and not config.predicts_without_thought:
            refuse(
                "reference",
                reference,
                "with these settings there is no prediction without a thought",
                "use_base_lm=true and mixing=auto, or reference=oracle",
            )
    infinite = {"kl_reverse": "every reward minus infinity", "prediction_kl_beta": "every loss infinite"}
    what = infinite.get(reward if key == "reward" else key)
    if what and reference == "oracle" and _holds_some_impossible(config):
        refuse(
            key,
            value,
            f"task={config.task.name} holds some tokens impossible, which makes {what}",
            f"{'reward=kl_forward' if key == 'reward' else 'another reference'} or another task",
        )


def _holds_some_impossible(config: RunConfig) -> bool:
    drawn = config.task.sample(stream(0, "a look at the oracle"), 4, config.seq_len, "held_out")
    return bool(config.task.oracle(drawn.inputs).isneginf().any())


def _check_thought_kl(config: RunConfig) -> None:
    if not objective_class(config).uses_score_function:
        refuse(
            "thought_kl_beta",
            config.thought_kl_beta,
            f"is taken from a thought's reward, and objective={config.objective} rewards none",
            "thought_kl_beta=0 or another objective",
        )
    if config.penalises_thought_kl and config.reference not in REFERENCE_MODELS:
        refuse(
            "thought_kl_beta",
            config.thought_kl_beta,
            f"needs a reference model, and reference={config.reference or 'null'} has none",
            "reference=ema, initial or checkpoint",
        )


def _check_checkpoint(config: RunConfig) -> None:
    """Refuse a finished run that cannot be this run's reference: its files, its task, its predictions."""
    if config.reference_run is None:
        refuse("reference", "checkpoint", "no run is given", "reference_run=FOLDER, that of a finished run")
    given = f"reference_run={config.reference_run}"
    refusing(lambda: settings_of(str(config.reference_run)))
    past = resolved(settings_of(str(config.reference_run)))
    refusing(lambda: check_task(given, past, config))
    refusing(lambda: _check_length(given, finished_model(str(config.reference_run), 1), config))
    if config.uses_reference and past.use_reasoner and not past.predicts_without_thought:
        refuse(
            "reference_run",
            config.reference_run,
            "that run's model has no prediction without a thought",
            "a run with use_reasoner=false, or one whose base is predicted from",
        )
    if config.uses_reference and _tokens(past) != _tokens(config):
        refuse(
            "reference_run",
            config.reference_run,
            f"that run predicts {_tokens(past)}, this one {_tokens(config)}",
            "a run of the same ahead and n_tokens_ahead, or another reward",
        )
    if not config.penalises_thought_kl:
        return
    if not past.has_thoughts:
        refuse(
            "reference_run", config.reference_run, "that run has no thoughts to stay near", "one that thinks"
        )
    for name, now, then in zip(THOUGHT_KEYS, _thoughts(config), _thoughts(past), strict=True):
        if now != then:
            refuse(
                "reference_run",
                config.reference_run,
                f"cannot score the thoughts of this run, {name} was {then} there and is {now} here",
                "the same",
            )


def _tokens(config: RunConfig) -> str:
    """Return what a run predicts at a time."""
    return f"{config.num_ahead} tokens jointly" if config.predicts_jointly else "token by token"


def _check_length(given: str, past: LatentReasoner, config: RunConfig) -> None:
    """Refuse a transformer whose own run needed fewer positions."""
    needed = config.longest_sequence if config.penalises_thought_kl else config.sequence_length
    if config.learns_positions and config.positions_up_to:
        needed = config.num_positions  # sequences may begin late
    known = [cast(Core, core).backbone.longest for core in past.cores.values()]
    least = min((x for x in known if x is not None), default=needed)
    if least < needed:
        raise ValueError(
            f"{given}: its model knows {least} positions, and {needed} are needed here; give a run of longer "
            "sequences"
        )


def check_task(given: str, past: RunConfig, config: RunConfig) -> None:
    """Refuse a finished run of another task, or of other tokens.

    Args:
        given: the setting that names it, with its value.
        past: its settings.
        config: those of the run that refers to it.

    Raises:
        ValueError: one line with the remedy.
    """
    there, here = past.task, config.task
    if there.name != here.name:
        raise ValueError(f"{given}: was trained on task={there.name}; give a run of task={here.name}")
    if there.symbols(range(there.vocab_size)) != here.symbols(range(here.vocab_size)):
        raise ValueError(
            f"{given}: its tokens are not those of this run's task={here.name}; give a run with the same "
            "vocabulary"
        )


def _thoughts(config: RunConfig) -> tuple[object, ...]:
    """Return what two runs must have in common for one to score the other's thoughts, by THOUGHT_KEYS."""
    kind = config.symbol_kind
    return (
        kind,
        (config.thought_vocab or config.task.vocab_size) if kind == "token" else None,
        config.max_reasoning_len,
        config.variable_len,
        config.latent_dim if kind == "gaussian" else None,
        config.reasoner_hidden_dim if kind == "state" else None,
    )
