"""What thoughts and predictions over a large vocabulary keep for the backward pass, and how long they take.

python bench/vocabulary.py

One row per vocabulary: of the thought head, per thought symbol; of the prediction of one token with
mixing=logits, per thought; megabytes kept, and CPU milliseconds forward and backward on one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.model.layers import Table, TableHead, initialise
from toyqs.model.mixing import Logits
from toyqs.model.thoughts import TokenHead
from toyqs.objectives.rewards import target_log_prob

WIDTH, ROWS = 576, 64  # of SmolLM2-135M; thoughts
SIZES = (65, 1024, 49152)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"{'vocabulary':>10} {'symbol MB':>10} {'ms':>7} {'prediction MB':>14} {'ms':>7}")
    for size in SIZES:
        head = TableHead(Table(1, size, WIDTH, std=0.02))
        mixer, policy = Logits(1, WIDTH, WIDTH), TokenHead(1, WIDTH, size, head)
        for part in (mixer, policy):
            initialise(part, [0])
        hidden = torch.randn(1, 1, ROWS // 2, 2, WIDTH, requires_grad=True)
        base = torch.randn(1, 1, ROWS // 2, WIDTH, requires_grad=True)
        noise, targets = torch.rand(1, 1, ROWS // 2, 2), torch.zeros(1, 1, ROWS // 2, 1, dtype=torch.long)

        symbol = partial(_symbol, policy, hidden, noise)
        prediction = partial(_prediction, mixer, head, base, hidden, targets)
        row = [
            *measured(symbol, head.parameters()),
            *measured(prediction, (*head.parameters(), *mixer.parameters())),
        ]
        print(f"{size:>10} {row[0]:>10.3f} {row[1]:>7.2f} {row[2]:>14.3f} {row[3]:>7.2f}")


def _symbol(policy: TokenHead, hidden: Tensor, noise: Tensor) -> Tensor:
    drawn = policy.draw(hidden, noise, forced=False)
    assert drawn.log_prob is not None and drawn.entropy is not None
    return drawn.log_prob.sum() + drawn.entropy.sum()


def _prediction(mixer: Logits, head: TableHead, base: Tensor, reading: Tensor, targets: Tensor) -> Tensor:
    logits, _ = mixer.predict(head, base, reading)
    return target_log_prob(logits.unsqueeze(-2), targets).sum()


def measured(work: Callable[[], Tensor], parameters: Iterable[Tensor]) -> tuple[float, float]:
    """Megabytes kept for the backward pass and milliseconds of CPU, each per row; parameters not counted."""
    kept: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        kept.append(x)  # held, so that no two of them have one address
        return x

    with saved_tensors_hooks(note, lambda x: x):
        loss = work()
    stores = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
    for parameter in parameters:
        stores.pop(parameter.untyped_storage().data_ptr(), None)
    loss.backward()
    begun = time.process_time()
    for _ in range(3):
        work().backward()
    return sum(stores.values()) / 1e6 / ROWS, (time.process_time() - begun) / 3 / ROWS * 1e3


if __name__ == "__main__":
    main()
