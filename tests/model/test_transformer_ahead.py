"""True tokens read after a thought, against the library's model on the sequence written out.

That is [x_≤t, start, symbols, end, x_{t+1}, …], with x_t once more after the end where it is fed again. The N
tokens are predicted from the outputs at its last N entries.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from tests import tiny
from tests.branching import exact_norms, plain_model, whole
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.transformer import BranchCache
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.positions import places_ahead, thinking_positions
from toyqs.types import Batch, Trace

SIZES = {"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 8, "model_n_layer": 2, "model_n_head": 2}
ONE_MODEL = {"weight_groups": "AAAA", "interpreter_start": "onward", "trice_samples": 3}
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
LAST = {"add_last_context_token": True}
LATER = {"increment_pos_id_for_last_context_token": True}
EXTRAS: dict[str, dict[str, Any]] = {
    "thought alone": {},
    "the library's norms": {"exact": False},
    "two tokens": {"n_tokens_ahead": 2},
    "all positions": {"everywhere": True},
    "other seed": {"seed": 5},
    "base state too": {"mixing": "concat"},
    "residual": {"mixing": "auto", "use_residual": True},
    "own symbols": {"thought_vocab": 4},
    "one marker": {"different_eot": False},
    "no symbol": {"max_reasoning_len": 0},
    "ends sampled": {"variable_len": True},
    "ends given": {"lengths": True},
    "last token": LAST,
    "last token, later": LAST | LATER,
    "last token, ends": LAST | {"variable_len": True, "mixing": "auto", "use_residual": True},
}


def asked(family: str, extra: dict[str, Any]) -> tuple[RunConfig, LatentReasoner, Batch]:
    """A tiny model, with norms in float64 unless the library's are asked for, and a batch."""
    keys = {name: x for name, x in extra.items() if name not in ("everywhere", "lengths", "seed", "exact")}
    plain = {"backbone": family, "mixing": "thought", "n_tokens_ahead": 3, "ahead": "continue"}
    settings = tiny.config(**(plain | SIZES | ONE_MODEL | keys))
    model = tiny.model(settings)
    if extra.get("exact", True):
        exact_norms(model.cores["A"].backbone.decoder._code[0])
    return settings, model, tiny.batch(3)


def traced(family: str, extra: dict[str, Any]) -> tuple[RunConfig, LatentReasoner, Batch, Tensor, Trace]:
    """Return also the thinking positions (1, B, T') and the trace there."""
    settings, model, batch = asked(family, extra)
    seed = extra.get("seed", 0)
    positions = None if "everywhere" in extra else thinking_positions(batch)
    places = (*batch.inputs.shape[:2], batch.inputs.shape[2] if positions is None else positions.shape[2])
    noise = tiny.noise((*places, settings.trice_samples, settings.max_reasoning_len), seed)
    lengths = None
    if "lengths" in extra:
        lengths = torch.randint(3, (*places, 3), generator=torch.Generator().manual_seed(seed))
    trace = model(batch.inputs, positions, noise, lengths=lengths)
    index = torch.arange(4).expand(1, 3, 4) if positions is None else positions
    return settings, model, batch, index, trace


def told(count: int, first: int | None, at: int) -> dict[str, Tensor]:
    """Positions of a sequence, which from its `first` entry on count up from `at`, and the causal mask.

    Left to itself the library takes a position that goes back for the start of another sequence.
    """
    positions = torch.arange(count)
    if first is not None:
        positions[first:] = torch.arange(at, at + count - first)
    mask = torch.full((count, count), float("-inf"), dtype=torch.float64).triu(1)
    return {"position_ids": positions[None], "attention_mask": mask[None, None]}


def written_out(
    settings: RunConfig, model: LatentReasoner, inputs: Tensor, at: Tensor, trace: Trace
) -> Tensor:
    """Compute the outputs (B, T', K, N, D) that a model of one core predicts from, thought by thought."""
    (core,) = model.cores.values()
    plain, rows, table = plain_model(core.backbone), core.thought_rows()[0], core.token_rows()[0]
    after = places_ahead(inputs, at, settings.n_tokens_ahead)[0][0, ..., 1:]
    symbols = trace.symbols
    if symbols is None:
        symbols = torch.zeros(*at.shape, 1, 0, dtype=torch.long)
    found = []
    for b, place, k in torch.cartesian_prod(*map(torch.arange, symbols.shape[1:4])).tolist():
        t, own = int(at[0, b, place]), symbols[0, b, place, k]
        if trace.length is not None:
            own = own[: trace.length[0, b, place, k]]
        parts = [table[inputs[0, b, : t + 1]], rows[[0, *(own + 2).tolist(), 1]]]
        again, end = settings.add_last_context_token, t + 1 + len(own) + 2
        parts += [table[inputs[0, b, t]][None]] if again else []
        parts.append(table[inputs[0, b, after[b, place]]])
        whole_sequence = torch.cat(parts)
        later = int(settings.increment_pos_id_for_last_context_token)
        given = told(len(whole_sequence), end if again else None, t + later)
        out = plain(inputs_embeds=whole_sequence[None], use_cache=False, **given).last_hidden_state[0]
        found.append(out[-settings.n_tokens_ahead :])
    return torch.stack(found).unflatten(0, symbols.shape[1:4])


def wanted(settings: RunConfig, model: LatentReasoner, inputs: Tensor, at: Tensor, trace: Trace) -> Tensor:
    """Compute the logits (1, B, T', K, N, V) from sequences written out."""
    reading = written_out(settings, model, inputs, at, trace)[None]
    (core,) = model.cores.values()
    base = whole(plain_model(core.backbone), core.token_rows()[0][inputs[0]])
    places = places_ahead(inputs, at, settings.n_tokens_ahead)[0][0]
    base = torch.stack([x[where] for x, where in zip(base, places, strict=True)])[None]
    return model.mixer.predict(model.head, base, reading)[0]


@FAMILIES
@pytest.mark.parametrize("name", EXTRAS)
def test_every_token_is_predicted_as_from_the_sequence_written_out(family: str, name: str) -> None:
    settings, model, batch, at, trace = traced(family, EXTRAS[name])
    found, exact = wanted(settings, model, batch.inputs, at, trace), EXTRAS[name].get("exact", True)
    torch.testing.assert_close(trace.logits, found, rtol=0, atol=1e-12 if exact or family == "gpt2" else 1e-5)
    first, *others = trace.logits.unbind(-2)
    assert all((first - other).abs().amax(-1).min() > 1e-3 for other in others), "one prediction for all"
    if trace.length is not None:
        assert len(set(trace.length.flatten().tolist())) > 1, "thoughts of one length"


@FAMILIES
@pytest.mark.parametrize("name", ["thought alone", "ends sampled", "last token"])
def test_so_are_the_gradients(family: str, name: str) -> None:
    settings, model, batch, at, trace = traced(family, EXTRAS[name])
    pull = torch.randn(trace.logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    there = wanted(settings, model, batch.inputs, at, trace)
    found, right = (tiny.gradients((x * pull).sum(), model) for x in (trace.logits, there))
    assert float(right["cores.A.tokens.weight"].abs().max()) > 1e-3
    scale = max(float(x.abs().max()) for x in right.values())
    tiny.close(found, right, 1e-12 * max(1.0, scale))


@pytest.mark.parametrize("name", ["thought alone", "last token"])
def test_a_token_at_another_position_would_be_noticed(name: str) -> None:
    """Let the tokens after the thought begin one position early, where its last input is."""
    settings, model, batch, at, trace = traced("gpt2", EXTRAS[name])
    backbone, step = model.cores["A"].backbone, model.cores["A"].backbone.step
    before, calls = settings.max_reasoning_len + 2 + settings.add_last_context_token, []

    def early(x: Tensor, state: BranchCache) -> tuple[Tensor, BranchCache]:
        calls.append(x)
        return step(x, state._replace(position=state.position - int(len(calls) == before + 1)))

    backbone.step = early
    with torch.no_grad():
        wrong = model(batch.inputs, at, torch.empty(0), trace.symbols).logits
        right = wanted(settings, model, batch.inputs, at, trace)
    assert len(calls) == before + 2
    off = (wrong - right).abs().amax(-1)
    assert float(off[..., 0].max()) < 1e-12 and float(off[..., 1:].min()) > 1e-4
