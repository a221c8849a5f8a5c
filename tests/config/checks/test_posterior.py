"""Refusals about a memory of chains, and what becomes of learners of the posterior without a policy loss."""

from __future__ import annotations

from dataclasses import replace

from tests.config.checks.checking import accepted, refused
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig

CHAINS = {"objective": "mcmc_em", "train_examples": 512}


def test_a_memory_needs_a_finite_set_and_thoughts_that_stay_alike() -> None:
    assert accepted(**CHAINS) == []
    refused("train_examples=0: draws sequences without end, .*train_examples=512", objective="mcmc_em")
    refused("train_examples=9: are fewer than data_loader_batch_size=64", train_examples=9)
    refused("length_schedule=random: .*cannot change", **CHAINS, length_schedule="random")
    refused("train_nll_num=2: .*weighs all", **CHAINS, train_nll_num=2)
    refused("reward=accuracy: objective=mcmc_em weighs", **CHAINS, reward="accuracy")


def test_without_a_policy_loss_thoughts_are_the_policys_own() -> None:
    for given in (CHAINS, {"objective": "wake_sleep", "sampler": "inference"}):
        found = resolved(replace(RunConfig(), **given, policy_loss_beta=0.0))
        assert (found.objective, found.sampler) == ("reinforce", "policy")
