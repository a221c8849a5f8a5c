"""Wrap a finished run as a model of EleutherAI's lm-eval; needs the extra `harness`.

    import lm_eval
    from toyqs.answers.harness import HarnessModel

    lm_eval.simple_evaluate(model=HarnessModel("runs/KEY"), tasks=["arc_easy"])

or from the command line, through this module so that the harness knows the name:

    python -m toyqs.answers.harness run --model toyqs --model_args run=runs/KEY,thinking=true --tasks arc_easy
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from torch import Tensor

from toyqs.answers.loaded.load import load
from toyqs.answers.metrics import cut_before
from toyqs.answers.text import encode_context, encode_pair

MOST = 256  # tokens of an answer at most, where the request names no number


@register_model("toyqs")
class HarnessModel(LM):
    """Model of lm-eval that answers requests one by one; an empty context is the end of another document."""

    def __init__(self, run: str, thinking: bool = True, device: str = "cpu", seed: int = 0, **_: Any) -> None:
        """Load a finished run.

        Args:
            run: its folder, runs/KEY.
            thinking: False: predict without thoughts.
            device: cpu or cuda, the harness's default; without CUDA the CPU is used.
            seed: of thoughts and of sampled tokens.

        Raises:
            Refusal, ValueError: as in `load` and `Predictor`.
        """
        super().__init__()
        loaded = load(run, device if torch.cuda.is_available() else "cpu", int(seed))
        self.text, self.predictor = loaded.text, loaded.predictor(thinking=_true(thinking))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score each continuation after its context, and tell whether each of its tokens is the likeliest."""
        results = []
        for before, after in (request.args for request in requests):
            scored = self.predictor.score(*encode_pair(self.text, before, after))
            results.append((float(scored.log_probs.sum()), bool(scored.greedy.all())))
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts, each token given those before it; texts longer than the model reads in parts."""
        return [self._rolling(self.text.encode(request.args[0])) for request in requests]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate a continuation of each context, up to the end of its document or its first end string."""
        return [self._generate(*request.args) for request in requests]

    def _rolling(self, tokens: Tensor) -> float:
        size = len(tokens) if self.predictor.room is None else self.predictor.room // 2
        context, total = encode_context(self.text, ""), 0.0
        for part in tokens.split(max(1, size)):
            total += float(self.predictor.score(context, part).log_probs.sum())
            context = torch.cat([context, part])
        return total

    def _generate(self, before: str, kwargs: dict[str, Any]) -> str:
        until = kwargs.get("until") or []
        ends = list(filter(None, [until] if isinstance(until, str) else until))

        def cut(ids: Sequence[int]) -> str:
            return cut_before(self.text.decode(ids), ends)

        sampled = kwargs.get("do_sample", float(kwargs.get("temperature") or 0.0) > 0)
        (ids,) = self.predictor.generate(
            encode_context(self.text, before),
            int(kwargs.get("max_gen_toks", MOST)),
            temperature=float(kwargs.get("temperature") or 1.0) if sampled else 0.0,
            ends=self.text.ends,
            stop=lambda ids: len(cut(ids)) < len(self.text.decode(ids)),
        )
        return cut(ids)


def _true(given: bool | str) -> bool:
    """Read a switch that is typed as text or passed as bool."""
    return given if isinstance(given, bool) else given.lower() not in ("false", "0", "no")


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except ValueError as error:
        print(f"toyqs: {error}", file=sys.stderr)
        sys.exit(2)
