"""What reaches what: gradients to parameters, contexts and thoughts to predictions, in every pattern."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import tiny
from toyqs.config.builders.training import build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.positions import focus, thinking_positions
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.training.batches import prepare
from toyqs.training.loop import accumulate

BACKBONES = pytest.mark.usefixtures("backbone")
# A backbone's weights; `keys`: those that matter also where only branches continue it.
GRU = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
GPT2_LAYER = {
    "keys": ("attn.c_attn.bias", "attn.c_attn.weight", "ln_1.bias", "ln_1.weight"),
    "rest": tuple(
        f"{name}.{kind}"
        for name in ("attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for kind in ("bias", "weight")
    ),
}
LLAMA_LAYER = {
    "keys": ("input_layernorm.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "rest": tuple(
        f"{name}.weight"
        for name in (
            *("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm"),
            *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        )
    ),
}


def memory(settings: RunConfig, with_outputs: bool) -> tuple[str, ...]:
    """Return the names of a backbone's weights; with_outputs: not only its keys reach the loss."""
    if settings.backbone == "gru":
        return GRU
    gpt2 = settings.backbone == "gpt2"
    layer, path = (GPT2_LAYER, "h") if gpt2 else (LLAMA_LAYER, "layers")
    found = ["wpe.weight"] if gpt2 else []
    found += [f"{path}.0.{name}" for kind in layer.values() for name in kind]
    found += [f"{path}.1.{name}" for name in (layer["keys"] + (layer["rest"] if with_outputs else ()))]
    if with_outputs:
        found += ["ln_f.bias", "ln_f.weight"] if gpt2 else ["norm.weight"]
    return tuple(f"decoder.weights.{name}" for name in found)


EXTRAS = [
    {"mixing": "concat"},
    {"mixing": "gate", "thought_vocab": 4},
    {"mixing": "add", "share_lm_head": True},
    {"mixing": "thought"},
    {"mixing": "hidden", "n_tokens_ahead": 2},
    {"mixing": "logits", "thought_vocab": 4},
    {"mixing": "residual", "n_tokens_ahead": 2, "ahead": "continue"},
]
WEIGHER = {"first.weight_0", "first.weight_1", "first.bias"} | {
    f"rest.{layer}.{name}" for layer in (1, 3) for name in ("weight", "bias")
}


def core(settings: RunConfig, role: str, *tables: str, with_outputs: bool = True) -> set[str]:
    """Return a role's backbone and tables, by the names of its letter; with_outputs: see `memory`."""
    letter = settings.weight_groups[("base_lm", "base_reasoner", "reasoner", "interpreter").index(role)]
    names = (
        *(f"backbone.{name}" for name in memory(settings, with_outputs)),
        *(f"{table}.weight" for table in tables),
    )
    return {f"cores.{letter}.{name}" for name in names}


def thinking(settings: RunConfig, with_outputs: bool = True) -> set[str]:
    """Return what a thought's log-probability depends on, or without outputs its continuation."""
    read = core(settings, "base_reasoner", "tokens", with_outputs=False)
    return read | core(settings, "reasoner", "markers", said(settings), with_outputs=with_outputs)


def said(settings: RunConfig) -> str:
    return "thoughts" if settings.thought_vocab else "tokens"


def linear(name: str) -> set[str]:
    return {f"{name}.weight", f"{name}.bias"}


def silent(settings: RunConfig) -> set[str]:
    """Return weights without effect: after the last keys of a transformer whose outputs are unused."""
    alone = settings.weight_groups.count(settings.weight_groups[1]) == 1
    whole, keys = (
        core(settings, "base_reasoner", with_outputs=with_outputs) for with_outputs in (True, False)
    )
    return whole - keys if alone else set()


def start_state(settings: RunConfig) -> set[str]:
    """Return the learned start state of an afresh interpreter; a transformer needs none."""
    return {"interpreter.start_state"} if settings.backbone == "gru" else set()


def expected(settings: RunConfig) -> dict[str, set[str]]:
    """Derive from the letters which parameters each part of the loss reaches."""
    how = settings.mixer
    head = {"head.weight_0", "head.bias"} | ({"head.weight_1"} if how in ("concat", "logits") else set())
    policy = thinking(settings) | (head if settings.share_lm_head else linear("thought_head.projection"))
    nll = head | (core(settings, "base_lm", "tokens") if how != "thought" else set())
    nll |= linear("mixer.projection") if how in ("add", "gate", "hidden", "residual") else set()
    nll |= linear("mixer.opening") if how == "gate" else set()
    nll |= {f"mixer.opening.{name}" for name in WEIGHER} if how in ("hidden", "logits") else set()
    nll |= {"mixer.scale"} if how == "residual" else set()
    nll |= core(settings, "interpreter", "tokens") if settings.ahead == "continue" else set()
    if settings.interpreter_start == "afresh":
        nll |= core(settings, "interpreter", "markers", said(settings)) | start_state(settings)
    else:
        nll |= thinking(settings, with_outputs=False) | core(settings, "interpreter", "markers")
    return {"policy": policy, "entropy": policy, "nll": nll}


def reached(settings: RunConfig) -> dict[str, set[str]]:
    model, batch, noise = tiny.sampled(settings, size=4)
    positions = thinking_positions(batch)
    there = focus(batch, positions, settings.n_tokens_ahead)
    parts = Reinforce()(model(batch.inputs, positions, noise), there).parts
    return {
        name: {n for n, g in tiny.gradients(loss.sum(), model).items() if bool(g.any())}
        for name, loss in parts.items()
    }


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra["mixing"])
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_each_part_of_the_loss_reaches_just_its_parameters(groups: str, start: str, extra: dict) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start, trice_samples=3, **extra)
    assert reached(settings) == expected(settings)


def test_nothing_shared_nothing_crossed() -> None:
    """Check that with ABCD, afresh, separate heads, the NLL trains no reasoner, the policy no predictor."""
    found = reached(tiny.config(weight_groups="ABCD"))
    assert not any(name.startswith(("cores.B", "cores.C", "thought_head")) for name in found["nll"])
    assert all(name.startswith(("cores.B", "cores.C", "thought_head")) for name in found["policy"])


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_every_parameter_is_reached_and_has_a_name(groups: str, start: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start, trice_samples=3)
    names = {name for name, _ in tiny.model(settings).named_parameters()}
    assert set().union(*reached(settings).values()) == names - silent(settings)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_nothing_before_a_token_knows_of_it(groups: str, start: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start, mixing="gate")
    model, batch, _ = tiny.sampled(settings)
    noise = tiny.noise((1, 3, 4, 2, 2))
    before = model(batch.inputs, None, noise)
    for later in (1, 2, 3):
        changed = batch.inputs.clone()
        changed[:, :, later] = (changed[:, :, later] + 1) % tiny.SYMBOLS
        after = model(changed, None, noise)
        for name in ("logits", "log_prob", "entropy", "thought_weight"):
            old, new = getattr(before, name), getattr(after, name)
            assert torch.equal(old[:, :, :later], new[:, :, :later]), name
            assert bool((old[:, :, later] != new[:, :, later]).any()), name


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_a_thought_changes_the_trace_at_its_position_alone(groups: str, start: str) -> None:
    """Check that another thought at one position changes the trace there and nowhere else."""
    settings = tiny.config(weight_groups=groups, interpreter_start=start, trice_samples=3, mixing="gate")
    model, batch, _ = tiny.sampled(settings)
    forced = torch.randint(tiny.SYMBOLS, (1, 3, 2, 3, 2), generator=torch.Generator().manual_seed(1))
    other, place = forced.clone(), (0, 1, 1, 2)
    other[place] = (other[place] + 1) % tiny.SYMBOLS
    before, after = (
        model(batch.inputs, thinking_positions(batch), torch.empty(0), x) for x in (forced, other)
    )
    elsewhere = torch.ones(1, 3, 2, 3, dtype=torch.bool)
    elsewhere[place] = False
    for name in ("logits", "log_prob", "entropy", "thought_weight"):
        old, new = getattr(before, name), getattr(after, name)
        assert torch.equal(old[elsewhere], new[elsewhere]), name
        assert not torch.equal(old[place], new[place]), name


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_thoughts_have_no_order(groups: str, start: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start, trice_samples=4, mixing="gate")
    model, batch, noise = tiny.sampled(settings)
    order = torch.tensor([2, 0, 3, 1])
    before = model(batch.inputs, thinking_positions(batch), noise)
    after = model(batch.inputs, thinking_positions(batch), noise[..., order, :])
    for name in ("logits", "log_prob", "entropy", "thought_weight"):
        torch.testing.assert_close(
            getattr(after, name), getattr(before, name)[:, :, :, order], rtol=0, atol=1e-12, msg=name
        )


def test_thoughts_use_independent_noise() -> None:
    """Check that noise of one thought changes that thought alone, and that no columns of noise are equal."""
    settings = tiny.config(trice_samples=3, max_reasoning_len=4)
    model, batch, noise = tiny.sampled(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    other = noise.clone()
    other[..., 1, :] = 1 - other[..., 1, :]
    before, after = (model.think(context, x).symbols for x in (noise, other))
    assert torch.equal(before[..., [0, 2], :], after[..., [0, 2], :])
    assert not torch.equal(before[..., 1, :], after[..., 1, :])
    think = torch.ones(1, 500, 2, dtype=torch.bool)
    drawn = thought_noise([stream(0, "thought noise")], think, ThoughtSizes(3, 2))
    correlation = torch.corrcoef(drawn.flatten(0, 2).flatten(1).T)
    assert float((correlation - torch.eye(6)).abs().max()) < 0.12  # 1000 rows: four standard errors


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("baseline", ["leave_one_out", "none", "ema"])
@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_gradient_accumulation_gives_the_same_gradient(start: str, baseline: str, parts: int) -> None:
    settings = tiny.config(interpreter_start=start, baseline=baseline, weight_groups="ABBC")
    model, batch, noise = tiny.sampled(settings, size=4, copies=2)
    weights = batch.weights * torch.tensor([0.1, 1.0, 3.0, 0.7]).view(1, 4, 1)
    weights[0, 0] = 0.0
    drawn = prepare(batch._replace(weights=weights), noise)
    running, found = torch.tensor([-1.0, -0.5]).double(), []
    for grad_acc in (1, parts):
        model.zero_grad()
        shares = {"nll": 1.0, "policy": 0.7, "entropy": 0.3}
        numbers = replace(build_training_params(settings), grad_acc=grad_acc)
        values = accumulate(model, Reinforce(baseline=baseline), drawn, shares, numbers, running)
        found.append((values, {name: p.grad.clone() for name, p in model.named_parameters()}))
    (whole, grads), (summed, grads_in_parts) = found
    tiny.close(grads_in_parts, grads, tolerance=1e-12)
    tiny.close(summed, whole, tolerance=1e-12)
    assert whole.keys() == {"nll", "policy", "entropy", "reward"}
