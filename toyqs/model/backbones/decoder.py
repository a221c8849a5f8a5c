"""A Hugging Face decoder whose weights are declared like all others of this project: seeds first.

Only the code of the library's modules is used. The weights are in `Decoder.weights`, under the library's
names, and are put into those modules during every call. So clipping, the optimiser, weight files and initial
values treat them as any other parameters. Frozen weights are put in likewise, and are no parameters; the
adapters trained in their place are. Needs the package transformers. Only S = 1: one seed at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from toyqs.model.backbones.backbone import FAMILIES
from toyqs.model.backbones.frozen import Frozen
from toyqs.model.backbones.functional_layers import recompute_layers
from toyqs.model.backbones.lora import adapted
from toyqs.model.layers import Rule, SeedStacked
from toyqs.types import Maps

DROPOUTS = ("attn_pdrop", "resid_pdrop", "embd_pdrop", "attention_dropout")


class _SqueezedViews:
    """A module's parameters without their seed axis, as views that are reused from call to call.

    They are made anew only when a parameter's storage or `requires_grad` has changed. Their graph holds
    nothing but the view, so it serves the backward pass of any number of steps.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.parameters = module, dict(module.named_parameters())
        self.made_for: list[tuple[int, bool]] = []  # storage and requires_grad of each parameter then
        self.views: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _SqueezedViews:
        return _SqueezedViews(copy.deepcopy(self.module, memo))

    def tensors(self) -> dict[str, Tensor]:
        """Return name -> view."""
        now = [(weight.data_ptr(), weight.requires_grad) for weight in self.parameters.values()]
        if now != self.made_for:
            with torch.enable_grad():
                self.views = {name: weight.squeeze(0) for name, weight in self.parameters.items()}
            self.made_for = now
        return self.views


class Decoder(nn.Module):
    """A model of one of the `FAMILIES` up to its last norm, without token table, LM head and dropout."""

    def __init__(
        self,
        config: PretrainedConfig,
        attention: str,
        frozen: Frozen | None = None,
        rank: int = 0,
        *,
        autocast: bool = False,
        recompute: bool = False,
    ) -> None:
        """Declare the weights; their initial values are drawn by the library's own rules.

        Args:
            config: the library's; vocabulary and dropout are not used.
            attention: the name of a registered attention function.
            frozen: the weights under the library's names, over which adapters are trained; None: the
                weights are trained themselves.
            rank: of the adapters.
            autocast: whether matrix products are taken in bfloat16; the weights stay as they are.
            recompute: whether layers are run again in the backward pass, which saves memory.

        Raises:
            ValueError: a family for which branching is not tested, attention within a window, rotary
                positions in heads of odd width.
        """
        super().__init__()
        _refuse(config)
        config = copy.deepcopy(config)
        config.vocab_size, config.pad_token_id = 1, None
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, 0.0)
        with torch.random.fork_rng(devices=[]):
            code = AutoModel.from_config(config, attn_implementation=attention)
        code.set_input_embeddings(None)
        self.frozen = frozen
        self.weights = _declare(code, "", code) if frozen is None else adapted(code, rank)
        # Names and shapes of weights that the frozen ones should hold and do not.
        held = None if frozen is None else {name: x.shape for name, x in frozen.tensors().items()}
        self.lacking = [
            (name, x.shape) for name, x in code.named_parameters() if held and held.get(name) != x.shape
        ]
        for module in code.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(weight.to("meta")))
        self.autocast, self.recompute = autocast, recompute
        self._code = (code,)  # a tuple, so that its parameters are not this module's
        if recompute:
            recompute_layers(code)
        self._views = _SqueezedViews(self.weights)
        # Name -> the parameters of the module that holds it, and its key there.
        self._slots: dict[str, tuple[dict[str, Any], str]] = {}

    def forward(self, embeddings: Tensor, positions: Tensor, **kwargs: Any) -> Tensor:
        """Return outputs (B, n, D) past the last norm.

        Args:
            embeddings: (B, n, D).
            positions: (B or 1, n) long.
            kwargs: passed on to the attention function.
        """
        weights = self.tensors()
        inputs = {"inputs_embeds": embeddings, "position_ids": positions, "use_cache": False, **kwargs}
        autocast = torch.autocast(embeddings.device.type, torch.bfloat16, enabled=self.autocast)
        with self._using(weights), autocast:
            outputs = self._code[0](**inputs).last_hidden_state
        return outputs.to(embeddings.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights without their seed axis, name -> tensor."""
        return self._views.tensors() if self.frozen is None else self.frozen.tensors()

    @property
    def config(self) -> Any:
        """Return the library's configuration."""
        return self._code[0].config

    @contextmanager
    def _using(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Let the library's modules hold these weights for a while.

        torch's functional_call does the same, but looks up every name in every call: several percent of a
        small model's time.
        """
        if not self._slots:
            self._slots = {
                f"{path}.{name}".lstrip("."): (module._parameters, name)
                for path, module in self._code[0].named_modules()
                for name in module._parameters
            }
        before = []
        for name, weight in weights.items():
            if name not in self._slots:  # a checkpoint may hold more, such as GPT-2's causal masks
                continue
            parameters, key = self._slots[name]
            before.append((parameters, key, parameters[key]))
            parameters[key] = weight
        try:
            yield
        finally:
            for parameters, key, parameter in before:
                parameters[key] = parameter


def _refuse(config: PretrainedConfig) -> None:
    """Refuse a model family or a kind of attention for which branches are not implemented."""
    if config.model_type not in FAMILIES:
        raise ValueError(f"model_type={config.model_type}: not supported; give one of {', '.join(FAMILIES)}")
    if getattr(config, "sliding_window", None) is not None:
        raise ValueError(f"sliding_window={config.sliding_window}: not supported; give None")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.model_type != "gpt2" and head_dim % 2:
        raise ValueError(f"head_dim={head_dim}: rotary positions turn pairs of numbers; give an even one")


def _declare(module: nn.Module, path: str, code: nn.Module) -> SeedStacked:
    """Declare the weights of a module and all inside it, (1, ...) each, in a tree of the same names."""
    tree = SeedStacked()
    for name, weight in module.named_parameters(recurse=False):
        tree.declare(name, (1, *weight.shape), _library_rule(code, path, name))
    tree.matrices = _matrices(module, path)
    for name, child in module.named_children():
        if next(child.parameters(), None) is not None:
            tree.add_module(name, _declare(child, f"{path}.{name}".lstrip("."), code))
    return tree


def _matrices(module: nn.Module, path: str) -> dict[str, Maps]:
    """Return which of a module's parameters are matrices: GPT-2 has queries, keys and values in one."""
    if type(module).__name__ == "Linear":
        return {"weight": Maps(outputs=1)}
    if type(module).__name__ == "Conv1D":
        return {"weight": Maps(3 if path.endswith("c_attn") else 1)}
    return {}


def _library_rule(code: Any, path: str, name: str) -> Rule:
    """Return the rule by which the library draws one weight, here from the generator passed in."""

    def rule(values: Tensor, generator: torch.Generator) -> Tensor:
        parent, _, last = path.rpartition(".")
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            outer = copy.deepcopy(code.get_submodule(parent or path)).to_empty(device="cpu")
            module = outer.get_submodule(last) if parent else outer
            code._init_weights(module)
            code._init_weights(outer)  # GPT-2 draws the projections into the residual stream from there
        return values.copy_(module.get_parameter(name).detach())

    return rule
