"""RunConfig -> what helps a policy learn: critics, extra predictions, another sampler."""

from __future__ import annotations

import math

from toyqs.config.run_config import RunConfig
from toyqs.model.critics import RewardModel, RewardOfPrediction, ValueHead
from toyqs.model.latent_heads import GaussianHead, StateHead
from toyqs.model.predicting.attending import Judge
from toyqs.model.predicting.gold import GoldHead
from toyqs.model.predicting.inference import InferenceNetwork
from toyqs.model.predicting.parts import Auxiliaries
from toyqs.model.predicting.prefixes import Prefixes
from toyqs.model.samplers import GreedyHead, Prior, TemperedGaussian, TemperedTokens, UniformTokens
from toyqs.model.thoughts import ThoughtHead, TokenHead
from toyqs.objectives.objective import CRITIC_STARTS
from toyqs.objectives.registry import fields_of
from toyqs.types import Shares


def build_auxiliaries(config: RunConfig, num_seeds: int, policy: ThoughtHead | None) -> Auxiliaries:
    """Return what helps the policy of a run learn, and the prediction without a thought where it learns too.

    Args:
        config: resolved.
        num_seeds: S.
        policy: the head that samples the symbols; None where thoughts have none, or there are none.
    """
    no_thought = config.reference == "no_thought" and config.uses_reference
    if policy is None:
        alone = config.use_reasoner and (no_thought or config.trains_without_thought)
        extra_predictions = frozenset({"base"} if alone else ())
        return Auxiliaries(extra_predictions, gold_head=_gold_head(config, num_seeds))
    critic, reward_model = _critic(config, num_seeds), _reward_model(config, num_seeds)
    compared_with = {
        config.baseline if "baseline" in fields_of(config) else "",
        config.value_sees if critic else "",
    }
    wanted = {
        "base": config.trains_without_thought
        or no_thought
        or bool(compared_with & {"null_thought", "base_prediction"}),
        "without": config.pays_contributions,
        "average": "average_thought" in compared_with or isinstance(reward_model, RewardOfPrediction),
    }
    extra_predictions = frozenset(name for name, needed in wanted.items() if needed)
    greedy_head = GreedyHead(policy) if "greedy_thought" in compared_with else None  # type: ignore[arg-type]
    sampler, prefixes = _sampler(config, num_seeds, policy), _prefixes(config)
    helpers = (greedy_head, critic, sampler, reward_model, prefixes, _gold_head(config, num_seeds))
    return Auxiliaries(extra_predictions, *helpers, judge=judge_of(config))


def _gold_head(config: RunConfig, num_seeds: int) -> GoldHead | None:
    """Return what says the right thoughts in a control; None: the policy thinks them, or nothing has any."""
    if not config.has_gold or config.warm_start_as == "thoughts":
        return None
    sizes = config.task.gold_sizes()
    role = "reasoner" if "reasoner" in config.roles_in_use else "base_lm"
    return GoldHead(
        num_seeds, config.widths[role], sizes.symbols, at_once=1 if config.has_thoughts else sizes.longest
    )


def judge_of(config: RunConfig) -> Judge | None:
    """Return which scores of coherence are computed, and what they are for; None: none is."""
    if not config.judges_thoughts:
        return None
    semantic, syntactic, predictive = (exists for _, exists in config.coherence_scores.values())
    shares = Shares(*(share for share, _ in config.coherence_scores.values()))
    temperature = config.attend_temperature if config.attends_by_scores else None
    return Judge(semantic, syntactic, predictive, shares, temperature, paid=config.pays_coherence)


def _prefixes(config: RunConfig) -> Prefixes | None:
    """Return when predictions with the prefixes of thoughts are made; None: nothing reads them."""
    if not (config.credits_symbols or config.rewards_steps or config.trains_prefixes):
        return None
    return Prefixes(trained=config.trains_prefixes, always=config.rewards_steps)


def _critic(config: RunConfig, num_seeds: int) -> ValueHead | None:
    if not config.has_critic:
        return None
    choices = 1 if config.value_sees == "context" else config.task.vocab_size
    start = 0.0 if config.value_sees in CRITIC_STARTS else _of_a_uniform_prediction(config)
    return ValueHead(num_seeds, _context_widths(config), choices, config.num_ahead, start)


def _reward_model(config: RunConfig, num_seeds: int) -> RewardModel | RewardOfPrediction | None:
    if not config.learned_reward:
        return None
    if config.reward_sees == "prediction":
        return RewardOfPrediction(num_seeds, _context_widths(config), config.task.vocab_size)
    start = _of_a_uniform_prediction(config) * config.num_ahead
    sizes = {"gaussian": config.latent_dim, "state": config.reasoner_hidden_dim}
    size = sizes.get(config.symbol_kind, config.thought_vocab or config.task.vocab_size)
    is_token = config.symbol_kind == "token"
    size += is_token and config.lengths_vary  # one more symbol stands for "after the end"
    return RewardModel(num_seeds, _context_widths(config), config.max_reasoning_len, size, start, is_token)


def _of_a_uniform_prediction(config: RunConfig) -> float:
    """Return the likelihood of a token under a uniform prediction; 0 where another reward is paid."""
    return -math.log(config.task.vocab_size) if config.reward in ("likelihood", "trajectory") else 0.0


def _context_widths(config: RunConfig) -> list[int]:
    """Return the widths of the context that critics read."""
    width = config.widths
    return [width[role] for role in ("base_lm", "base_reasoner") if role in config.roles_in_use]


def _sampler(config: RunConfig, num_seeds: int, policy: ThoughtHead) -> ThoughtHead | InferenceNetwork | None:
    """Return what samples the thoughts of training in place of the policy's own head; None: nothing does."""
    match config.sampler, policy:
        case "inference", TokenHead():
            logits = (config.thought_vocab or config.task.vocab_size) + config.variable_len
            sizes = (config.reasoner_hidden_dim, logits, config.task.vocab_size, config.num_ahead)
            return InferenceNetwork(num_seeds, policy, *sizes)
        case "tempered", TokenHead():
            return TemperedTokens(policy, config.sampler_temperature)
        case "tempered", GaussianHead() | StateHead():
            return TemperedGaussian(policy, config.sampler_temperature)
        case "uniform", TokenHead():
            return UniformTokens(policy)
        case "prior", GaussianHead():
            return Prior(config.latent_dim)
    return None
