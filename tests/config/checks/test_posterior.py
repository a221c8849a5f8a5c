"""Refusals about a memory of chains, and what becomes of learners of the posterior without a policy loss."""

from __future__ import annotations

from dataclasses import replace

from tests.config.checks.checking import accepted, refused
from toyqs.config.controls import unmatched_controls
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.iterate import Iterate

CHAINS = {"objective": "mcmc_em", "train_examples": 512}


def test_a_memory_needs_a_finite_set_and_thoughts_that_stay_alike() -> None:
    assert accepted(**CHAINS) == []
    refused("train_examples=0: draws sequences without end, .*train_examples=512", objective="mcmc_em")
    refused("train_examples=9: are fewer than data_loader_batch_size=64", train_examples=9)
    refused("length_schedule=random: .*cannot change", **CHAINS, length_schedule="random")
    refused("train_nll_num=2: .*weighs all", **CHAINS, train_nll_num=2)
    refused("shuffle_rewards=true: objective=mcmc_em remembers", **CHAINS, shuffle_rewards=True)
    refused("task.curriculum=0.5: rises .*train_examples=0", **CHAINS, task=Iterate())
    refused("reward=accuracy: objective=mcmc_em weighs", **CHAINS, reward="accuracy")


def test_without_a_policy_loss_thoughts_are_the_policys_own() -> None:
    for given in (CHAINS, {"objective": "wake_sleep", "sampler": "inference"}):
        found = resolved(replace(RunConfig(), **given, policy_loss_beta=0.0))
        assert (found.objective, found.sampler) == ("reinforce", "policy")


def test_what_becomes_of_them_in_every_control() -> None:
    """Those whose policy is not trained, or has nothing to draw, have thoughts of their own policy."""
    kept = {"mcmc_em": {"policy_reversed"}, "wake_sleep": {"policy_reversed", "reward_shuffled"}}
    for given in (CHAINS, {"objective": "wake_sleep", "sampler": "inference"}):
        run = resolved(replace(RunConfig(), **given, controls="all"))
        controls = {name: resolved(config) for name, config in unmatched_controls(run).items()}
        thinking = {name: x for name, x in controls.items() if x.has_thoughts}
        with_it = {name for name, x in thinking.items() if x.objective == run.objective}
        assert with_it == kept[run.objective]
        assert all(x.sampler == "policy" for name, x in thinking.items() if name not in with_it)
        assert ("reward_shuffled" in controls) == (run.objective == "wake_sleep")
        assert all(x.train_examples == run.train_examples for x in controls.values())
