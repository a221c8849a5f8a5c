"""A tiny checkpoint of words, and a run on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.texts.token_text import TokenText

WORDS = ("<end>", "a", "b", "c")


def config(folder: Path, **changes: Any) -> RunConfig:
    """Write a checkpoint of one layer and a text of its words; return settings of a run that thinks in them.

    Its adapters start at 0, so without training it is the checkpoint. Needs transformers.
    """
    import tokenizers
    import transformers

    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": len(WORDS), "eos_token_id": 0, "bos_token_id": 0}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**sizes, **ids, max_position_embeddings=300)
    )
    model.save_pretrained(folder / "checkpoint")
    cut = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({x: i for i, x in enumerate(WORDS)}, unk_token="<end>")
    )
    cut.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    cut.save(str(folder / "checkpoint" / "tokenizer.json"))
    (folder / "text.jsonl").write_text((json.dumps({"text": "a b c a b"}) + "\n") * 40)
    given: dict[str, Any] = {
        **{"pretrained": str(folder / "checkpoint"), "lora_rank": 2, "weight_groups": list("AAAA")},
        **{"task": TokenText(path=str(folder / "text.jsonl")), "seq_len": 8, "max_steps": 4},
        **{"interpreter_start": "onward", "mixing": "logits", "thought_vocab": None, "share_lm_head": True},
        **{"max_reasoning_len": 2, "trice_samples": 2, "controls": "none"},
    }
    return resolved(RunConfig(**(given | changes)))
