"""Reasoning: texts that solve generated problems in steps, each by the strategy that fits."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.reasoning import vocabulary
from toyqs.tasks.reasoning.corpus import Text, corpus, held_out
from toyqs.tasks.task import Task, check_amount, check_split
from toyqs.types import Batch

LENGTH, RESPONSE = 89, 58  # words of the longest text with its end, and of the longest response with it


@dataclass
class Reasoning(Task):
    """Predict each word of a response to a problem: reasoning between <think> and </think>, then the answer.

    There are seven kinds of problems, each solved by one strategy: chain of thought, MECE decomposition,
    falsification, expert perspective, analogy, self-doubt, Bayesian update; and prompts that mix two of them.
    No prompt says which strategy fits. Training draws from a corpus of 8 task.texts + task.mixed different
    texts; held-out problems are drawn without end, and one in five contents is theirs alone: the same numbers
    are not trained on with other names. Every step is true, and a prompt determines its response, so the
    Bayes NLL is 0.

    A sequence is a prompt, its response, <end> and pads, T = 88. The positions that a word of the response or
    its end follows count; 58 think, as many as in the longest response, these among them. Names are words,
    numbers 0 … 46 too; the last eight ids are the thinking tokens.

    >>> task = Reasoning()
    >>> text = next(x for x in task.corpus if x.kind == "falsification")
    >>> text.prompt
    'claim : all of 3 4 1 1 are below 5 . true ?'
    >>> text.response.partition(" <reason>")[0]
    '<think> <falsify> 3 is below 5 <falsify> 4 is below 5 <falsify> 1 is below 5 <falsify> 1 is below 5'
    >>> text.response.partition(" <reason>")[2]
    ' none breaks it </think> answer true'
    >>> task.decode(task.encode(text.prompt).tolist()) == text.prompt, len(task.corpus)
    (True, 1800)
    """

    name: ClassVar[str] = "reasoning"
    summary: ClassVar[str] = "texts that reason about generated problems by the strategy that fits"
    num_steps: ClassVar[int] = 2000
    more_groups: ClassVar[str] = "task.texts"

    texts: int = 200  # of each strategy; of chain of thought twice as many
    mixed: int = 200  # of two problems
    seed: int = 0  # draws the corpus

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        for key, least in (("texts", 1), ("mixed", 0)):
            if (value := getattr(self, key)) < least:
                raise ValueError(f"task.{key}={value}: is too small; give task.{key}={least} or more")
            check_amount(f"task.{key}={value}", value)
        _ = self.corpus

    @property
    def corpus(self) -> tuple[Text, ...]:
        """Return the texts of the training.

        Raises:
            ValueError: one line; there are not so many different ones.
        """
        return corpus(self.texts, self.mixed, self.seed)

    @property
    def vocab_size(self) -> int:
        """Return V, the number of words."""
        return len(vocabulary.WORDS)

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the id of <end>, which ends a response."""
        return (vocabulary.IDS[vocabulary.END],)

    def length(self, seq_len: int) -> int:
        """Return T, whatever `seq_len`: the longest text has room."""
        return LENGTH - 1

    def thinking(self, seq_len: int) -> int:
        """Return how many positions think: as many as the longest response has words, with its end."""
        return RESPONSE

    def floor(self) -> float:
        """Return the Bayes NLL: 0, as a prompt determines its response."""
        return 0.0

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw texts of the corpus, or held-out ones; see `Task.sample`."""
        check_split(split)
        if split == "train":
            rows, starts = _training_rows(self.texts, self.mixed, self.seed)
            chosen = torch.randint(len(rows), (batch_size,), generator=generator)
            rows, starts = rows[chosen], starts[chosen]
        else:
            rng = Random(int(torch.randint(2**62, (), generator=generator)))
            rows, starts = _rows([held_out(rng, self.texts, self.mixed) for _ in range(batch_size)])
        inputs, targets = rows[:, :-1].unsqueeze(0), rows[:, 1:].unsqueeze(0)
        places, first = torch.arange(LENGTH - 1), starts.unsqueeze(1) - 1  # which predicts the first word
        window = first.clamp(max=LENGTH - 1 - RESPONSE)
        think = ((places >= window) & (places < window + RESPONSE)).unsqueeze(0)
        counts = (places >= first) & (targets != vocabulary.IDS[vocabulary.PAD])
        return Batch(inputs.contiguous(), targets * counts, counts.float(), think)

    def encode(self, text: str) -> Tensor:
        """Return the ids (n,) long of a text's words.

        Raises:
            ValueError: one line with a word that no text has.
        """
        return torch.tensor(vocabulary.encode(text), dtype=torch.long)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, a blank between words."""
        return vocabulary.decode(ids)

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the words of token ids."""
        return [vocabulary.WORDS[i] for i in ids]


@functools.lru_cache(maxsize=4)
def _training_rows(texts: int, mixed: int, seed: int) -> tuple[Tensor, Tensor]:
    return _rows(corpus(texts, mixed, seed))


def _rows(texts: Iterable[Text]) -> tuple[Tensor, Tensor]:
    """Return texts as ids, padded, (n, T + 1) long, and where each one's response begins, (n,) long."""
    rows, starts = [], []
    end, pad = vocabulary.IDS[vocabulary.END], vocabulary.IDS[vocabulary.PAD]
    for text in texts:
        prompt, response = vocabulary.encode(text.prompt), [*vocabulary.encode(text.response), end]
        row = prompt + response
        assert len(row) <= LENGTH and len(response) <= RESPONSE
        rows.append(row + [pad] * (LENGTH - len(row)))
        starts.append(len(prompt))
    return torch.tensor(rows), torch.tensor(starts)
