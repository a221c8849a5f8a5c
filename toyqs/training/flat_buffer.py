"""Where every parameter of every seed stands in one flat buffer, and what of it other processes keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from toyqs.model.backbones.sharding import from_parts, part_of
from toyqs.numerics import LANES

LARGE = 2**22  # parameters of a seed, from which on sums over them, and notes whose they are, are dear


@dataclass(frozen=True)
class Sharing:
    """How one of several processes shares moments, and some parameters too, with the others.

    Of parameters that all have whole each keeps the moments of an equal part (ZeRO-1: Rajbhandari et al.
    2020); of a parameter of which it has only a part, those of that part.
    """

    rank: int
    ranks: int
    whole: Callable[[Tensor], Tensor]  # the processes' equal parts (n,) -> (ranks n,)
    total: Callable[[Tensor], Tensor]  # the sum over the processes
    # Parameters of which a part is here -> shape of the whole.
    sharded: Mapping[str, torch.Size] = field(default_factory=dict)


class Layout:
    """Of a buffer: the parameters that all processes have, then the parts of those that are sharded."""

    def __init__(self, model: nn.Module, sharing: Sharing | None = None) -> None:
        """Find a place for all parameters of a model, each (S, ...); S = 1 where some are sharded."""
        self.sharing, self.sharded = sharing, sharing.sharded if sharing else {}
        named = dict(model.named_parameters())
        self.names, self.num_seeds = list(named), next(iter(named.values())).shape[0]
        self.device = next(iter(named.values())).device
        self.spans: dict[str, slice] = {}
        self.used = self._place([name for name in named if name not in self.sharded], named, 0)
        rank, ranks = (sharing.rank, sharing.ranks) if sharing else (0, 1)
        # Filled up, so that the fused kernel's vector loop leaves nothing over: see numerics.
        common = self.used + -self.used % (LANES * ranks)
        end = self._place([name for name in named if name in self.sharded], named, common)
        self.size = end + -end % LANES
        self.common = slice(0, common)  # what all processes have
        self.stepped = [slice(rank * common // ranks, (rank + 1) * common // ranks)]  # what this one updates
        if self.sharded:
            self.stepped.append(slice(common, self.size))
        self.seed_of = None if self.num_seeds == 1 and self.size >= LARGE else self._seeds()

    def _place(self, names: Sequence[str], named: Mapping[str, Tensor], start: int) -> int:
        """Let these stand one after another from a place on; where they end."""
        for name in names:
            self.spans[name] = slice(start, start + named[name].numel())
            start = self.spans[name].stop
        return start

    def _seeds(self) -> Tensor:
        """Which seed each element is of."""
        seed_of = torch.zeros(self.size, dtype=torch.long, device=self.device)
        for span in self.spans.values():
            per_seed = (span.stop - span.start) // self.num_seeds
            seed_of[span] = torch.arange(self.num_seeds).repeat_interleave(per_seed)
        return seed_of

    def sums(self, values: Tensor) -> Tensor:
        """The sums over each seed's parameters (S,) of values as long as the buffer.

        One float32 sum over many million small numbers would stand still: it is taken tensor by tensor then.
        """
        if self.sharing is not None and self.sharded:
            here = [values[span].sum() for name, span in self.spans.items() if name in self.sharded]
            common = [values[span].sum() for name, span in self.spans.items() if name not in self.sharded]
            return (torch.stack(common).sum() + self.sharing.total(torch.stack(here).sum())).unsqueeze(0)
        if self.seed_of is None:
            return values.sum().unsqueeze(0)
        if self.used > LARGE * self.num_seeds:
            parts = [values[span].view(self.num_seeds, -1).sum(1) for span in self.spans.values()]
            return torch.stack(parts).sum(0)
        return values.new_zeros(self.num_seeds).index_add_(0, self.seed_of, values)

    def each(self, per_seed: Tensor) -> Tensor:
        """A value per seed (S,) as one for each element, or one for all."""
        return per_seed if self.seed_of is None else per_seed.index_select(0, self.seed_of)

    def fetched(self, stepped: Sequence[Tensor]) -> Tensor:
        """What every process has of its `stepped` parts, put together as long as the buffer."""
        if self.sharing is None:
            return stepped[0]
        return torch.cat([self.sharing.whole(stepped[0]), *stepped[1:]])

    def of_seed(self, values: Tensor, index: int) -> Tensor:
        """A seed's values (n,), copied, as one process alone has them: in the model's order, whole."""
        if self.sharing is None or not self.sharded:
            return values[: self.used][self._mine(index)].clone()
        parts = [self.whole(name, values[self.spans[name]]) for name in self.names]
        return torch.cat([part.flatten() for part in parts])

    def fill(self, values: Tensor, index: int, given: Tensor) -> None:
        """Put what `of_seed` gave to where it belongs."""
        if self.sharing is None or not self.sharded:
            values[: self.used][self._mine(index)] = given
            return
        lengths = [
            self.sharded[name].numel()
            if name in self.sharded
            else self.spans[name].stop - self.spans[name].start
            for name in self.names
        ]
        for name, whole in zip(self.names, given.split(lengths), strict=True):
            values[self.spans[name]] = self.part(name, whole).flatten()

    def whole(self, name: str, part: Tensor) -> Tensor:
        """What belongs to a parameter, of its whole shape where it is here in part, else as it is."""
        shape = self.sharded.get(name)
        if self.sharing is None or shape is None:
            return part
        return from_parts(self.sharing.whole(part.flatten()), shape)

    def part(self, name: str, whole: Tensor) -> Tensor:
        """The other way round: the part (1, n) that is here, or all."""
        if self.sharing is None or name not in self.sharded:
            return whole
        return part_of(whole, self.sharing.rank, self.sharing.ranks).unsqueeze(0)

    def _mine(self, index: int) -> Tensor | slice:
        """Which of the used elements are a seed's."""
        return slice(None) if self.seed_of is None else self.seed_of[: self.used] == index
