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

from toyqs.answers.load import load
from toyqs.answers.metrics import cut_before
from toyqs.config.errors import Refusal

MOST = 256  # tokens of an answer at most, where the request names no number


@register_model("toyqs")
class HarnessModel(LM):
    """Model of lm-eval that answers requests one by one; an empty context becomes a line break."""

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
            context = before.rstrip()  # blanks at the border go to the continuation, as in lm-eval's models
            given = self.text.encode(before[len(context) :] + after)
            scored = self.predictor.score(self._encode(context), given)
            results.append((float(scored.log_probs.sum()), bool(scored.greedy.all())))
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts, each token given those before it; texts longer than the model reads in parts."""
        return [self._rolling(self.text.encode(request.args[0])) for request in requests]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate a continuation of each context, up to the first of its end strings."""
        return [self._generate(*request.args) for request in requests]

    def _rolling(self, tokens: Tensor) -> float:
        size = len(tokens) if self.predictor.longest is None else self.predictor.longest // 2
        context, total = self._encode(""), 0.0
        for part in tokens.split(max(1, size)):
            total += float(self.predictor.score(context, part).log_probs.sum())
            context = torch.cat([context, part])
        return total

    def _generate(self, before: str, kwargs: dict[str, Any]) -> str:
        until = kwargs.get("until") or []
        ends = [until] if isinstance(until, str) else list(until)

        def cut(ids: Sequence[int]) -> str:
            return cut_before(self.text.decode(ids), ends)

        sampled = kwargs.get("do_sample", float(kwargs.get("temperature") or 0.0) > 0)
        (ids,) = self.predictor.generate(
            self._encode(before),
            int(kwargs.get("max_gen_toks", MOST)),
            temperature=float(kwargs.get("temperature") or 1.0) if sampled else 0.0,
            stop=lambda ids: len(cut(ids)) < len(self.text.decode(ids)),
        )
        return cut(ids)

    def _encode(self, text: str) -> Tensor:
        return self.text.encode(text or "\n")


def _true(given: bool | str) -> bool:
    """Read a switch that is typed as text or passed as bool."""
    return given if isinstance(given, bool) else given.lower() not in ("false", "0", "no")


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except Refusal as refusal:
        sys.exit(f"toyqs: {refusal}")
