"""One thread for every test: small tensors gain nothing from two, and sums keep their order.

Also the backbones of a table: `@pytest.mark.usefixtures("backbone")` runs every item on the GRU and on each
transformer; of the latter the default run takes a few, the others are slow.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator
from typing import Any

import pytest
import torch

from tests import locked

if locked.departures():  # as pytest_configure below, already for what is imported here
    warnings.simplefilter("default")

from tests import backbones, tiny, warm
from toyqs.sweep import starting

torch.set_num_threads(1)

# Files that start whole programs, the longest first. The workers take files in this order, so that the short
# ones come last and all workers end at about the same time.
LONGEST = (
    *(
        "test_slurm_sweep",
        "test_ray",
        "test_quick",
        "test_interruption",
        "test_gpu",
        "test_faults",
        "test_two_sweeps",
        "test_killing",
        "test_main",
    ),
    *("test_wheel", "test_setup", "test_logbook", "test_command_line", "test_many_runs", "test_scheduler"),
    *(
        "test_compose",
        "test_calls",
        "test_tour",
        "test_presets",
        "test_registry",
        "test_enumeration",
        "test_loop",
    ),
)


# The items on transformers that run by default: of these tables, one item for each line of QUICK.
QUICK_TABLES = {
    "test_ahead.py": ("test_the_expected_gradient_of_two_tokens",),
    "test_tokens_ahead.py": (
        "test_a_prediction_knows_the_tokens_up_to_its_own",
        "test_the_first_token_is_measured_as_if_it_were_alone",
    ),
    "test_enumeration.py": ("test_leave_one_out_is_unbiased",),
    "test_registry.py": ("test_reward_and_entropy_of_whole_thoughts", "test_multi_sample_climbs_the_bound"),
    "test_latents.py": ("test_leave_one_out_is_unbiased", "test_the_trace_equals_the_plain_reference"),
    "test_thoughts.py": ("test_the_trace_equals_the_plain_reference",),
    "test_structure.py": (
        *(
            "test_each_part_of_the_loss_reaches_just_its_parameters",
            "test_nothing_before_a_token_knows_of_it",
        ),
        "test_a_thought_changes_the_trace_at_its_position_alone",
    ),
    "test_samplers.py": ("test_a_ratio_to_the_density_leaves_the_gradient_exact",),
    "test_without_sampling.py": (
        *("test_a_state_handed_on_has_no_symbols_and_is_read", "test_what_is_not_a_pause_is_told_from_one"),
        "test_a_pause_is_steps_of_one_symbol_that_nothing_samples",
        "test_a_constant_thought_read_afresh_says_as_little_as_none",
        "test_deterministic_thoughts_are_the_reasoners_states",
    ),
    "test_random_thoughts.py": (
        *("test_no_symbol_depends_on_the_context", "test_every_token_is_equally_likely"),
        "test_they_are_measured_as_random_after_training",
    ),
    "test_other_rewards.py": (
        "test_rewards_change_places_after_penalties_and_before_the_baseline",
        "test_a_step_pays_what_others_earned_and_trains_the_predictor_alike",
        "test_reversed_the_policys_part_of_the_gradient_is_minus_it",
    ),
    "test_steps_alone.py": ("test_the_expected_gradient_is_that_of_the_plain_reference",),
    "test_mutants.py": ("test_a_thought_that_starts_with_another_row",),
    "test_chain_gradient.py": ("test_the_reward_of_all_that_follows_is_unbiased",),
    "test_chains.py": ("test_all_chains_at_once_are_one_chain_token_by_token",),
}
QUICK: list[dict[str, Any]] = [
    {"backbone": "gpt2", "groups": "AAAA", "start": "onward", "ahead": "continue"},
    {"backbone": "llama", "groups": "ABCD", "start": "afresh", "ahead": "continue"},
]


@pytest.fixture(params=backbones.BACKBONES)
def backbone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose the backbone of the models that tiny.py builds in this test."""
    if request.param != "gru":
        pytest.importorskip("transformers")
        from transformers.models.llama.modeling_llama import LlamaRMSNorm

        monkeypatch.setattr(LlamaRMSNorm, "forward", backbones.norm_in_float64)
    monkeypatch.setattr(tiny, "BACKBONE", request.param)
    return request.param


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork worker processes from one that has imported what they need, where their start is not tested."""
    for name, value in warm.workers_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(starting, "start_context", warm.context)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from going through all tests again and again, of which none is garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Turn no warning into an error, whatever pyproject.toml says, in other versions than the locked."""
    if locked.departures():
        config.addinivalue_line("filterwarnings", "default")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report that no warning was an error, where the versions are not the locked ones."""
    if found := locked.departures():
        terminalreporter.write_line(
            f"Not the locked versions, so no warning was an error: {'; '.join(found)}"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, the others in their order; mark slow items, skip those that need a GPU."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))
    waiting: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device here"))
        given = getattr(item, "callspec", None)
        if given is None or given.params.get("backbone", "gru") == "gru":
            continue
        name = item.nodeid.partition("[")[0]
        tables = QUICK_TABLES.get(item.path.name, ())
        left = waiting.setdefault(name, list(QUICK) if name.rpartition("::")[2] in tables else [])
        fits = [row for row in left if row.items() <= (row | given.params).items()]
        if fits:
            left.remove(fits[0])
        else:
            item.add_marker("slow")
