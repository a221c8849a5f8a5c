"""The offsets by which one position predicts several tokens from what it has read so far (ahead=joint)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from toyqs.model.layers import FeatureHead, LMHead, SeedStacked, normal


class Offsets(SeedStacked):
    """One learned vector for each of N tokens, added to the features that the LM head reads.

        logits of the token n = head(features + offset_n),   n = 1 … N

    Base state and reading are mixed before: all N tokens are predicted from the same features, and none from
    another of them. Where the head is linear an offset moves the logits of its token by the same amounts in
    every context; an MLP (`linear_lm_head=false`) can make more of it.
    """

    def __init__(self, num_seeds: int, num_tokens: int, widths: Sequence[int]) -> None:
        """Declare the offsets, nearly 0 at first: all tokens begin with one prediction.

        Args:
            num_seeds: S.
            num_tokens: N.
            widths: of the head's features.
        """
        super().__init__()
        for index, width in enumerate(widths):
            self.declare(f"offset_{index}", (num_seeds, num_tokens, width), normal(0.02))

    def predict(self, head: LMHead, features: Sequence[Tensor | None]) -> Tensor:
        """Compute the logits of all N tokens.

        Args:
            head: reads the features.
            features: (S, B, T, K or 1, 1, width_i) each; None: left out.

        Returns:
            (S, B, T, K, N, V).
        """
        offsets = [None if x is None else self._offset(index) for index, x in enumerate(features)]
        if isinstance(head, FeatureHead) and len(head.rest):
            return head(
                [x if x is None else x + cast(Tensor, o) for x, o in zip(features, offsets, strict=True)]
            )
        moved = head(offsets)  # the head is linear: head(x + o) is the sum of both, and the bias counts once
        if isinstance(head, FeatureHead):
            moved = moved - head.bias.view(head.bias.shape[0], 1, 1, 1, *head.bias.shape[1:])
        return head(features) + moved

    def _offset(self, index: int) -> Tensor:
        """Return the offsets of one feature, (S, 1, 1, 1, N, width)."""
        offset = self.get_parameter(f"offset_{index}")
        return offset.view(offset.shape[0], 1, 1, 1, *offset.shape[1:])
