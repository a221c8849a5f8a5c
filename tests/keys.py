"""A second value for every key, and a comparison of run keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.tasks.rev_prog import RevProg

BASE = replace(RunConfig(), max_steps=100)


# A second value for every key, to be set on top of settings in which the key matters.
OTHER: dict[str, Any] = {
    "backbone": "gpt2",
    "pretrained": str(Path(__file__).parent / "checkpoint"),  # a config.json alone
    "start_from": "some/run",
    "infer_pretrained_base": "some/run",
    "infer_pretrained_reasoner": "some/run",
    "infer_pretrained_base_reasoner": "some/run",
    "lora_rank": 4,
    "model_n_layer": 3,
    "model_n_head": 4,
    "model_n_kv_head": 1,
    "positions_up_to": 64,
    "kernels": "native",
    "autocast": True,
    "branch_attention": "flex",
    "base_lm_hidden_dim": 9,
    "reasoner_hidden_dim": 33,
    "interpreter_hidden_dim": 31,
    "model_hidden_dim": 16,
    "use_reasoner": False,
    "use_base_lm": False,
    "weight_groups": ["A", "B", "B", "C"],
    "simple_lm_head": True,
    "mixing": "gate",
    "linear_lm_head": False,
    "lm_head_layers": 2,
    "share_lm_head": True,
    "interpreter_start": "onward",
    "thought_into": "state",
    "use_residual": True,
    "different_eot": False,
    "add_last_context_token": True,
    "increment_pos_id_for_last_context_token": True,
    "thought_vocab": 7,
    "think_at": "all",
    "trice_samples": 5,
    "max_reasoning_len": 2,
    "hard_quantile": 0.5,
    "length_schedule": "long_to_short",
    "min_reasoning_len": 2,
    "thoughts": "gaussian",
    "latent_dim": 3,
    "sigma": 0.2,
    "gumbel_temperature": 0.5,
    "prior_beta": 0.1,
    "variable_len": True,
    "adaptive_len": True,
    "hide_last_token": True,
    "thought_logits": "cosine",
    "thought_logit_scale": 3.0,
    "markov_reasoner": True,
    "interpreter_reads": "last",
    "warm_start": 2,
    "warm_start_as": "labels",
    "length_penalty": 0.01,
    "punish_unfinished": 0.1,
    "schedule_punfinished": True,
    "objective": "listwise",
    "reward": "accuracy",
    "reward_beta": 0.5,
    "trajectory_alpha": 1.0,
    "reference": "oracle",
    "reference_decay": 0.9,
    "reference_run": "some/run",
    "thought_kl_beta": 0.1,
    "sampler": "uniform",
    "sampler_temperature": 3.0,
    "random_thoughts": True,
    "learned_reward": True,
    "reward_sees": "prediction",
    "shuffle_rewards": True,
    "temperature": 0.7,
    "temperature_scale": "spread",
    "clip_ratio": 0.1,
    "clip_each": "symbol",
    "inner_steps": 2,
    "value_sees": "context",
    "critic_loss_beta": 2.0,
    "attend_by": "scores",
    "attend_temperature": 0.3,
    "coherence_beta": 0.5,
    "coherence_semantic": 0.1,
    "coherence_syntactic": 0.1,
    "coherence_predictive": 0.1,
    "gate_floor": 0.3,
    "meta_token_init": 1,
    "meta_token_mode": "lr_multiplier",
    "meta_token_scale": 3.0,
    "n_tokens_ahead": 2,
    "ahead": "continue",
    "ahead_decay": 0.9,
    "teacher_forcing_weight": 0.5,
    "baseline": "ema",
    "advantage_scale": "none",
    "credit": "prefix",
    "policy_loss_beta": -1.0,
    "nll_loss_beta": 0.5,
    "base_nll_beta": 0.5,
    "prediction_kl_beta": 0.3,
    "stage": "bake",
    "hint_share": 0.5,
    "adaptive_by": "problem",
    "problem_per_symbol": 3,
    "prefix_nll_beta": 0.5,
    "entropy_encouragement_coef": 0.3,
    "entropy_schedule": "constant",
    "train_nll_num": 1,
    "base_lr": 0.5,
    "base_lm_lr": 0.01,
    "reasoner_lr": 0.03,
    "interpreter_lr": 0.04,
    "optimizer": "sgd",
    "adjust_lr_fn": "original",
    "grokfast_lambda": 0.5,
    "grokfast_alpha": 0.9,
    "qk_clip": 1.0,
    "use_scheduler": False,
    "schedule": "linear",
    "clip_gradients": 0.0,
    "weight_decay": 0.01,
    "max_steps": 101,
    "epochs": 51,
    "data_loader_batch_size": 32,
    "grad_acc": 2,
    "chunk_positions": 3,
    "seq_len": 127,
    "debug_cfg": "seperateInterpreter",
    "device": "cuda",
    "dtype": "float64",
    "eval_every": 7,
    "eval_sequences": 17,
    "task": RevProg(k=2),
}


def key(**changed: Any) -> str:
    return run_key(replace(BASE, **changed), 7)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return key(**first) == key(**second)


@dataclass
class Text:
    """A task whose length follows seq_len and which is hashed by content."""

    name: ClassVar[str] = "text"
    path: str = "a.txt"
    content: ClassVar[str] = "abc"

    def length(self, seq_len: int) -> int:
        return seq_len

    def thinking(self, seq_len: int) -> int:
        return seq_len

    def identity(self) -> dict[str, str]:
        return {"content": self.content}
