"""The name of the cache in transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.library_ways import cache_name


class Before:
    """A model of transformers up to 5.23."""

    def forward(self, past_key_values: Any = None, **more: Any) -> None: ...


class Since:
    """A model from 5.24 on, which takes the old name too."""

    def forward(self, cache: Any = None, **more: Any) -> None: ...


@pytest.mark.parametrize(("model", "name"), [(Before(), "past_key_values"), (Since(), "cache")])
def test_the_name_is_the_one_that_the_call_takes(model: Any, name: str) -> None:
    assert cache_name(model) == name


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_the_installed_version_fills_and_returns_a_cache_of_that_name(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.branching import CONFIGS

    model = transformers.AutoModel.from_config(CONFIGS[family]).eval()
    cache = transformers.DynamicCache(config=model.config)
    rows = torch.randn(1, 3, CONFIGS[family].hidden_size)
    out = model(inputs_embeds=rows, use_cache=True, **{cache_name(model): cache})
    assert out[cache_name(model)] is cache and cache.get_seq_length() == 3
