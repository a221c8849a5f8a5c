"""Plain forms of a transformer's branches: sequence by sequence, and under one diagonal mask."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from toyqs.model.backbones.transformer import TransformerBackbone
from toyqs.model.layers import initialise

WIDTH = 16
_ROTARY = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.5,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(n_embd=WIDTH, n_layer=2, n_head=4, n_positions=32, initializer_range=0.5),
    "llama": LlamaConfig(**_ROTARY),
    "mistral": MistralConfig(**_ROTARY, sliding_window=None),
    "qwen2": Qwen2Config(**_ROTARY),
    "qwen3": Qwen3Config(**_ROTARY),
}
NATIVE = "native gpt2"
# Learned positions; rotary, with shared keys; learned positions, by gpt2.py.
EACH = pytest.mark.parametrize("family", ["gpt2", "llama", NATIVE])


def backbone(family: str, *, exact: bool = True) -> TransformerBackbone:
    """Build a small backbone in float64, its biases and norms moved from their initial values.

    Args:
        family: key of `CONFIGS`; "native gpt2" has native kernels.
        exact: compute norms in float64 too, where the library uses float32.
    """
    kernels = "native" if family == NATIVE else "torch"
    found = TransformerBackbone(CONFIGS[family.removeprefix("native ")], kernels=kernels)
    initialise(found, [0])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    if exact:
        exact_norms(found.decoder._code[0])
    return found.double()


def exact_norms(model: nn.Module) -> None:
    """Replace the library's norm by torch's, which keeps the precision of its input."""
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm).__name__.endswith("RMSNorm") and not isinstance(norm, nn.RMSNorm):
                new = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon)
                new.weight = norm.weight
                setattr(parent, name, new)


def plain_model(ours: TransformerBackbone) -> nn.Module:
    """Build the library's own model with a backbone's weights (and norms); gradients reach both."""
    code = ours.decoder._code[0]
    config = copy.deepcopy(code.config)  # a model writes its attention into the config passed in
    model = AutoModel.from_config(config, attn_implementation="sdpa").eval()
    if any(isinstance(norm, nn.RMSNorm) for norm in code.modules()):
        exact_norms(model)
    model.set_input_embeddings(None)
    weights = dict(ours.decoder.weights.named_parameters())
    assert weights.keys() == dict(model.named_parameters()).keys()
    for name, weight in weights.items():
        parent, _, last = name.rpartition(".")
        module = model.get_submodule(parent)
        delattr(module, last)
        setattr(module, last, weight[0])
    return model


def whole(model: nn.Module, sequence: Tensor) -> Tensor:
    """Compute outputs (B, n, D) of a sequence of embeddings (B, n, D)."""
    return model(inputs_embeds=sequence, use_cache=False).last_hidden_state


def one_by_one(model: nn.Module, context: Tensor, symbols: Tensor) -> Tensor:
    """Read every thought as one sequence with the context before it.

    Args:
        model: the library's.
        context: (B, T, D).
        symbols: (B, T, K, L, D).

    Returns:
        Outputs (B, T, K, L, D) at the symbols.
    """
    _, num_places, num_thoughts, length, _ = symbols.shape
    rows = []
    for t in range(num_places):
        for k in range(num_thoughts):
            rows.append(whole(model, torch.cat([context[:, : t + 1], symbols[:, t, k]], 1))[:, -length:])
    return torch.stack(rows, 1).unflatten(1, (num_places, num_thoughts))


def diagonal(model: nn.Module, context: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
    """Read all thoughts in one sequence with the context, separated by a mask of T(1 + K L) squared.

    Arguments and second result are as in `one_by_one`; the first result is the context's outputs (B, T, D).

    Source: Zelikman et al. 2024, "Quiet-STaR" (parallel generation).
    """
    num_batch, num_places, num_thoughts, length, width = symbols.shape
    place, thought, order = (
        axis.flatten()
        for axis in torch.meshgrid(
            torch.arange(num_places), torch.arange(num_thoughts), torch.arange(length), indexing="ij"
        )
    )
    read = torch.arange(num_places)
    place, none = torch.cat([read, place]), torch.full((num_places,), -1)
    thought, order = torch.cat([none, thought]), torch.cat([none, order])
    of_context = (order < 0) & (place <= place[:, None])
    of_thought = (place == place[:, None]) & (thought == thought[:, None]) & (order >= 0)
    seen = of_context | (of_thought & (order <= order[:, None]))
    mask = torch.zeros(seen.shape, dtype=context.dtype).masked_fill(~seen, float("-inf"))
    out = model(
        inputs_embeds=torch.cat([context, symbols.reshape(num_batch, -1, width)], 1),
        attention_mask=mask[None, None],
        position_ids=(place + 1 + order)[None],
        use_cache=False,
    ).last_hidden_state
    return out[:, :num_places], out[:, num_places:].view(symbols.shape)
