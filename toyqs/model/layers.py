"""Layers whose parameters have a leading seed axis: the only file that knows how seeds are stacked.

Every operation treats the seeds as independent rows of a batched kernel, so that a seed computes the
same numbers, bit for bit on a CPU, alone and stacked with others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from toyqs.numerics import LANES
from toyqs.rng import stream
from toyqs.types import Maps

NEAREST = 2**24  # products with rows that `nearest_rows` compares at once

Rule = Callable[[Tensor, torch.Generator], Tensor]
Affine = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # see `affine`


def uniform(bound: float) -> Rule:
    """Return the rule of initial values drawn uniformly from [-bound, bound]."""
    return lambda values, generator: values.uniform_(-bound, bound, generator=generator)


def normal(std: float) -> Rule:
    """Return the rule of initial values drawn from N(0, std²)."""
    return lambda values, generator: values.normal_(0.0, std, generator=generator)


class SeedStacked(nn.Module):
    """A module with parameters of shape (S, ...) and a rule for each one's initial values."""

    matrices: Mapping[str, Maps] = {}  # the parameters that are matrices of a hidden layer

    def __init__(self) -> None:
        super().__init__()
        self.rules: dict[str, Rule] = {}

    def declare(self, name: str, shape: Sequence[int], rule: Rule) -> nn.Parameter:
        """Register a parameter of this shape, seeds first; `initialise` fills it by the rule."""
        parameter = nn.Parameter(torch.zeros(*shape))
        self.register_parameter(name, parameter)
        self.rules[name] = rule
        return parameter


def initialise(model: nn.Module, seeds: Sequence[int], given: Mapping[str, Tensor] | None = None) -> None:
    """Fill every parameter from a random stream keyed by seed and parameter name.

    A parameter of one name starts with the same values in every model that has it in the same shape.

    Args:
        model: built of SeedStacked modules for len(seeds) seeds.
        seeds: one per entry of the leading axis.
        given: parameter name -> values of its shape without the seed axis, in place of random ones.
    """
    for module_name, module in model.named_modules():
        if not isinstance(module, SeedStacked):
            continue
        for name, rule in module.rules.items():
            parameter = getattr(module, name)
            full_name = f"{module_name}.{name}" if module_name else name
            with torch.no_grad():
                if given and full_name in given:
                    parameter.copy_(given[full_name])
                    continue
                for index, seed in enumerate(seeds):
                    # Drawn in float64 so that both precisions start from the same numbers.
                    values = torch.empty(parameter.shape[1:], dtype=torch.float64)
                    parameter[index] = rule(values, stream(seed, f"weights/{full_name}")).to(parameter.dtype)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x @ weight + bias, seed by seed.

    Args:
        x: (S, ..., D).
        weight: (S, D, E).
        bias: (S, 1, E) or None.

    Returns:
        (S, ..., E).
    """
    rows = x.flatten(1, -2)
    if weight.shape[-1] == 1:
        # A product with one column takes another kernel for one seed than for several.
        column = (rows * weight.transpose(1, 2)).sum(-1, keepdim=True)
        return (column if bias is None else column + bias).view(*x.shape[:-1], 1)
    out = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias, rows, weight)
    return out.view(*x.shape[:-1], weight.shape[-1])


def gather_rows(table: Tensor, ids: Tensor) -> Tensor:
    """Gather rows of each seed's table (S, n, F) by ids (S, ...) long, each in [0, n): (S, ..., F)."""
    # index_select's gradient is an index_add, faster on CPU than an embedding's.
    return table.flatten(0, 1).index_select(0, flat_ids(table, ids)).view(*ids.shape, table.shape[-1])


def flat_ids(table: Tensor, ids: Tensor) -> Tensor:
    """Return the numbers of rows in the tables of all seeds, one after another: ids (S, ...) -> (ids,)."""
    num_seeds, num_rows, _ = table.shape
    if num_seeds == 1:
        return ids.flatten()
    return (ids.flatten(1) + _first_rows(num_seeds, num_rows, ids.device)).flatten()


def mix_rows(table: Tensor, weights: Tensor) -> Tensor:
    """Compute Σ_n weight_n · row_n of each seed's table (S, n, F), by weights (S, ..., n): (S, ..., F)."""
    if table.shape[1] == 1:
        # As in `affine`: the gradient would be a product with one column.
        return (weights.flatten(1, -2) * table).view(*weights.shape[:-1], table.shape[-1])
    return affine(weights, table)


def nearest_rows(table: Tensor, vectors: Tensor) -> Tensor:
    """Return the row of table (S, n, D) of the largest cosine with each vector (S, ..., D): (S, ...) long."""
    rows = functional.normalize(table, dim=-1).transpose(1, 2)
    parts = vectors.flatten(1, -2).split(max(1, NEAREST // table.shape[1]), dim=1)
    return torch.cat([affine(x, rows).argmax(-1) for x in parts], dim=1).view(vectors.shape[:-1])


@functools.lru_cache(maxsize=16)
def _first_rows(num_seeds: int, num_rows: int, device: torch.device) -> Tensor:
    """Return the index of each seed's first row in a table of all seeds, (S, 1)."""
    return torch.arange(0, num_seeds * num_rows, num_rows, device=device).unsqueeze(1)


def logistic_(x: Tensor) -> Tensor:
    """Compute 1 / (1 + e^-x) in place.

    torch.sigmoid rounds the remaining elements after its vector loop differently, so one seed's values would
    depend on the number of seeds in the stack. Where a seed's block leaves a remainder tanh, which does not
    round so, is used.

    Args:
        x: (S, ...), contiguous.
    """
    if x.numel() // x.shape[0] % LANES == 0:
        return x.sigmoid_()
    return x.mul_(0.5).tanh_().mul_(0.5).add_(0.5)


class Linear(SeedStacked):
    """An affine map, (S, ..., D) -> (S, ..., E); initial values within gain / √D."""

    matrices: Mapping[str, Maps] = {"weight": Maps()}

    def __init__(self, num_seeds: int, width: int, out: int, gain: float = 1.0) -> None:
        super().__init__()
        bound = gain / math.sqrt(width)
        self.weight = self.declare("weight", (num_seeds, width, out), uniform(bound))
        self.bias = self.declare("bias", (num_seeds, 1, out), uniform(bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map (S, ..., D) to (S, ..., E)."""
        return affine(x, self.weight, self.bias)


class Output(Linear):
    """An affine map to what a model puts out, such as logits: the last layer, not a hidden one."""

    matrices: Mapping[str, Maps] = {}


class Zeros(nn.Module):
    """A map to zeros, (S, ..., D) -> (S, ..., E), without parameters, where a `Linear` might be."""

    def __init__(self, num_seeds: int, width: int, out: int, gain: float = 1.0) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        """Map (S, ..., D) to (S, ..., E)."""
        return x.new_zeros(*x.shape[:-1], self.out)


class Embedding(SeedStacked):
    """Learned rows, such as token embeddings: (S, n, D)."""

    def __init__(self, num_seeds: int, num_rows: int, width: int, std: float = 1.0) -> None:
        super().__init__()
        self.weight = self.declare("weight", (num_seeds, num_rows, width), normal(std))


class Table(Protocol):
    """Rows (S, n, D), learned or not."""

    @property
    def weight(self) -> Tensor:
        """Return all rows."""
        ...


class FeatureHead(SeedStacked):
    """The LM head: one or several feature vectors, each with its own rows of the first layer.

        logits = Σ_i x_i W_i + b        (linear, one layer)

    This is one layer over the concatenated features. With a weight for each of them, a feature that all K
    thoughts of a position share is multiplied once. A feature that is left out counts as zero.

    A linear head of n layers has n - 1 layers as wide as all features together before the last one, with
    nothing between them: it can compute what one layer can, and learns it by another path. An MLP has two
    hidden layers of 512 with GELU.
    """

    def __init__(
        self,
        num_seeds: int,
        widths: Sequence[int],
        vocab_size: int,
        linear: bool = True,
        *,
        layers: int = 1,
        autocast: bool = False,
    ) -> None:
        """Declare the weights.

        Args:
            num_seeds: S.
            widths: of the features.
            vocab_size: V.
            linear: false: an MLP.
            layers: of a linear head.
            autocast: products, and so the logits, are rounded to bfloat16.
        """
        super().__init__()
        self.autocast = autocast
        self.first_layer: Affine = affine  # or a function that computes the same, to rounding
        self.widths = tuple(widths)
        hidden = [sum(widths)] * (layers - 1) if linear else [512, 512]
        first, *others = *hidden, vocab_size
        self.matrices = {f"weight_{index}": Maps() for index in range(len(widths))} if hidden else {}
        bound = 1.0 / math.sqrt(sum(widths))
        for index, width in enumerate(widths):
            self.declare(f"weight_{index}", (num_seeds, width, first), uniform(bound))
        self.bias = self.declare("bias", (num_seeds, 1, first), uniform(bound))
        self.rest = nn.Sequential()
        for index, (width, out) in enumerate(zip(hidden, others, strict=True), 1):
            if not linear:
                self.rest.append(nn.GELU())
            self.rest.append((Output if index == len(others) else Linear)(num_seeds, width, out))

    def forward(self, features: Sequence[Tensor | None]) -> Tensor:
        """Map features (S, ..., width_i), broadcast against each other, None: left out, to (S, ..., V)."""
        if not self.autocast:
            return self._logits(features)
        given = next(x for x in features if x is not None)
        with torch.autocast(given.device.type, torch.bfloat16):
            return self._logits(features).to(given.dtype)

    def _logits(self, features: Sequence[Tensor | None]) -> Tensor:
        (first, feature), *others = ((i, x) for i, x in enumerate(features) if x is not None)
        out = self.first_layer(feature, self.get_parameter(f"weight_{first}"), self.bias)
        for index, feature in others:
            out = out + self.first_layer(feature, self.get_parameter(f"weight_{index}"), None)
        return cast(Tensor, self.rest(out))


class TableHead(nn.Module):
    """The LM head of a checkpoint: every feature has the same rows, logits = Σ_i x_i Eᵀ.

    Where the checkpoint ties its embeddings, E is the token table itself.
    """

    def __init__(self, table: Table, *, autocast: bool = False) -> None:
        """Take a table; with `autocast` products, and so the logits, are rounded to bfloat16."""
        super().__init__()
        self.table = table
        self.autocast = autocast
        self.widths = (table.weight.shape[-1],)

    def forward(self, features: Sequence[Tensor | None]) -> Tensor:
        """Map features (S, ..., D), broadcast against each other, None: left out, to (S, ..., V)."""
        given = [x for x in features if x is not None]
        with torch.autocast(given[0].device.type, torch.bfloat16, enabled=self.autocast):
            out, *others = (affine(x, self.table.weight.transpose(1, 2)) for x in given)
        return sum(others, out).to(given[0].dtype)


LMHead = FeatureHead | TableHead
