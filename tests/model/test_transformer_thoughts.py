"""Thoughts on a transformer: reasoner and interpreter against sequences read one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from tests.branching import CONFIGS, EACH, WIDTH, backbone, plain_model, whole
from toyqs.model.backbones.transformer import TransformerBackbone
from toyqs.model.core import Core
from toyqs.model.interpreter import Afresh, AfreshEach, Onward
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.layers import FeatureHead, initialise
from toyqs.model.markers import Markers
from toyqs.model.mixing import Concat
from toyqs.model.thoughts import TokenHead, think
from toyqs.types import Thoughts

BATCH, TIME, THOUGHTS, LENGTH, VOCAB, SYMBOLS = 2, 4, 2, 3, 5, 3


def core(family: str) -> Core:
    """Build a core with the backbone of `branching` and random tables."""
    markers = Markers(1, WIDTH, "none", 1.0)
    tables = {"num_tokens": VOCAB, "num_thought_symbols": SYMBOLS, "markers": markers}
    found = Core(1, TransformerBackbone(CONFIGS[family.removeprefix("native ")]), **tables)
    initialise(found, [0])
    found.backbone = backbone(family)
    return found.double()


def head() -> TokenHead:
    found = TokenHead(1, WIDTH, SYMBOLS)
    initialise(found, [0])
    return found.double()


def drawn(*shape: int, below: int, seed: int = 0) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def sequences(of: Core, tokens: Tensor, symbols: Tensor, end: int, after: Tensor | None = None) -> Tensor:
    """Return [x_≤t, start, symbols, end marker where asked, tokens after it] of every thought, one by one.

    Args:
        of: a core.
        tokens: (B, T); none: the context is left out.
        symbols: (B, T, K, L), −1 past a thought's end.
        end: 1 to end with the end marker, else 0.
        after: (B, T, n); None: no tokens.

    Returns:
        The outputs from the start marker on (B, T, K, 1 + L + end + n, D), right-aligned.
    """
    plain, rows, table = plain_model(of.backbone), of.thought_rows()[0], of.token_rows()[0]
    after = tokens.new_zeros(*symbols.shape[:2], 0, dtype=torch.long) if after is None else after
    size = 1 + symbols.shape[-1] + end + after.shape[-1]
    found = torch.zeros(*symbols.shape[:3], size, WIDTH, dtype=rows.dtype)
    for b, t, k in torch.cartesian_prod(*map(torch.arange, symbols.shape[:3])).tolist():
        own = symbols[b, t, k]
        ids = [0, *(own[own >= 0] + 2).tolist(), *[1] * end]
        before = table[tokens[b, : t + 1]] if tokens.numel() else table[:0]
        outputs = whole(plain, torch.cat([before, rows[ids], table[after[b, t]]])[None])[0]
        own_outputs = outputs[len(before) :]
        found[b, t, k, size - len(own_outputs) :] = own_outputs
    return found


@EACH
def test_thinking_scores_symbols_as_the_whole_sequence_does(family: str) -> None:
    reasoner, speaker = core(family), head()
    tokens = drawn(BATCH, TIME, below=VOCAB)
    forced = drawn(1, BATCH, TIME, THOUGHTS, LENGTH, below=SYMBOLS, seed=1)
    _, state = reasoner.backbone.read(reasoner.token_rows()[:, tokens])
    thoughts = think(reasoner, speaker, state, forced.double(), forced=forced)
    outputs = sequences(reasoner, tokens, forced[0, ..., :-1], 0)
    log_probs = speaker(outputs.unsqueeze(0)).log_softmax(-1)
    wanted = log_probs.gather(-1, forced.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(thoughts.log_prob, wanted, rtol=0, atol=1e-12)


@EACH
@pytest.mark.parametrize("how", ["shared", "each", "lengths"])
def test_an_interpreter_afresh_reads_the_symbols_alone(family: str, how: str) -> None:
    """Check it with any sharing of prefixes, where thoughts differ in length, and with tokens after them."""
    interpreter = (Afresh if how == "shared" else AfreshEach)(1, core(family))
    assert not list(interpreter.parameters(recurse=False))
    symbols = drawn(1, BATCH, TIME, THOUGHTS, LENGTH, below=SYMBOLS)
    thoughts, padded = Thoughts(symbols, symbols, symbols, None), symbols
    if how == "lengths":
        length = drawn(1, BATCH, TIME, THOUGHTS, below=LENGTH + 1, seed=1)
        padded = symbols.where(torch.arange(LENGTH) < length.unsqueeze(-1), -1)
        thoughts = thoughts._replace(length=length)
    after = drawn(1, BATCH, TIME, 2, below=VOCAB, seed=3)
    wanted = sequences(interpreter.core, torch.empty(0), padded[0], 1, after[0])[..., -3:, :]
    torch.testing.assert_close(interpreter(thoughts)[0], wanted[..., 0, :], rtol=0, atol=1e-12)
    torch.testing.assert_close(interpreter(thoughts, following=after)[0], wanted, rtol=0, atol=1e-12)


@EACH
@pytest.mark.parametrize("ends_apart", [False, True])
def test_an_interpreter_onward_reads_on_after_context_and_symbols(family: str, ends_apart: bool) -> None:
    both, speaker = core(family), head()
    tokens = drawn(BATCH, TIME, below=VOCAB)
    forced = drawn(1, BATCH, TIME, THOUGHTS, LENGTH, below=SYMBOLS, seed=1)
    lengths, padded = None, forced
    if ends_apart:
        lengths = drawn(1, BATCH, TIME, THOUGHTS, below=LENGTH + 1, seed=2)
        padded = forced.where(torch.arange(LENGTH) < lengths.unsqueeze(-1), -1)
    _, state = both.backbone.read(both.token_rows()[:, tokens])
    thoughts = think(both, speaker, state, forced.double(), forced=forced, lengths=lengths)
    after = drawn(1, BATCH, TIME, 2, below=VOCAB, seed=3)
    wanted, onward = sequences(both, tokens, padded[0], 1, after[0])[..., -3:, :], Onward(both, both)
    torch.testing.assert_close(onward(thoughts)[0], wanted[..., 0, :], rtol=0, atol=1e-12)
    torch.testing.assert_close(onward(thoughts, following=after)[0], wanted, rtol=0, atol=1e-12)


@EACH
def test_a_latent_reasoner_of_transformers_reads_thinks_and_talks(family: str) -> None:
    """Check that each thought's symbols reach the prediction, and that every weight gets a gradient."""
    cores = {letter: core(family) for letter in "ABC"}
    letters = dict(zip(("base_lm", "base_reasoner", "reasoner", "interpreter"), "ABBC", strict=True))
    mixer = Concat(1, WIDTH, WIDTH)
    predictor = FeatureHead(1, mixer.widths, VOCAB)
    initialise(predictor, [0])
    parts = (letters, cores, predictor.double(), mixer, head(), Afresh(1, cores["C"]))
    model = LatentReasoner(*parts)
    inputs, positions = drawn(1, BATCH, TIME, below=VOCAB), torch.tensor([[[0, 2], [1, 3]]])
    noise = torch.rand(1, BATCH, 2, THOUGHTS, LENGTH, generator=torch.Generator().manual_seed(0)).double()
    trace = model(inputs, positions, noise)
    assert trace.logits.shape == (1, BATCH, 2, THOUGHTS, 1, VOCAB)
    assert not torch.equal(trace.logits[:, :, :, 0], trace.logits[:, :, :, 1])
    (trace.logits.logsumexp(-1) - trace.logits[..., 0]).sum().add(trace.log_prob.sum()).backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    tables = {"cores.A.thoughts.weight", "cores.A.markers.weight", "cores.C.tokens.weight"}
    assert idle == tables  # a run builds the tables that its roles read, no others


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_tables_start_as_small_as_the_librarys_own(family: str) -> None:
    of = Core(1, TransformerBackbone(CONFIGS[family]), num_tokens=500, num_thought_symbols=0, markers=None)
    initialise(of, [0])
    assert abs(float(of.tokens.weight.detach().std()) / CONFIGS[family].initializer_range - 1) < 0.05
