"""A finished run as a model of EleutherAI's lm-eval; needs the extra `harness`.

    import lm_eval
    from toyqs.answers.harness import HarnessModel

    lm_eval.simple_evaluate(model=HarnessModel("runs/KEY"), tasks=["arc_easy"])

or from the command line, the module loaded first so that the harness knows the name:

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
from toyqs.config.errors import Refusal

MOST = 256  # tokens of an answer where the request names no number


@register_model("toyqs")
class HarnessModel(LM):
    """Requests one by one; a text before the first token is a line break, as nothing comes from nothing."""

    def __init__(self, run: str, thinking: bool = True, device: str = "cpu", seed: int = 0, **_: Any) -> None:
        """Take a finished run.

        Args:
            run: its folder, runs/KEY.
            thinking: False: it predicts without a thought.
            device: the harness asks for cuda where nothing is said; the CPU where there is none.
            seed: of thoughts and of sampled tokens.

        Raises:
            Refusal, ValueError: as in `load` and `Speaker`.
        """
        super().__init__()
        loaded = load(run, device if torch.cuda.is_available() else "cpu", int(seed))
        self.text, self.predictor = loaded.text, loaded.predictor(thinking=_true(thinking))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each continuation after its context, and whether it is what would be written greedily."""
        found = []
        for before, after in (request.args for request in requests):
            kept = before.rstrip()  # blanks at the border belong to the continuation, as in the harness's own
            scored = self.predictor.score(self._encoded(kept), self.text.encode(before[len(kept) :] + after))
            found.append((float(scored.log_probs.sum()), bool(scored.greedy.all())))
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, each token from those before it; texts longer than the model reads go in parts."""
        return [self._rolling(self.text.encode(request.args[0])) for request in requests]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What is written after each context, up to the first of its ends."""
        return [self._written(*request.args) for request in requests]

    def _rolling(self, tokens: Tensor) -> float:
        size = len(tokens) if self.predictor.longest is None else self.predictor.longest // 2
        known, total = self._encoded(""), 0.0
        for part in tokens.split(max(1, size)):
            total += float(self.predictor.score(known, part).log_probs.sum())
            known = torch.cat([known, part])
        return total

    def _written(self, before: str, kwargs: dict[str, Any]) -> str:
        until = kwargs.get("until") or []
        ends = [until] if isinstance(until, str) else list(until)

        def cut(ids: Sequence[int]) -> str:
            said = self.text.decode(ids)
            places = [place for end in ends if (place := said.find(end)) >= 0]
            return said[: min(places, default=len(said))]

        sampled = kwargs.get("do_sample", float(kwargs.get("temperature") or 0.0) > 0)
        (ids,) = self.predictor.generate(
            self._encoded(before),
            int(kwargs.get("max_gen_toks", MOST)),
            temperature=float(kwargs.get("temperature") or 1.0) if sampled else 0.0,
            stop=lambda ids: len(cut(ids)) < len(self.text.decode(ids)),
        )
        return cut(ids)

    def _encoded(self, text: str) -> Tensor:
        return self.text.encode(text or "\n")


def _true(given: bool | str) -> bool:
    """A switch, typed or passed."""
    return given if isinstance(given, bool) else given.lower() not in ("false", "0", "no")


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except Refusal as refusal:
        sys.exit(f"toyqs: {refusal}")
