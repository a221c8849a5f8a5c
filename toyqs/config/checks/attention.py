"""Checks of one prediction from all thoughts of a position, and of their coherence."""

from __future__ import annotations

from toyqs.config.errors import refuse
from toyqs.config.run_config import RunConfig
from toyqs.objectives.advantages import BASELINES
from toyqs.objectives.objective import CRITIC_STARTS
from toyqs.objectives.registry import fields_of, objective_class, registry

ONE_EACH = "mixing=concat"


def check_attention(config: RunConfig) -> None:
    """Refuse what needs a prediction with each thought where all thoughts of a position give one.

    Args:
        config: resolved, of a run with thoughts.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.pays_contributions and not config.attends:
        _refuse_contribution(config)
    if not config.attends:
        return
    if config.hands_on:
        why = "makes one prediction from all thoughts, and thought_into=state hands on each by itself"
        refuse("mixing", "attend", why, f"thought_into=prediction or {ONE_EACH}")
    if config.predicts_jointly:
        why = "makes one prediction from all thoughts, and ahead=joint sums over those with single ones"
        refuse("mixing", "attend", why, f"ahead=persist or {ONE_EACH}")
    if not objective_class(config).takes_one_prediction:
        able = " or ".join(name for name, kind in registry().items() if kind.takes_one_prediction)
        refuse(
            "objective",
            config.objective,
            "compares or weighs predictions with single thoughts, and mixing=attend makes one from all",
            f"objective={able}, or {ONE_EACH}",
        )
    if config.prefix_nll_beta:
        why = (
            "trains predictions with a thought's first symbols, and mixing=attend makes one from all thoughts"
        )
        refuse("prefix_nll_beta", config.prefix_nll_beta, why, f"prefix_nll_beta=0 or {ONE_EACH}")
    if config.has_policy_loss:
        _check_reward(config)
        _check_baseline(config)


def _refuse_contribution(config: RunConfig) -> None:
    """Refuse a reward that compares one prediction with those that lack a thought."""
    if config.mixing == "attend":
        refuse(
            "trice_samples",
            config.trice_samples,
            "reward=contribution leaves one thought out, and without a second one none is left",
            "trice_samples=2 or more, or reward=likelihood",
        )
    refuse(
        "reward",
        "contribution",
        f"is what a thought adds to one prediction from all, and mixing={config.mixing} makes one with each",
        "mixing=attend or reward=likelihood",
    )


def _check_reward(config: RunConfig) -> None:
    if config.credits_symbols:
        why = "asks what a thought's first symbols earn, and mixing=attend makes one prediction from all"
        refuse("credit", "prefix", why, f"credit=outcome or {ONE_EACH}")
    if config.rewards_steps:
        why = "is what each thought earns step by step, and mixing=attend makes one prediction from all"
        refuse("reward", "trajectory", why, f"reward=contribution or {ONE_EACH}")
    if config.learned_reward and config.reward_sees == "prediction":
        why = "reads the prediction with each thought, and mixing=attend makes one from all"
        refuse("reward_sees", "prediction", why, f"reward_sees=thought or {ONE_EACH}")


def _check_baseline(config: RunConfig) -> None:
    """Refuse what compares a thought with the others of its position: their rewards depend on it here."""
    read = fields_of(config)
    baseline = BASELINES[config.baseline]
    if "baseline" in read and baseline.least_thoughts > 1:
        refuse(
            "baseline",
            config.baseline,
            "is of the other thoughts' rewards, and with mixing=attend these depend on this thought too: the "
            "gradient would be biased",
            "baseline=none, or baseline=value value_sees=target",
        )
    if config.advantage_scale == "group_std" and "advantage_scale" in read:
        refuse(
            "advantage_scale",
            "group_std",
            "is the spread of the K rewards, and with mixing=attend each is of all thoughts: the gradient "
            "would be biased",
            "advantage_scale=none or batch_std",
        )
    if config.reward != "contribution":
        return
    if "baseline" in read and baseline.is_prediction:
        refuse(
            "baseline",
            config.baseline,
            "is what another prediction earns, and none but that of all thoughts has reward=contribution",
            "baseline=none, or baseline=value value_sees=target",
        )
    if config.has_critic and config.value_sees in CRITIC_STARTS:
        refuse(
            "value_sees",
            config.value_sees,
            "corrects what another prediction earns, and only that of all thoughts has reward=contribution",
            "value_sees=target or context",
        )


def check_coherence(config: RunConfig) -> None:
    """Refuse scores of coherence that do not exist in a run.

    Args:
        config: resolved, of a run with thoughts.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    give = (
        "base_lm_hidden_dim as interpreter_hidden_dim (semantic), thought_vocab=null thoughts=token "
        "(syntactic), and shares above 0"
    )
    if config.attends_by_scores:
        scores = config.coherence_scores
        if not any(scores[name][0] > 0 and scores[name][1] for name in ("semantic", "syntactic")):
            why = "no score that may weigh thoughts exists in this run"
            refuse("attend_by", "scores", why, f"{give}, or attend_by=learned")
    asked = {"coherence_beta": config.pays_coherence, "log_coherence": config.log_coherence}
    for key, needed in asked.items():
        if needed and not config.coherence_exists:
            why = "no score of coherence exists in this run whose share is above 0"
            instead = "coherence_beta=0" if key == "coherence_beta" else "log_coherence=false"
            refuse(key, getattr(config, key), why, f"{give}, or {instead}")
