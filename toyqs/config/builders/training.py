"""RunConfig -> the loss and the numbers of the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from toyqs.config.resolve import chunk
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.kernels.adam import Adam
from toyqs.model.roles import WeightGroups
from toyqs.objectives.losses import base_nll, gold_nll, prediction_kl
from toyqs.objectives.objective import LikelihoodObjective, Loss, Objective
from toyqs.objectives.policy.reinforce import Reinforce, ReinforceInChains
from toyqs.objectives.prefixes import prefix_nll
from toyqs.objectives.registry import from_config, objective_class
from toyqs.rng import ThoughtSizes
from toyqs.training.evaluation.metrics import LOGITS, THOUGHTS
from toyqs.training.loop import LossFn
from toyqs.training.optimizers.grokfast import Grokfast
from toyqs.training.params import LossWeight, TrainingParams
from toyqs.types import Batch, Trace


def build_objective(config: RunConfig) -> LossFn:
    """Return the loss of a run: the prediction's alone where no symbol is sampled."""
    objective = _with_other_losses(config, objective_of(config))
    if config.trains_prefixes:
        own = partial(prefix_nll, decay=config.ahead_decay, later=config.teacher_forcing_weight)
        objective = _with_part(objective, "prefix_nll", own)
    if not config.has_gold:
        return objective
    return _with_gold(objective, _with_other_losses(config, from_config(LikelihoodObjective, config)))


def objective_of(config: RunConfig) -> Objective:
    """Return the objective of a run, without losses of other predictions than those with whole thoughts."""
    if config.trice_samples == 1 and not config.has_policy_loss:  # a group baseline would refuse one thought
        config = replace(config, baseline="none", advantage_scale="none")
    if not config.has_thoughts:
        return from_config(LikelihoodObjective, config)
    kind = objective_class(config)
    return from_config(ReinforceInChains if config.hands_on and kind is Reinforce else kind, config)


def _with_gold(objective: LossFn, predictor: LossFn) -> LossFn:
    """Return a loss of both kinds of sequences: those with right thoughts, and the others."""

    def either(trace: Trace, batch: Batch) -> Loss:
        if batch.gold is None:
            return objective(trace, batch)
        loss = predictor(trace, batch)
        return loss._replace(parts=loss.parts | {"gold": gold_nll(trace, batch)})

    return either


def _with_other_losses(config: RunConfig, objective: LossFn) -> LossFn:
    """Return a loss with what else a prediction is trained by: its NLL without a thought, a divergence."""
    if config.trains_without_thought:
        objective = _with_part(objective, "base_nll", base_nll)
    if not config.penalises_prediction_kl:
        return objective
    own = partial(prediction_kl, decay=config.ahead_decay, later=config.teacher_forcing_weight)
    return _with_part(objective, "prediction_kl", own)


def _with_part(objective: LossFn, name: str, part: Callable[[Trace, Batch], Tensor]) -> LossFn:
    """Return a loss with one part more (S,)."""

    def both(trace: Trace, batch: Batch) -> Loss:
        loss = objective(trace, batch)
        return loss._replace(parts=loss.parts | {name: part(trace, batch)})

    return both


def build_training_params(config: RunConfig) -> TrainingParams:
    """Return the numbers of the training loop.

    Args:
        config: resolved, max_steps given.
    """
    return TrainingParams(
        steps=config.max_steps,
        batch_size=config.data_loader_batch_size,
        seq_len=config.seq_len,
        thoughts=thought_sizes(config),
        lr=config.base_lr,
        schedule=config.schedule if config.use_scheduler else "constant",
        max_norm=config.clip_gradients,
        optimizer="muon" if config.uses_muon else config.optimizer,
        adjust_lr_fn=config.adjust_lr_fn,
        grokfast=Grokfast(config.grokfast_lambda, config.grokfast_alpha) if config.grokfast_lambda else None,
        native_adam=Adam if config.kernels == "native" else None,
        cuda_graphs=config.cuda_graphs,
        weight_decay=config.weight_decay,
        grad_acc=config.grad_acc,
        chunk_positions=chunk(config),
        think_everywhere=config.thinks_everywhere,
        reference=config.reference if config.uses_reference else None,
        inner_steps=_inner_steps(config),
        num_ahead=config.num_ahead,
        stages=_stages(config),
        random_lengths=config.length_schedule == "random",
        **_offsets(config),
        gate_floor=config.gate_floor if config.weighs_thoughts else 0.0,
        lr_multipliers=_multipliers(config),
        weights=_loss_weights(config),
        adaptive_len=config.has_thoughts and config.adaptive_len,
        tokens_per_symbol=config.tokens_per_symbol,
        warm_start=config.warm_start if config.has_gold else 0,
        shuffle_rewards=config.has_thoughts and config.has_policy_loss and config.shuffle_rewards,
        hint_share=config.hint_share,
        reference_reads_hints=config.stage == "bake",
        eval_chunk=min(
            THOUGHTS, LOGITS // (config.task.vocab_size * config.num_ahead * _predictions(config))
        ),
    )


def _loss_weights(config: RunConfig) -> dict[str, LossWeight]:
    """Return the weights of the loss's parts, and of what a thought's length costs."""
    weights = {
        "nll": LossWeight(config.nll_loss_beta),
        "base_nll": LossWeight(config.base_nll_beta),
        "prefix_nll": LossWeight(config.prefix_nll_beta),
        "prediction_kl": LossWeight(config.prediction_kl_beta),
        "policy": LossWeight(config.policy_loss_beta),
        "entropy": LossWeight(config.entropy_encouragement_coef, config.entropy_schedule == "linear"),
        "critic": LossWeight(config.critic_loss_beta),
        "reward_model": LossWeight(config.critic_loss_beta),
        "inference": LossWeight(config.critic_loss_beta),
        "prior": LossWeight(config.prior_beta),
    }
    if config.has_gold:
        weights["gold"] = LossWeight(1.0)  # in all arms, also where no policy loss is
    if config.has_thoughts and config.variable_len:
        weights["length_penalty"] = LossWeight(config.length_penalty)
        weights["punish_unfinished"] = LossWeight(config.punish_unfinished, rises=config.schedule_punfinished)
    return weights


def _predictions(config: RunConfig) -> int:
    """Return how many predictions an evaluation makes with a thought: one, or with its prefixes too.

    Or without it, and of what base_lm would say. What is only logged counts for nothing: an evaluation goes
    through its sequences in the same parts, whether a run logged its coherence or not.
    """
    if config.pays_contributions or config.attends_by_scores or config.pays_coherence:
        return 3
    return 1 + config.max_reasoning_len if config.rewards_steps else 1


def _multipliers(config: RunConfig) -> dict[str, float]:
    """Return the learning rates that are not base_lr, as factors of it, by the parameters' names."""
    groups, rates = WeightGroups.parse(config.weight_groups), config.rates
    by_name = {f"cores.{groups.letter(role)}.*": rates[role] for role in config.roles_in_use}
    by_name |= {"thought_head.*": rates["reasoner"], "interpreter.*": rates["interpreter"]}
    factors = {name: rate / config.base_lr for name, rate in by_name.items() if rate != config.base_lr}
    faster = config.use_reasoner and config.meta_token_mode == "lr_multiplier"
    return factors | ({"*markers.weight": config.meta_token_scale} if faster else {})


def _stages(config: RunConfig) -> tuple[int, ...]:
    """Return the lengths of thoughts, in the order of training where it has one; none: they stay the same."""
    if config.length_schedule == "constant" or not config.has_thoughts:
        return ()
    rising = tuple(range(config.min_reasoning_len, config.max_reasoning_len + 1))
    return rising[::-1] if config.length_schedule == "long_to_short" else rising


def _offsets(config: RunConfig) -> dict[str, int]:
    """Return how many positions a sequence may begin at, with a thought after it and without one."""
    if config.positions_up_to is None or not config.learns_positions:
        return {}
    alone = config.positions_up_to - config.task.length(config.seq_len) - config.hint_length
    with_thoughts = config.longest_sequence - config.sequence_length  # what a sequence of training has beyond
    return {"offsets": alone + 1, "fitting_offsets": alone - with_thoughts + 1}


def _inner_steps(config: RunConfig) -> int:
    """Return how many steps train on thoughts drawn before them; 0: a step draws its own."""
    if config.has_thoughts and objective_class(config).needs_density:
        return config.inner_steps
    return int(config.off_policy)


def thought_sizes(config: RunConfig) -> ThoughtSizes:
    """Return how many thoughts a position has, how long they are, and the noise that one symbol takes."""
    quantile = config.hard_quantile if config.use_reasoner and config.think_at == "hard" else None
    if not config.has_thoughts:
        return ThoughtSizes(1, 0, hard_quantile=quantile)
    num_symbols = config.thought_vocab or config.task.vocab_size
    noise = {"gaussian": config.latent_dim, "gumbel": num_symbols, "state": config.reasoner_hidden_dim}
    width = noise.get(config.symbol_kind, 0)
    return ThoughtSizes(config.trice_samples, config.max_reasoning_len, width, quantile)
