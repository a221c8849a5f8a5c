"""RunConfig -> the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from toyqs.config.builders.auxiliaries import build_auxiliaries
from toyqs.config.builders.backbone import build_backbone
from toyqs.config.builders.native import with_native
from toyqs.config.builders.pretrained import (
    FrozenParts,
    checkpoint_head,
    frozen_parts,
    given_weights,
    token_table,
)
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.qk_clip.clip import QKClip
from toyqs.model.chains.chain_reasoner import ChainReasoner
from toyqs.model.core import Core, EchoCore, LatentCore, RelaxedCore, StateCore
from toyqs.model.interpreter import Afresh, AfreshEach, Onward
from toyqs.model.latent_heads import HEADS, GaussianHead, GumbelHead
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.layers import FeatureHead, Linear, LMHead, Zeros, initialise
from toyqs.model.markers import Markers
from toyqs.model.mixing import MIXERS, BaseOnly, Mixer, Projected
from toyqs.model.predicting.bounded import CosineLinear
from toyqs.model.predicting.last_symbol import LastSymbol, LastSymbolEach
from toyqs.model.predicting.offsets import Offsets
from toyqs.model.predicting.parts import Horizon
from toyqs.model.roles import WeightGroups, tie
from toyqs.model.thoughts import ThoughtHead, TokenHead
from toyqs.objectives.registry import objective_class

# Kind of a symbol -> the core that embeds it.
CORES: dict[str, type[Core]] = {
    "token": Core,
    "gaussian": LatentCore,
    "gumbel": RelaxedCore,
    "deterministic": EchoCore,
    "state": StateCore,
}


def build_model(config: RunConfig, seeds: Sequence[int]) -> LatentReasoner:
    """Return the model of a run, one copy per seed, with its initial weights.

    Args:
        config: resolved.
        seeds: S of them.
    """
    model = assemble(config, len(seeds))
    initialise(model, seeds, given_weights(config, model))
    _start_markers(model, config)
    return model.to(device=config.device, dtype=getattr(torch, config.dtype))


def _start_markers(model: LatentReasoner, config: RunConfig) -> None:
    """Give the markers the embedding of a thought symbol, in every core that has a table of symbols."""
    symbol = config.marker_start
    if symbol is None:
        return
    for core in model.cores.values():
        assert isinstance(core, Core)
        table = core.thoughts if config.thought_vocab else core.tokens
        if core.markers is not None and table is not None:
            core.markers.start_at(table.weight[:, symbol])


def assemble(config: RunConfig, num_seeds: int) -> LatentReasoner:
    """Return a run's model with all parameters zero.

    Args:
        config: resolved.
        num_seeds: S.
    """
    vocab_size = config.task.vocab_size
    width = config.widths
    used = config.roles_in_use
    groups = WeightGroups.parse(config.weight_groups)
    frozen = frozen_parts(config)
    cores = tie(groups, width, used, lambda size, roles: _core(config, num_seeds, size, roles, frozen))
    letters = {role: groups.letter(role) for role in used}
    mixer = _mixer(config, num_seeds)
    if config.pretrained is None:
        head: LMHead = FeatureHead(
            num_seeds,
            mixer.widths,
            vocab_size,
            config.linear_lm_head,
            layers=config.lm_head_layers,
            autocast=config.autocast,
        )
    else:
        table = next(core.tokens for core in cores.values() if core.tokens is not None)
        head = checkpoint_head(config, table, frozen)
    thought_head: ThoughtHead | None = None
    interpreter: Afresh | Onward | None = None
    if "reasoner" in used and config.max_reasoning_len:
        thought_head = _thought_head(config, num_seeds, head if config.share_lm_head else None)
    if "interpreter" in used:
        core = cores[letters["interpreter"]]
        if config.interpreter_start == "afresh":
            shares = config.symbol_kind == "token" and not config.lengths_vary
            kinds = (
                (LastSymbolEach, LastSymbol) if config.interpreter_reads == "last" else (AfreshEach, Afresh)
            )
            interpreter = kinds[shares](num_seeds, core)
        else:
            interpreter = _onward(config, num_seeds, core, cores[letters["reasoner"]])
    parts = (letters, cores, head, mixer, thought_head, interpreter)
    offsets = Offsets(num_seeds, config.num_ahead, mixer.widths) if config.predicts_jointly else None
    horizon = Horizon(config.num_ahead, config.interpreter_reads_on, offsets)
    auxiliaries = build_auxiliaries(config, num_seeds, thought_head)
    chained = config.hands_on
    kind = _chains(config, num_seeds, cores[letters["base_lm"]]) if chained else LatentReasoner
    model = kind(*parts, auxiliaries=auxiliaries, horizon=horizon)
    model.hides_last_token = config.hide_last_token
    native = config.kernels == "native" and config.takes_native_kernels
    return with_native(config, model) if native else model


def _chains(config: RunConfig, num_seeds: int, base: Core) -> Callable[..., LatentReasoner]:
    """Return what puts parts together to chains; what is handed on starts as small as embeddings do."""
    size = base.backbone.embedding_std
    carry = Linear(num_seeds, config.widths["interpreter"], config.widths["base_lm"], size)
    keeps_path = config.has_thoughts and not objective_class(config).uses_score_function
    return partial(ChainReasoner, carry=carry, keeps_path=keeps_path)


def _onward(config: RunConfig, num_seeds: int, core: Core, reasoner: Core) -> Onward:
    last = int(config.increment_pos_id_for_last_context_token) if config.add_last_context_token else None
    width, alike = core.backbone.width, core.backbone.width == reasoner.backbone.width
    handover = None if alike else reasoner.backbone.handover(num_seeds, width)
    return Onward(core, reasoner, last_token=last, handover=handover)


def _thought_head(config: RunConfig, num_seeds: int, shared: LMHead | None) -> ThoughtHead:
    width, path = config.reasoner_hidden_dim, not objective_class(config).uses_score_function
    num_symbols = config.thought_vocab or config.task.vocab_size
    if config.random_thoughts:
        return _random_head(config, num_seeds)
    head: Callable[..., ThoughtHead] = partial(
        HEADS[config.thoughts], **config.plugin.get(config.thoughts, {})
    )
    match config.symbol_kind:
        case "gaussian":
            return head(num_seeds, width, config.latent_dim, config.sigma, path=path)
        case "state":
            return head(num_seeds, width, config.sigma, path=path)
        case "deterministic":
            return head()
        case "gumbel":
            temperature = config.gumbel_temperature
            return head(num_seeds, width, num_symbols, shared, temperature=temperature)
        case _:
            if config.has_cosine_logits:
                head = partial(head, layer=partial(CosineLinear, scale=config.thought_logit_scale))
            return head(num_seeds, width, num_symbols, shared, ends=config.variable_len)


def _random_head(config: RunConfig, num_seeds: int) -> ThoughtHead:
    """Return a head without parameters: symbols are uniform, vectors from N(0, I), whatever the state."""
    width, num_symbols = config.reasoner_hidden_dim, config.thought_vocab or config.task.vocab_size
    match config.symbol_kind:
        case "gaussian" | "state" as kind:
            size = config.latent_dim if kind == "gaussian" else width
            return GaussianHead(num_seeds, width, size, 1.0, path=False, layer=Zeros)
        case "gumbel":
            return GumbelHead(num_seeds, width, num_symbols, temperature=1.0, layer=Zeros)
        case _:
            return TokenHead(num_seeds, width, num_symbols, ends=config.variable_len, layer=Zeros)


def _core(
    config: RunConfig, num_seeds: int, width: int, roles: list[str], frozen: FrozenParts | None
) -> Core:
    """Return the core of some roles, with only the tables that they read."""
    backbone = build_backbone(config, num_seeds, width, frozen and frozen.decoder)
    speed = (config.meta_token_mode, config.meta_token_scale, min(0.1, backbone.embedding_std))
    thinks = "reasoner" in roles or "interpreter" in roles
    core = CORES[config.symbol_kind](
        num_seeds,
        backbone,
        num_tokens=config.task.vocab_size if _reads_tokens(config, roles) else 0,
        num_thought_symbols=_num_symbol_rows(config, roles),
        markers=Markers(num_seeds, width, *speed, one=not config.different_eot) if thinks else None,
        frozen_tokens=frozen and token_table(config, frozen),
    )
    if config.qk_clip and config.backbone != "gru":
        clip = QKClip(backbone.decoder, config.qk_clip, keys_are_read=_keys_are_read(config, roles))
        backbone.qk_clip = clip
    core.forgets = config.markov_reasoner and "reasoner" in roles
    return core


def _keys_are_read(config: RunConfig, roles: list[str]) -> bool:
    """Tell whether the keys of some roles' core are read by another core, or another's by it.

    The reasoner goes on from what base_reasoner has read, and the interpreter may from where that ends.
    """
    onward = ["interpreter"] if config.interpreter_start == "onward" else []
    going_on = [role for role in ("base_reasoner", "reasoner", *onward) if role in config.roles_in_use]
    return not set(going_on) <= set(roles) and not set(going_on).isdisjoint(roles)


def reads_symbols(config: RunConfig, roles: list[str]) -> bool:
    """Tell whether one of the roles reads symbols of thoughts."""
    afresh = config.interpreter_start == "afresh"
    if config.symbol_kind == "state":  # the reasoner's own state, which it need not read
        return "interpreter" in roles and afresh
    if afresh and "interpreter" in roles:
        return config.max_reasoning_len > 0
    # The reasoner reads its last symbol only for an interpreter that continues from its state.
    return "reasoner" in roles and config.max_reasoning_len > (1 if afresh else 0)


def _num_symbol_rows(config: RunConfig, roles: list[str]) -> int:
    """Return the rows of the core's own table of symbols; 0: none, or symbols are the task's tokens."""
    width, other = (config.widths[role] for role in ("reasoner", "interpreter"))
    echoed = width if "interpreter" in roles and width != other else 0  # a map to the interpreter's width
    rows = {"gaussian": config.latent_dim, "state": width, "deterministic": echoed}
    return rows.get(config.symbol_kind, config.thought_vocab or 0) if reads_symbols(config, roles) else 0


def _reads_tokens(config: RunConfig, roles: list[str]) -> bool:
    """Tell whether one of the roles reads the task's tokens."""
    if "base_lm" in roles or "base_reasoner" in roles:
        return True
    if "interpreter" in roles and (config.interpreter_reads_on or config.add_last_context_token):
        return True
    symbols_are_tokens = config.symbol_kind in ("token", "gumbel") and not config.thought_vocab
    return symbols_are_tokens and reads_symbols(config, roles)


def _mixer(config: RunConfig, num_seeds: int) -> Mixer:
    width = config.widths
    if not config.use_reasoner:
        return BaseOnly(num_seeds, width["base_lm"], width["interpreter"])
    if not config.use_base_lm and config.mixer == "add":
        return Projected(num_seeds, width["base_lm"], width["interpreter"])
    base_width = width["base_lm"] if config.uses_base_lm else 0
    own = (
        {"learned": config.attend_by == "learned"} if config.attends else config.plugin.get(config.mixer, {})
    )
    return MIXERS[config.mixer](num_seeds, base_width, width["interpreter"], **own)


def count_parameters(config: RunConfig) -> int:
    """Return the number of parameters of one seed, without allocating them.

    What says right thoughts in a control (`warm_start`) is not among them.

    Raises:
        CheckpointError: a checkpoint lacks one of them.
    """
    with torch.device("meta"):
        model = assemble(replace(config, kernels="torch", warm_start=0), 1)
        given_weights(config, model)
        return sum(p.numel() for p in model.parameters())
