"""RunConfig -> the loss and the numbers of the training loop."""

from __future__ import annotations

from toyqs.config.run_config import (
    WEIGHED,
    RunConfig,
    mixing_of,
    off_policy,
    speaks,
    thoughts_of,
    tokens_ahead,
)
from toyqs.objectives.objective import Predicting
from toyqs.objectives.registry import member, with_settings
from toyqs.rng import ThoughtSizes
from toyqs.training.evaluation import LOGITS, THOUGHTS
from toyqs.training.loop import Objective
from toyqs.training.params import Settings, Weight


def build_objective(config: RunConfig) -> Objective:
    """The loss of a run: the predictor's alone where no symbol is sampled."""
    return with_settings(member(config) if speaks(config) else Predicting, config)


def build_settings(config: RunConfig) -> Settings:
    """The numbers of the training loop; max_steps is resolved."""
    weights = {
        "nll": Weight(config.nll_loss_beta),
        "policy": Weight(config.policy_loss_beta),
        "entropy": Weight(config.entropy_encouragement_coef, config.entropy_schedule == "linear"),
        "critic": Weight(config.critic_loss_beta),
        "reward_model": Weight(config.critic_loss_beta),
        "prior": Weight(config.prior_beta),
    }
    if speaks(config) and config.variable_len:
        weights["length_penalty"] = Weight(config.length_penalty)
        weights["punish_unfinished"] = Weight(config.punish_unfinished, rises=config.schedule_punfinished)
    faster = config.use_reasoner and config.meta_token_mode == "lr_multiplier"
    multipliers = {"markers.weight": config.meta_token_scale} if faster else {}
    return Settings(
        steps=config.max_steps,
        batch_size=config.data_loader_batch_size,
        seq_len=config.seq_len,
        thoughts=thought_sizes(config),
        lr=config.base_lr,
        schedule=config.schedule if config.use_scheduler else "constant",
        max_norm=config.clip_gradients,
        grad_acc=config.grad_acc,
        think_everywhere=config.think_at == "all",
        reference=config.reference,
        inner_steps=_inner_steps(config),
        num_ahead=tokens_ahead(config),
        stages=_stages(config),
        gate_floor=config.gate_floor if mixing_of(config) in WEIGHED else 0.0,
        lr_multipliers=multipliers,
        weights=weights,
        adaptive_len=speaks(config) and config.adaptive_len,
        evaluated_at_once=min(THOUGHTS, LOGITS // (config.task.vocab_size * tokens_ahead(config))),
    )


def _stages(config: RunConfig) -> tuple[int, ...]:
    """Lengths of the thoughts in the order of training; none where they stay the same."""
    if config.length_schedule == "constant" or not speaks(config):
        return ()
    rising = tuple(range(config.min_reasoning_len, config.max_reasoning_len + 1))
    return rising if config.length_schedule == "short_to_long" else rising[::-1]


def _inner_steps(config: RunConfig) -> int:
    """Steps on thoughts drawn beforehand; 0: a step draws its own."""
    if speaks(config) and member(config).repeats:
        return config.inner_steps
    return int(off_policy(config))


def thought_sizes(config: RunConfig) -> ThoughtSizes:
    """How many thoughts there are at a position, how long, and the noise that one symbol takes."""
    quantile = config.hard_quantile if config.use_reasoner and config.think_at == "hard" else None
    if not speaks(config):
        return ThoughtSizes(1, 0, hard_quantile=quantile)
    num_symbols = config.thought_vocab or config.task.vocab_size
    noise = {"gaussian": config.latent_dim, "gumbel": num_symbols, "state": config.reasoner_hidden_dim}
    width = noise.get(thoughts_of(config), 0)
    return ThoughtSizes(config.trice_samples, config.max_reasoning_len, width, quantile)
