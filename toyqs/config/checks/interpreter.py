"""Checks of how a thought is read and what its prediction is added to."""

from __future__ import annotations

from typing import NoReturn

import torch

from toyqs.config.checks.positions import SAMPLED, counts_ahead
from toyqs.config.errors import Refusal, refuse
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_heads import HEADS
from toyqs.model.thoughts import TokenHead
from toyqs.rng import stream
from toyqs.training.stacking import with_lengths
from toyqs.types import Batch

IN_CHAINS = ("leave_one_out", "group_mean", "trice", "none")  # baselines of rewards that sum over positions


def check_reading(config: RunConfig) -> None:
    """Refuse a last token without a context, sums of logits that do not fit, a loss of no prediction.

    Args:
        config: resolved, of a run with thoughts.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.base_nll_beta and not config.predicts_without_thought:
        refuse(
            "base_nll_beta",
            config.base_nll_beta,
            "with these settings there is no prediction without a thought to train",
            "use_base_lm=true and mixing=auto, or base_nll_beta=0",
        )
    if config.hands_on:
        _check_handing_on(config)
    elif config.mixer == "base":
        refuse(
            "mixing",
            "base",
            "leaves the thought out of its own prediction, and nothing else reads it",
            "thought_into=state or another mixing",
        )
    if config.use_residual:
        _check_residual(config)
    if config.mixer == "sum":
        _check_one_head(config)
    if config.add_last_context_token and config.interpreter_start != "onward":
        refuse(
            "add_last_context_token",
            True,
            "an interpreter that starts afresh reads the symbols alone, and no context",
            "interpreter_start=onward or add_last_context_token=false",
        )


def check_seen(config: RunConfig) -> None:
    """Refuse to hide from reasoner or interpreter what reaches them all the same, and what has to be seen.

    Args:
        config: resolved, of a run with thoughts.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    several = config.max_reasoning_len > 1
    onward = config.interpreter_start == "onward"
    if config.markov_reasoner and several:
        if onward:
            why = "the interpreter goes on from the reasoner's state, which is to carry nothing"
            refuse("markov_reasoner", True, why, "interpreter_start=afresh or markov_reasoner=false")
        if config.symbol_kind == "state":
            why = "a symbol of thoughts=state is the reasoner's whole state"
            refuse("markov_reasoner", True, why, "another kind of thoughts or markov_reasoner=false")
    if config.interpreter_reads == "last" and several and onward:
        why = "the interpreter goes on from the reasoner's state, which has seen all symbols"
        refuse("interpreter_reads", "last", why, "interpreter_start=afresh or interpreter_reads=all")
    prefixes = config.credits_symbols or config.rewards_steps or config.trains_prefixes
    if config.interpreter_reads == "last" and several and prefixes:
        why = (
            "credit=prefix, prefix_nll_beta and reward=trajectory predict from the first symbols of a thought"
        )
        refuse("interpreter_reads", "last", why, "none of these, or interpreter_reads=all")
    if config.thought_logits == "cosine" and config.max_reasoning_len:
        _check_cosine(config)
    if config.hide_last_token:
        _check_hidden(config)


def _check_cosine(config: RunConfig) -> None:
    if config.random_thoughts or config.symbol_kind != "token":
        return
    if HEADS[config.thoughts] is not TokenHead:
        why = f"thoughts={config.thoughts} has a head of its own"
        refuse("thought_logits", "cosine", why, "thoughts=token or thought_logits=linear")
    if config.share_lm_head:
        why = "share_lm_head=true takes the LM head's logits"
        refuse("thought_logits", "cosine", why, "share_lm_head=false or thought_logits=linear")


def _check_hidden(config: RunConfig) -> None:
    """Refuse thoughts that begin before a token with none before it, or with that token read after them."""
    other = "hide_last_token=false"
    if "base_reasoner" not in config.roles_in_use:
        return
    if config.add_last_context_token:
        why = "add_last_context_token=true reads that token after the thought"
        refuse("hide_last_token", True, why, f"add_last_context_token=false or {other}")
    if config.hands_on:
        why = "with thought_into=state that token is read with what was thought before it"
        refuse("hide_last_token", True, why, f"thought_into=prediction or {other}")
    if config.task.encode is not None:
        refuse("hide_last_token", True, "a text is thought about as it is read", f"another task or {other}")
    batch = config.task.sample(stream(0, "check"), SAMPLED, config.seq_len, "train")
    if config.thinks_everywhere or bool(batch.think[..., 0].any()):
        why = "the first position thinks, and there is no token before it"
        refuse("hide_last_token", True, why, f"think_at=marked with a task such as iterate, or {other}")
    constant = config.has_thoughts and config.symbol_kind == "token" and config.num_symbols == 1
    if (not config.use_base_lm or config.mixer == "thought") and not constant:
        _check_told(config, batch)


def _check_told(config: RunConfig, batch: Batch) -> None:
    """Refuse that nothing reads the token at a position, unless the length of a thought tells which it is."""
    length = torch.zeros_like(batch.inputs)
    if config.adaptive_len and config.sets_lengths:
        given = with_lengths(batch, config.task, [batch], config.tokens_per_symbol).thought_length
        length = length if given is None else given
    tokens, length = batch.inputs[batch.think], length[batch.think]
    if any(len(tokens[length == each].unique()) > 1 for each in length.unique()):
        why = "only thoughts are predicted from, and neither they nor their lengths tell that token"
        refuse("hide_last_token", True, why, "hide_last_token=false, or use_base_lm=true and mixing=auto")


def _check_handing_on(config: RunConfig) -> None:
    """Refuse what cannot be where readings are added to base_lm's inputs."""
    base, reasoner = config.weight_groups[:2]
    if not config.use_base_lm or (config.mixer == "thought" and base != reasoner):
        _refuse_state(
            "hands readings on to base_lm, which nothing reads here: only the thought is predicted from",
            "use_base_lm=true and mixing=auto",
        )
    if config.n_tokens_ahead > 1:
        why = f"tokens ahead would be read without their thoughts, and n_tokens_ahead={config.n_tokens_ahead}"
        _refuse_state(why, "n_tokens_ahead=1")
    if config.think_at == "hard":
        _refuse_state("think_at=hard chooses the positions before anything is handed on", "think_at=marked")
    if not any(counts_ahead(config, steps) for steps in range(1, config.task.length(config.seq_len))):
        why = f"task={config.task.name} counts no position after one that thinks, and nothing is handed on"
        _refuse_state(why, "think_at=all or another task")
    if config.has_thoughts:
        _check_chains(config)


def _check_chains(config: RunConfig) -> None:
    """Refuse objectives and rewards of a single position's thoughts."""
    if config.objective not in ("reinforce", "pathwise"):
        why = f"objective={config.objective} compares the thoughts of one position, not of chains"
        _refuse_state(why, "objective=reinforce or pathwise")
    if config.credits_symbols or config.rewards_steps or config.trains_prefixes:
        why = "credit=prefix, prefix_nll_beta and reward=trajectory predict from beginnings of thoughts"
        _refuse_state(why, "credit=outcome, prefix_nll_beta=0 and another reward")
    if config.sampler != "policy":
        _refuse_state(f"sampler={config.sampler} knows no chains", "sampler=policy")
    if not config.has_policy_loss:
        return
    if config.baseline not in IN_CHAINS:
        why = f"a thought earns what follows it too, and baseline={config.baseline} is of one prediction"
        _refuse_state(why, f"baseline={' or '.join(IN_CHAINS)}")
    if config.learned_reward:
        _refuse_state("learned_reward=true pays for one prediction", "learned_reward=false")
    if config.shuffle_rewards:
        why = "shuffle_rewards=true would hand a thought the rewards of later positions of its own chain"
        _refuse_state(why, "shuffle_rewards=false")


def _refuse_state(why: str, give: str) -> NoReturn:
    refuse("thought_into", "state", why, f"{give}, or thought_into=prediction")


def _check_residual(config: RunConfig) -> None:
    if not config.use_base_lm:
        refuse(
            "use_residual",
            True,
            "adds the base logits, which use_base_lm=false takes away",
            "use_residual=false or use_base_lm=true",
        )
    if config.simple_lm_head:
        refuse(
            "use_residual",
            True,
            "adds logits, and simple_lm_head=true adds the projected reading",
            "only one of them",
        )
    if config.mixing not in ("auto", "thought", "sum"):
        refuse(
            "use_residual",
            True,
            f"adds the base logits to those of the thought alone, and mixing={config.mixing} mixes them "
            "in another way",
            "mixing=thought or use_residual=false",
        )


def _check_one_head(config: RunConfig) -> None:
    given = "use_residual=true" if config.use_residual else "mixing=sum"
    base, interpreter = config.base_lm_hidden_dim, config.interpreter_hidden_dim
    if base != interpreter:
        raise Refusal(
            f"{given}: base state and reading pass through one LM head, but are {base} and {interpreter} "
            f"wide; give both one width, such as model_hidden_dim={base}"
        )
