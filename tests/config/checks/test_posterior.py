"""What becomes of an inference network where no policy loss, or another objective, would train it."""

from __future__ import annotations

from dataclasses import replace

from tests.config.checks.checking import accepted, refused
from toyqs.config.controls import unmatched_controls
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig

WAKE_SLEEP = {"objective": "wake_sleep", "sampler": "inference"}


def test_an_inference_network_needs_the_objective_that_trains_it() -> None:
    assert accepted(**WAKE_SLEEP) == []
    refused(
        "sampler=inference: objective=vargrad does not train .*wake_sleep",
        **WAKE_SLEEP | {"objective": "vargrad"},
    )


def test_without_a_policy_loss_thoughts_are_the_policys_own() -> None:
    found = resolved(replace(RunConfig(), **WAKE_SLEEP, policy_loss_beta=0.0))
    assert (found.objective, found.sampler) == ("reinforce", "policy")


def test_what_becomes_of_it_in_every_control() -> None:
    """Those whose policy is not trained, or has nothing to draw, have thoughts of their own policy."""
    run = resolved(replace(RunConfig(), **WAKE_SLEEP, controls="all"))
    controls = {name: resolved(config) for name, config in unmatched_controls(run).items()}
    thinking = {name: x for name, x in controls.items() if x.has_thoughts}
    with_it = {name for name, x in thinking.items() if x.objective == run.objective}
    assert with_it == {"policy_reversed", "reward_shuffled"}
    assert all(x.sampler == "policy" for name, x in thinking.items() if name not in with_it)
