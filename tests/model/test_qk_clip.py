"""QK-clip: the logits that are measured, and what is left of them after the queries and keys were scaled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from tests import tiny
from tests.branching import NATIVE, WIDTH, backbone
from tests.training.test_loop import quick
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.branch_cache import BranchCache
from toyqs.model.backbones.qk_clip import largest as measuring
from toyqs.model.backbones.qk_clip.clip import QKClip
from toyqs.model.backbones.transformer import TransformerBackbone
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.positions import thinking_positions
from toyqs.training.batches import draw_batches
from toyqs.training.loop import train

BATCH, TIME, THOUGHTS, LENGTH = 2, 5, 3, 2
FAMILIES = ["gpt2", NATIVE, "llama", "qwen2"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clipped(family: str, threshold: float = 1.0) -> tuple[TransformerBackbone, QKClip]:
    found = backbone(family)
    found.qk_clip = QKClip(found.decoder, threshold, keys_are_read=False)
    return found, found.qk_clip


def first_layer_logits(of: TransformerBackbone, rows: Tensor) -> Tensor:
    """Compute the causal logits of the first layer by hand, (H, B, n, n), -inf where a key is not seen."""
    weights, config = of.decoder.tensors(), of.decoder.config
    heads, (batch, time, width) = config.num_attention_heads, rows.shape
    size = width // heads
    if config.model_type == "gpt2":
        x = rows + weights["wpe.weight"][:time]
        x = torch.layer_norm(x, (width,), weights["h.0.ln_1.weight"], weights["h.0.ln_1.bias"])
        both = x @ weights["h.0.attn.c_attn.weight"] + weights["h.0.attn.c_attn.bias"]
        query, key = (part.view(batch, time, heads, size) for part in both.split(width, -1)[:2])
    else:
        x = rows * (rows.square().mean(-1, keepdim=True) + config.rms_norm_eps).rsqrt()
        x = x * weights["layers.0.input_layernorm.weight"]
        query, key = (_rotated(x, weights, kind, size) for kind in "qk")
        key = key.repeat_interleave(heads // key.shape[2], dim=2)
    logits = torch.einsum("bihd,bjhd->hbij", query, key) / size**0.5
    return logits.masked_fill(torch.ones(time, time).triu(1).bool(), -torch.inf)


def _rotated(x: Tensor, weights: dict[str, Tensor], kind: str, size: int) -> Tensor:
    """Compute queries or keys with their rotary positions, as complex numbers."""
    name = f"layers.0.self_attn.{kind}_proj"
    rows = x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)
    first, second = rows.unflatten(-1, (-1, size)).chunk(2, -1)
    speed = 10000.0 ** (-torch.arange(size // 2) / (size // 2))
    angle = torch.arange(x.shape[1]).unsqueeze(-1) * speed
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle).unsqueeze(1)
    return torch.cat([turned.real, turned.imag], -1)


def step_all(
    of: TransformerBackbone, state: BranchCache, symbols: Tensor, live: Tensor | None
) -> BranchCache:
    for index, symbol in enumerate(symbols.unbind(4)):
        new = of.step(symbol, state)[1]
        state = new if live is None else of.keep_ended(new, state, live > index)
    return state


@pytest.mark.parametrize("time", [TIME, 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_measured_of_sequences_is_their_largest_logit(
    family: str, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "POSITIONS", 7)
    of, clip = clipped(family)
    time = min(time, of.longest)
    rows = random(1, BATCH, time, WIDTH)
    of.read(rows)
    wanted = first_layer_logits(of, rows[0]).amax((1, 2, 3))
    atol = 1e-5 if family in ("llama", "qwen2") else 1e-12  # the library's angles are in float32
    torch.testing.assert_close(clip.largest.found[0], wanted, rtol=0, atol=atol)
    assert sorted(clip.largest.found) == [0, 1]
    before = {layer: x.clone() for layer, x in clip.largest.found.items()}
    with torch.no_grad():  # as an evaluation, or a reference
        of.read(10.0 * rows)
    assert all(torch.equal(clip.largest.found[layer], x) for layer, x in before.items())
    clip.begin()
    assert not clip.largest.found


EVERY = torch.cartesian_prod(*map(torch.arange, (BATCH, TIME, THOUGHTS)))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_measured_of_branches_is_what_whole_sequences_have(family: str) -> None:
    """Check that reading and stepping notes the largest logit of all sequences of context and thought."""
    of, clip = clipped(family)
    context, symbols = random(1, BATCH, TIME, WIDTH), random(1, BATCH, TIME, THOUGHTS, LENGTH, WIDTH, seed=1)
    step_all(of, of.read(context)[1], 3.0 * symbols, None)
    found = dict(clip.largest.found)
    clip.begin()
    for b, t, k in EVERY.tolist():
        of.read(torch.cat([context[0, b, : t + 1], 3.0 * symbols[0, b, t, k]])[None, None])
    for layer in (0, 1):
        torch.testing.assert_close(found[layer], clip.largest.found[layer], rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_symbols_after_the_end_of_a_thought_count_for_nothing(family: str) -> None:
    """Check the symbol after the end, which sees the context and the live symbols, against products.

    There are many symbols after an end, so that one of them would have the largest logit.
    """
    of, clip = clipped(family)
    context, symbols = random(1, 1, 1, WIDTH), random(1, 1, 1, 40, LENGTH, WIDTH, seed=1)
    after = random(1, 1, 1, 40, WIDTH, seed=5)
    lengths = (torch.arange(40) == 0).long().view(1, 1, 1, 40)
    last = step_all(of, of.read(context)[1], symbols, lengths)
    clip.begin()
    of.step(after, last)
    each = []
    for k in range(40):
        rows = torch.cat(
            [context[0, 0], symbols[0, 0, 0, k, : int(lengths[..., k])], after[0, 0, 0, k, None]]
        )
        each.append(first_layer_logits(of, rows[None])[:, 0, -1].amax(-1))
    atol = 1e-5 if family in ("llama", "qwen2") else 1e-12
    torch.testing.assert_close(clip.largest.found[0], torch.stack(each).amax(0), rtol=0, atol=atol)


@pytest.mark.parametrize("family", ["gpt2", NATIVE, "llama", "qwen2"])
def test_after_clipping_no_logit_of_the_batch_is_above_the_threshold(family: str) -> None:
    """Check the first layer, whose inputs stay: some heads are above the threshold, and some are not."""
    of, clip = clipped(family)
    rows = random(1, BATCH, TIME, WIDTH)
    symbols = random(1, BATCH, TIME, THOUGHTS, LENGTH, WIDTH, seed=1)
    step_all(of, of.read(rows)[1], symbols, None)
    before, weights = clip.largest.found[0], {n: p.clone() for n, p in of.named_parameters()}
    threshold = clip.threshold = float(before.sort().values[1]) + 1e-3  # between the second and the third
    clip.apply()
    clip.begin()
    step_all(of, of.read(rows)[1], symbols, None)
    after, above = clip.largest.found[0], before > threshold
    assert above.tolist().count(True) == 2
    torch.testing.assert_close(after[above], torch.full_like(after[above], threshold), rtol=1e-9, atol=0)
    torch.testing.assert_close(after[~above], before[~above], rtol=1e-9, atol=0)
    _check_scaled(of, weights, torch.where(above, threshold / before, 1.0))


def _check_scaled(of: TransformerBackbone, before: dict[str, Tensor], gamma: Tensor) -> None:
    """Check each number of the first layer's queries and keys: exactly as before where no head was above."""
    size, shared = WIDTH // len(gamma), of.num_kv < len(gamma)
    factor = (gamma if shared else gamma.sqrt()).repeat_interleave(size)
    for name, parameter in of.named_parameters():
        kept = before[name]
        if name.endswith(("weights.h.0.attn.c_attn.weight", "weights.h.0.attn.c_attn.bias")):
            wanted = kept * torch.cat([factor, factor, torch.ones(WIDTH)])
        elif ".layers.0.self_attn.q_proj." in name:
            wanted = kept * factor.view(1, -1, *(1 for _ in kept.shape[2:]))
        elif ".layers.0." in name or ".h.0." in name or (".layers." not in name and ".h." not in name):
            wanted = kept
        else:
            continue
        torch.testing.assert_close(parameter.detach(), wanted.detach(), rtol=1e-15, atol=0)
        same = wanted == kept
        assert torch.equal(parameter[same], kept[same]), name


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_under_the_threshold_not_a_bit_changes(family: str) -> None:
    of, clip = clipped(family)
    of.read(random(1, BATCH, TIME, WIDTH))
    clip.threshold = float(max(x.max() for x in clip.largest.found.values())) * (1 + 1e-12)
    before = {n: p.clone() for n, p in of.named_parameters()}
    clip.apply()
    assert all(torch.equal(p, before[n]) for n, p in of.named_parameters())


def clip_of(model: LatentReasoner, letter: str) -> QKClip:
    core = model.cores[letter]
    assert isinstance(core, Core) and isinstance(core.backbone.qk_clip, QKClip)
    return core.backbone.qk_clip


def deep(**changes: Any) -> RunConfig:
    """Return a thinking transformer of one layer, so that a core's inputs do not change with its clip."""
    plain = {"backbone": "gpt2", "model_n_layer": 1, "model_n_head": 2, "qk_clip": 1.0, "kernels": "torch"}
    sizes = dict.fromkeys(("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim"), 8)
    return tiny.config(**plain | sizes | changes)


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({}, {"A": False, "B": True, "C": True, "D": False}),
        ({"interpreter_start": "onward"}, {"A": False, "B": True, "C": True, "D": True}),
        ({"interpreter_start": "onward", "interpreter_hidden_dim": 4}, {"A": False, "D": True}),
        ({"weight_groups": "ABBC"}, {"A": False, "B": False, "C": False}),
        ({"weight_groups": "ABBC", "interpreter_start": "onward"}, {"A": False, "B": True, "C": True}),
        ({"weight_groups": "AAAA", "interpreter_start": "onward"}, {"A": False}),
        ({"weight_groups": "AABA"}, {"A": True, "B": True}),
        ({"use_reasoner": False}, {"A": False}),
    ],
)
def test_where_cores_read_each_others_keys_the_queries_take_it_all(
    changes: dict[str, Any], shared: dict[str, bool]
) -> None:
    """Check that no core has a logit above the threshold on the same batch, with the same thoughts."""
    settings = deep(**changes)
    model, batch, noise = tiny.sampled(settings)
    forced = torch.randint(3, noise.shape, generator=torch.Generator().manual_seed(2))
    args = (batch.inputs, thinking_positions(batch), noise, None if not settings.use_reasoner else forced)
    model(*args)
    assert {letter: clip_of(model, letter).shared for letter in shared} == shared
    clips = [clip_of(model, letter) for letter in model.cores]
    tops = [float(clip.largest.found[0].max()) for clip in clips]
    for clip in clips:
        clip.threshold = 0.5 * min(tops)
        clip.apply()
        clip.begin()
    model(*args)
    for letter, clip in zip(model.cores, clips, strict=True):
        found = float(clip.largest.found[0].max())
        assert found <= clip.threshold * (1 + 1e-12), letter
        assert found > 0.999 * clip.threshold, letter


def run(settings: RunConfig, seen: list[dict[int, Tensor]] | None = None) -> LatentReasoner:
    model, params = build_model(settings, [4]), build_training_params(settings)
    data = draw_batches(settings.task, [4], params, next(model.parameters()))

    def on_step(step: int, values: dict[str, Tensor]) -> None:
        if seen is not None:
            seen.append(dict(clip_of(model, "A").largest.found))

    train(model, build_objective(settings), data, params, on_step)
    return model


PLAIN: dict[str, Any] = {
    "backbone": "gpt2",
    "use_reasoner": False,
    "base_lm_hidden_dim": 8,
    "kernels": "torch",
}


def test_a_threshold_out_of_reach_leaves_the_training_as_it_was() -> None:
    one, other = (run(quick(**PLAIN, max_steps=3, qk_clip=x)) for x in (0.0, 1e9))
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("changes", [{}, {"grad_acc": 3}, {"gradient_checkpointing": True}])
def test_in_training_the_logits_are_kept_down(changes: dict[str, Any]) -> None:
    """Check that each step clips what it measured: with a rate of next to nothing, and one batch of all."""
    slow = PLAIN | {"base_lr": 1e-12, "max_steps": 6, "dtype": "float64", "model_n_layer": 1} | changes
    free: list[dict[int, Tensor]] = []
    run(quick(**slow, qk_clip=1e9), free)
    tops = [float(found[0].max()) for found in free]
    threshold = 0.25 * max(tops)
    kept: list[dict[int, Tensor]] = []
    model = run(quick(**slow, qk_clip=threshold), kept)
    after = [float(found[0].max()) for found in kept]
    assert after[0] == tops[0], "measured before the first clip"
    assert max(after[1:]) < 0.6 * max(tops)
    weight = dict(model.named_parameters())["cores.A.backbone.decoder.weights.h.0.attn.c_attn.weight"]
    first = build_model(quick(**slow), [4])
    before = dict(first.named_parameters())["cores.A.backbone.decoder.weights.h.0.attn.c_attn.weight"]
    smaller = (weight / before)[0].mean(0).view(3, 2, -1).mean(-1)  # of queries, keys, values; by head
    assert bool((smaller[:2].min(1).values < 0.9).all())
    torch.testing.assert_close(smaller[0], smaller[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(smaller[2], torch.ones(2).double(), rtol=0, atol=1e-6)
