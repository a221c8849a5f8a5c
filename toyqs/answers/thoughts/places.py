"""What a run has at its thinking positions for a probe to read: symbols, states and readings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor

from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import Sampled
from toyqs.model.core import START, Core, marker, step_live
from toyqs.model.interpreter import Onward
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.layers import gather_rows
from toyqs.positions import pick_positions
from toyqs.types import Thoughts

COLUMNS = 256  # of a symbol's one-hot row, for the most frequent symbols where there are more

BASE, BASE_REASONER, START_STATE, READING = "base state", "base_reasoner", "state at the start", "reading"
SYMBOL = "symbol "  # and its number


def state_after(number: int) -> str:
    """Return the name of the reasoner's state after so many symbols; 0: at the start marker."""
    return f"state after {number}" if number else START_STATE


@torch.no_grad()
def places(run: LoadedRun, sampled: Sampled) -> dict[str, Tensor]:
    """Return what a run has at its thinking positions, by name, in the order in which it is computed.

    base state           base_lm's output
    base_reasoner        its output
    state at the start   the reasoner's output at the start marker, of which the first symbol is drawn
    symbol l             the l-th symbol of the position's first thought
    state after l        the reasoner's output at that symbol; of the last one only where the interpreter
                         goes on from it, else nothing reads that state
    reading              what the interpreter makes of the thought

    An output of a GRU is its state; that of a transformer is its last layer's, past the last norm. A thought
    that has ended keeps its last state.

    Args:
        run: of which it is.
        sampled: from `sample`.

    Returns:
        Name -> (B, T, D); symbols that are ids have no axis D and are long.
    """
    model, context, thoughts = run.model, sampled.context, sampled.thoughts
    found = {} if context.base is None else {BASE: context.base}
    if "base_reasoner" in model.letters:
        core = cast(Core, model.cores[model.letters["base_reasoner"]])
        outputs, _ = core.backbone.read(gather_rows(core.token_rows(), sampled.whole.inputs))
        found[BASE_REASONER] = pick_positions(outputs, sampled.positions)
    if thoughts is not None:
        found |= {name: values[:, :, :, 0] for name, values in _of_thoughts(model, sampled, thoughts)}
    return {name: values[0] for name, values in found.items()}


def _of_thoughts(model: LatentReasoner, sampled: Sampled, thoughts: Thoughts) -> Iterator[tuple[str, Tensor]]:
    """Yield what there is of the thoughts, (1, B, T, K, …) each."""
    states = iter(reasoner_states(model, sampled, thoughts))
    if (state := next(states, None)) is not None:
        yield START_STATE, state
    for number, symbol in enumerate(thoughts.symbols.unbind(4), 1):
        yield f"{SYMBOL}{number}", symbol
        if (state := next(states, None)) is not None:
            yield state_after(number), state
    assert model.interpreter is not None
    args = (thoughts, sampled.context.last) if model.rereads_last else (thoughts,)
    yield READING, model.interpreter(*args)


def reasoner_states(model: LatentReasoner, sampled: Sampled, thoughts: Thoughts) -> list[Tensor]:
    """Return the reasoner's outputs at the start marker and at each symbol that it consumes.

    Args:
        model: whose reasoner it is.
        sampled: where it thinks.
        thoughts: the symbols.

    Returns:
        (1, B, T, K, D) each, K = 1 at the start marker; none where nothing reasons.
    """
    if sampled.context.branches is None:
        return []
    core = cast(Core, model.cores[model.letters["reasoner"]])
    rows = core.thought_rows()
    output, state = core.backbone.step(marker(rows, START), sampled.context.branches)
    outputs = [output]
    consumed = thoughts.symbols.shape[4] - (0 if isinstance(model.interpreter, Onward) else 1)
    for index in range(consumed):
        live = thoughts.live(index)
        output, state = step_live(core, thoughts.symbols.select(4, index), rows, state, live)
        outputs.append(output if live is None else output.where(live.unsqueeze(-1), outputs[-1]))
    return outputs


def with_prefixes(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a probe reads at each place, and of each prefix of the thought, after its last symbol.

    A symbol that is an id is read as a one-hot row (`one_hot`), a prefix as the rows of its symbols side by
    side: a linear probe of it finds what each symbol adds, not what only their combination tells.

    Args:
        found: from `places`, (…, D), or (…) long.

    Returns:
        Name -> (…, D).
    """
    inputs: dict[str, Tensor] = {}
    prefix: list[Tensor] = []
    for name, values in found.items():
        inputs[name] = values if values.is_floating_point() else one_hot(values)
        if name.startswith(SYMBOL):
            prefix.append(inputs[name])
            if len(prefix) > 1:
                inputs[f"symbols 1 to {len(prefix)}"] = torch.cat(prefix, -1)
    return inputs


def one_hot(symbols: Tensor) -> Tensor:
    """Return a column for each symbol that occurs, of the most frequent ones where there are more.

    Args:
        symbols: (…) long; a thought that has ended has a symbol of its own there.

    Returns:
        (…, at most COLUMNS) float.
    """
    values, counts = symbols.unique(return_counts=True)
    frequent = values[counts.argsort(descending=True, stable=True)[:COLUMNS]]
    return (symbols.unsqueeze(-1) == frequent).float()
