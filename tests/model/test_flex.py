"""FlexAttention to the shared prefix against the dense products: outputs, gradients, a whole training step.

Torch's kernels are for a GPU; on a CPU its plain form of them is compared, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention.flex_attention import flex_attention

from bench.transformer import flex_on_a_cpu
from tests.branching import WIDTH, backbone
from tests.model.test_transformer import BOTH, LENGTH, THOUGHTS, TIME, context_and_symbols, random
from tests.training.test_transformer_training import configured, gradients, step
from toyqs.config.builders.cost import count_cost
from toyqs.config.identity import run_key
from toyqs.model.backbones import flex_attention as flex
from toyqs.model.backbones.transformer import TransformerBackbone

SOME = torch.tensor([[[3, 0, 3], [1, 2, 0]]])  # positions that think, in any order and more than once


@pytest.fixture(autouse=True)
def _on_a_cpu() -> Iterator[None]:
    with flex_on_a_cpu():
        yield


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of queries of each call of FlexAttention."""
    calls, right = [], flex.attend

    def attend(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        calls.append(query.shape[2])
        return right(query, *rest)

    monkeypatch.setattr(flex, "attend", attend)
    return calls


def by_blocks(of: TransformerBackbone) -> TransformerBackbone:
    """Return a copy whose branches attend by FlexAttention."""
    found = copy.deepcopy(of)
    found.flex = True
    return found


def thinking(of: TransformerBackbone, places: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
    """Return outputs after a marker and three symbols, the second not for all, and their sum's gradients.

    Returns:
        Outputs, by symbol; gradients of context, symbols and parameters.
    """
    context, symbols = (x.requires_grad_() for x in context_and_symbols())
    _, state = of.read(context)
    if places is not None:
        state = of.gather(state, places)
    output, state = of.step(random(1, 1, 1, 1, WIDTH, seed=3), state)  # one for all K thoughts
    outputs, chosen = [output], symbols[:, :, : output.shape[2]]
    for number, symbol in enumerate(chosen.unbind(4)):
        output, new = of.step(symbol, state)
        if number == 1:
            live = random(1, *new.position.shape, seed=4) > 0
            new = of.keep_ended(new, state, live)
        state = new
        outputs.append(output)
    loss = sum((x * random(*x.shape, seed=5)).sum() for x in outputs)
    return outputs, list(torch.autograd.grad(loss, [context, symbols, *of.parameters()]))


@pytest.mark.parametrize(
    ("family", "places"),
    [
        ("gpt2", None),
        ("llama", SOME),
        pytest.param("gpt2", SOME, marks=pytest.mark.slow),
        pytest.param("llama", None, marks=pytest.mark.slow),
    ],
    ids=["gpt2, all positions", "llama, some", "gpt2, some", "llama, all positions"],
)
def test_outputs_and_gradients_are_the_dense_ones(
    family: str, places: Tensor | None, asked: list[int]
) -> None:
    ours = backbone(family)
    dense, wanted = thinking(ours, places)
    assert not asked
    outputs, found = thinking(by_blocks(ours), places)
    count = TIME if places is None else SOME.shape[2]
    assert asked == 2 * [count] + 2 * LENGTH * [count * THOUGHTS]  # two layers
    for mine, theirs in zip((*outputs, *found), (*dense, *wanted), strict=True):
        scale = max(1.0, float(theirs.detach().abs().max()))
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12 * scale)
    assert all(x.any() for x in wanted)


@pytest.mark.parametrize("later", [-1, 1])
def test_a_mask_off_by_one_is_noticed(later: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, right, (context, symbols) = backbone("llama"), flex.visible_blocks, context_and_symbols()
    monkeypatch.setattr(flex, "visible_blocks", lambda visible, *rest: right(visible + later, *rest))
    with torch.no_grad():
        _, state = ours.read(context)
        (first, _), (wrong, _) = (of.step(symbols[..., 0, :], state) for of in (ours, by_blocks(ours)))
    change = (wrong - first).abs().amax((0, 1, 3, 4))
    # The last position has no next one to see; the first one, which loses all it sees, is no NaN.
    assert (change[:-1] > 1e-3).all() and change.isfinite().all()


def test_the_gradient_of_the_log_sum_exp_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, right = backbone("gpt2"), flex.attend
    _, wanted = thinking(ours, None)

    def cut(*given: Any) -> tuple[Tensor, Tensor]:
        out, total = right(*given)
        return out, total.detach()

    monkeypatch.setattr(flex, "attend", cut)
    _, found = thinking(by_blocks(ours), None)
    assert (found[0] - wanted[0]).abs().max() > 1e-3


ONE = {"max_reasoning_len": 1, "think_at": "all"}
TWO = {"max_reasoning_len": 2, "variable_len": True, "gradient_checkpointing": True}
THREE = {"max_reasoning_len": 3, "weight_groups": ["A", "B", "C", "D"], "interpreter_start": "afresh"}
LLAMA = {"backbone": "llama", "model_n_kv_head": 1}


@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        ({"backbone": "gpt2"}, ONE),
        (LLAMA, TWO),
        ({"backbone": "gpt2"}, THREE),
        pytest.param(LLAMA, ONE, marks=pytest.mark.slow),
        pytest.param({"backbone": "gpt2"}, TWO, marks=pytest.mark.slow),
        pytest.param(LLAMA, THREE, marks=pytest.mark.slow),
    ],
    ids=lambda x: x.get("backbone", f"L={x.get('max_reasoning_len')}"),
)
def test_a_training_step_is_the_dense_one(
    sizes: dict[str, Any], changes: dict[str, Any], asked: list[int]
) -> None:
    config = configured(sizes["backbone"], dtype="float64", **changes | sizes)
    plain, values = step(config)
    assert not asked
    model, others = step(replace(config, branch_attention="flex"))
    assert asked
    for name, value in values.items():
        torch.testing.assert_close(others[name], value, rtol=0, atol=1e-12)
    wanted, found = gradients(plain), gradients(model)
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_under_autocast_it_is_as_coarse_as_the_dense_one(family: str, asked: list[int]) -> None:
    config = configured(family)
    fine, _ = step(config)
    models = [step(replace(config, autocast=True, branch_attention=x))[0] for x in ("dense", "flex")]
    assert asked
    wanted, *found = (torch.cat([g.flatten() for g in gradients(m).values()]) for m in (fine, *models))
    dense, blocks = (float(torch.cosine_similarity(wanted, x, 0)) for x in found)
    assert blocks > 0.9 and blocks > dense - 0.02


def test_it_counts_as_dense_and_has_a_key_of_its_own() -> None:
    """Compare up to rounding, as on another device."""
    config = configured("gpt2")
    other = replace(config, branch_attention="flex")
    assert count_cost(config) == count_cost(other) and run_key(config, 0) != run_key(other, 0)


def test_a_run_of_a_gpu_attends_densely_on_a_cpu(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check it as when a finished run is loaded on another device."""
    monkeypatch.setattr(flex, "DEVICES", ("cuda",))
    step(configured("gpt2", max_reasoning_len=1, branch_attention="flex"))
    assert not asked


def test_blocks_that_no_branch_sees_are_left_out() -> None:
    visible = torch.arange(1, 513).expand(1, 512)
    blocks = flex.visible_blocks(visible, (2, 512, 2), 512)
    assert blocks.shape == (2, 1, 1024, 512)
    seen = blocks.to_dense()[0, 0]
    assert torch.equal(seen, torch.ones(4, 4).tril().repeat_interleave(2, 0).to(seen))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler's own
@BOTH
def test_through_torchs_compiler_it_is_the_same_and_longer_thoughts_compile_nothing_anew(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the compiler up to its kernels, with recomputed layers."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(flex, "flex_attention", torch.compile(flex_attention, backend=counter))
    compiled = []
    for length in (2, 3, 4):
        config = configured(family, dtype="float64", max_reasoning_len=length, gradient_checkpointing=True)
        plain, _ = step(config)
        model, _ = step(replace(config, branch_attention="flex"))
        for name, gradient in gradients(plain).items():
            torch.testing.assert_close(gradients(model)[name], gradient, rtol=0, atol=1e-12)
        compiled.append(counter.frame_count)
    assert compiled[0] > 0 and compiled[0] == compiled[-1]
