"""Thoughts by the library's own model: all at once under a mask, or one position at a time."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, DynamicCache

from toyqs.model.backbones.transformer import TransformerBackbone


def library(ours: TransformerBackbone, attention: str) -> Any:
    """Build the library's model with the same weights."""
    config = copy.deepcopy(ours.decoder._code[0].config)
    model = AutoModel.from_config(config, attn_implementation=attention)
    model.set_input_embeddings(None)
    model.load_state_dict({name: p[0] for name, p in ours.decoder.weights.named_parameters()})
    return model


def cache_name(model: Any) -> str:
    """Return the name of the cache in a model's call and in its result: `past_key_values` before 5.24."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def fresh_cache(model: Any) -> dict[str, DynamicCache]:
    """Return an empty cache of the library, under the name that the model's call takes."""
    return {cache_name(model): DynamicCache(config=model.config)}


def diagonal(model: Any, context: Tensor, symbols: Tensor) -> Tensor:
    """Compute outputs (B, T, K, L, D) after a context (B, T, D), one call a symbol, under a mask."""
    num, each = symbols.shape[1:3]
    cached, positions = fresh_cache(model), torch.arange(num, device=context.device)
    model(inputs_embeds=context, use_cache=True, **cached)
    own = context.new_full((num * each, num * each), float("-inf")).fill_diagonal_(0.0)
    mask = context.new_full((num, num), float("-inf")).triu(1).repeat_interleave(each, 0)
    positions, outputs = positions.repeat_interleave(each), []
    for place, symbol in enumerate(symbols.unbind(3)):
        mask = torch.cat([mask, own], 1)
        kwargs = {"attention_mask": mask[None, None], "position_ids": (positions + 1 + place)[None]}
        out = model(inputs_embeds=symbol.flatten(1, 2), use_cache=True, **cached, **kwargs)
        outputs.append(out.last_hidden_state.unflatten(1, (num, each)))
    return torch.stack(outputs, 3)


def one_by_one(model: Any, context: Tensor, symbols: Tensor) -> Tensor:
    """Compute the outputs of `diagonal`, the last position first, so that one cache serves all."""
    cached = fresh_cache(model)
    (cache,) = cached.values()
    model(inputs_embeds=context, use_cache=True, **cached)
    outputs = torch.empty_like(symbols)
    num, each, length = symbols.shape[1:4]
    beyond = 0  # entries of the cache after the position
    for branch in reversed(range(num * each)):
        position, thought = divmod(branch, each)
        if beyond:
            cache.crop(-beyond)
        for place in range(length):
            embedding = symbols[:, position, thought, place, None]
            out = model(inputs_embeds=embedding, use_cache=True, **cached)
            outputs[:, position, thought, place] = out.last_hidden_state[:, 0]
        beyond = length + (thought == 0)
    return outputs
