"""A GPU computes what the CPU does: runs, seeds side by side, bfloat16, FlexAttention.

The items on cuda are marked gpu; where torch finds no CUDA device they are skipped. Those on the CPU hold the
same tests to what they say, in a second or two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_loop import Values, quick, trained
from toyqs.config.run_config import RunConfig

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
# Of weights after 12 steps. On the CPU weights that start off by a rounding end off by 1e-14 and 1e-5.
TOLERANCES = {"float64": 1e-10, "float32": 1e-3}
RUNS: dict[str, dict[str, Any]] = {
    "plain": {"use_reasoner": False},
    "tokens": {},
    "tokens, onward, gate": {"interpreter_start": "onward", "mixing": "gate"},
    "gaussian": {"thoughts": "gaussian"},
    "gumbel": {"thoughts": "gumbel", "objective": "pathwise"},
    "ppo": {"objective": "ppo_clip", "inner_steps": 2},
}

Run = tuple[dict[str, Tensor], Values]


def at(run: Run, index: int) -> dict[str, Tensor]:
    """One seed's weights and values of every step, on the CPU."""
    weights, values = run
    found = {name: weight[index].cpu() for name, weight in weights.items()}
    steps = {f"{name}, step {n}": x[index].cpu() for n, seen in enumerate(values) for name, x in seen.items()}
    return found | steps


def close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.gpu
@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_a_gpu_is_the_cpus(name: str) -> None:
    settings = quick(dtype="float64", **RUNS[name])
    there = trained(replace(settings, device="cuda"), [5])
    assert all(weight.is_cuda for weight in there[0].values())
    close(at(there, 0), at(trained(settings, [5]), 0), TOLERANCES["float64"])


@pytest.mark.gpu
@pytest.mark.parametrize("name", RUNS)
def test_a_run_in_cuda_graphs_is_the_cpus(name: str) -> None:
    settings = quick(dtype="float64", base_lr=0.0078125, use_scheduler=False, **RUNS[name])
    there = trained(replace(settings, device="cuda", cuda_graphs=True), [5])
    close(at(there, 0), at(trained(settings, [5]), 0), TOLERANCES["float64"])


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_step_more_and_another_seed_are_noticed(device: str) -> None:
    settings = quick(dtype="float64", device=device, max_steps=2)
    run, longer = trained(settings, [5, 6]), trained(replace(settings, max_steps=3), [5])
    weights = {name: x for name, x in at(run, 0).items() if "step" not in name}
    for other in (at(run, 1), at(longer, 0)):
        with pytest.raises(AssertionError, match="not close"):
            close({name: other[name] for name in weights}, weights, TOLERANCES["float32"])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_seed_alone_and_in_company_is_the_same_run(device: str, dtype: str) -> None:
    settings = quick(dtype=dtype, device=device)
    alone, company = trained(settings, [5]), trained(settings, [4, 5, 6, 7])
    close(at(company, 1), at(alone, 0), TOLERANCES[dtype])


@pytest.fixture
def _flex_anywhere(device: str) -> Iterator[None]:
    pytest.importorskip("transformers")
    from bench.transformer import flex_here

    with flex_here(device):
        yield


def stepped(config: RunConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Values of a transformer's first step, and its gradient in one vector."""
    from tests.training.test_transformer_training import gradients, step

    model, values = step(config)
    return values, torch.cat([x.flatten() for x in gradients(model).values()])


def transformer(device: str, **changes: Any) -> RunConfig:
    """Heads of 16, the narrowest that FlexAttention takes on a GPU."""
    from tests.training.test_transformer_training import configured

    return configured("gpt2", **{"device": device, "model_hidden_dim": 32} | changes)


@pytest.mark.usefixtures("_flex_anywhere")
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_flex_attention_gives_the_dense_values_and_gradients(device: str) -> None:
    dense, wanted = stepped(transformer(device))
    values, found = stepped(transformer(device, branch_attention="flex"))
    close(values, dense, 1e-4)
    scale = float(wanted.abs().max())
    assert scale > 1e-4
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3 * scale)
    assert not torch.equal(found, wanted), "the same sums in the same order: was it FlexAttention?"


@pytest.mark.usefixtures("_flex_anywhere")
@pytest.mark.parametrize("attention", ["dense", "flex"])
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_step_in_bfloat16_is_finite_and_near_the_one_in_float32(device: str, attention: str) -> None:
    fine, wanted = stepped(transformer(device))
    values, found = stepped(transformer(device, autocast=True, branch_attention=attention))
    assert found.isfinite().all() and not torch.equal(found, wanted)
    assert float(torch.cosine_similarity(found, wanted, 0)) > 0.9
    assert abs(float(values["nll"] - fine["nll"])) < 0.05
