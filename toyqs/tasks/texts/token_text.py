"""TokenText: the next token of a text, cut by a pretrained model's tokeniser."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from toyqs.assets.pretrained import located
from toyqs.tasks.difficulty import quantile_of
from toyqs.tasks.task import NO_YES, Feature
from toyqs.tasks.texts.tokenised import Cutter, Encoded, cutter_of, encoded, file_version, tokenizer_file
from toyqs.tasks.texts.windows import Windows, is_vowel
from toyqs.types import Batch

SPACES = ("\u0120", "\u2581")  # stand for a space in tokens' names: of byte-level and of other tokenisers


@dataclass
class TokenText(Windows):
    """Predict each next token of a corpus; every think_every-th position thinks.

    With think_every=4 and seq_len=8 the positions 3 and 7 think. NLL is trained and measured only at the
    positions that think; n_tokens_ahead=N lets each of them predict N tokens.

    Splits: the last held_out_fraction of the tokens is held out, from the beginning of a document on if
    there are several, and windows are as `Windows` says. A window may hold several documents.
    """

    name: ClassVar[str] = "token_text"
    summary: ClassVar[str] = (
        "the next token of a text, cut as a pretrained model does: task.path=FILE pretrained=FOLDER"
    )

    path: str | None = None  # a UTF-8 text file; or a .jsonl of questions and answers, or of texts
    dataset: str | None = None  # of the Hugging Face hub: owner/name or owner/name:part
    tokenizer: str | None = None  # the checkpoint whose tokeniser cuts the text; None: that of pretrained
    thinking_tokens: bool = False  # true: eight tokens such as <think> are added, each with a row of its own
    held_out_fraction: float = 0.1  # the part of the corpus, its end, that is never trained on
    think_every: int = 1  # one of how many positions thinks
    curriculum: float = 0.0  # share of training over which harder windows come in; 0: off
    levels: int = 4  # how many lengths thoughts have with adaptive_len, each at as many positions
    losses: str | None = None  # a base LM's at every token, of `toyqs.answers losses`; None: those of counts

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work; reads the corpus, and may download it.

        Args:
            seq_len: T, tokens per sequence.

        Raises:
            ValueError: one line that names the key as typed and the remedy.
        """
        self.check_fraction()
        self.check_difficulty()
        if not 1 <= self.think_every <= seq_len:
            raise ValueError(
                f"task.think_every={self.think_every}: leaves no position of seq_len={seq_len} to think; "
                f"give 1 to {seq_len}"
            )
        self.check_lengths(seq_len)

    def with_tokenizer(self, checkpoint: str) -> TokenText:
        """Return the task with a checkpoint's tokeniser, unless task.tokenizer is given."""
        return self if self.tokenizer is not None else replace(self, tokenizer=checkpoint)

    @property
    def given(self) -> str:
        """Return the setting that names the text, as typed."""
        return f"task.dataset={self.dataset}" if self.path is None else f"task.path={self.path}"

    @property
    def _folder(self) -> Path:
        if self.tokenizer is None:
            raise ValueError(
                "task=token_text: cuts a text as a checkpoint does, and none is given; give pretrained=FOLDER"
                " or task.tokenizer=FOLDER"
            )
        return located(self.tokenizer, "task.tokenizer")

    @property
    def _cutter(self) -> Cutter:
        folder = self._folder
        return cutter_of(folder, _config(folder).get("vocab_size", 0), self.thinking_tokens)

    @property
    def _corpus(self) -> Encoded:
        if (self.path is None) == (self.dataset is None):
            raise ValueError(
                "task=token_text: needs one corpus; give either task.path=FILE or task.dataset=OWNER/NAME"
            )
        version = None if self.path is None else file_version(self.path)
        corpus = encoded(self.path, self.dataset, self._cutter, version, self.ends[:1])
        highest = int(corpus.ids.max()) if len(corpus.ids) else 0
        if highest >= self.vocab_size:
            raise ValueError(
                f"task.tokenizer={self.tokenizer}: puts a token {highest} into the text, and has only "
                f"{self.vocab_size} (is it eos_token_id in config.json?); give another checkpoint"
            )
        return corpus

    @property
    def ids(self) -> Tensor:
        """Return the whole corpus, (number of tokens,) int32."""
        return self._corpus.ids

    @property
    def border(self) -> int:
        """Return how many ids are for training: up to the beginning of a document if one follows."""
        ids, starts, _ = self._corpus
        least = len(ids) - round(self.held_out_fraction * len(ids))
        later = starts[starts >= least]
        return int(later[0]) if len(later) else least

    @property
    def vocab_size(self) -> int:
        """Return V: that of the checkpoint's model, maybe more than the tokeniser's, and `added_tokens`."""
        return self._cutter.size

    @property
    def added_tokens(self) -> int:
        """Return how many thinking tokens the tokeniser lacks, where they are added."""
        return self._cutter.added if self.thinking_tokens else 0

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the ids with which the checkpoint ends a text; the first stands after each document.

        Those of its config.json come first, then those that only its generation_config.json has.
        """
        found: list[Any] = []
        for name in ("config.json", "generation_config.json"):
            says = _config(self._folder, name) if (self._folder / name).is_file() else {}
            given = says.get("eos_token_id")
            found += given if isinstance(given, list) else [given]
        return tuple(dict.fromkeys(x for x in found if isinstance(x, int)))

    @property
    def line_ends(self) -> Tensor:
        """Return which tokens hold a line feed or end a text, (V,) bool."""
        found = torch.tensor(["\\n" in name for name in _names(self._folder, self.vocab_size)])
        found[list(self.ends)] = True
        return found

    def identity(self) -> dict[str, str | float]:
        """Return what the data depend on: the tokens themselves, wherever the file is, and the split."""
        digest = hashlib.sha256(self.ids.numpy().tobytes()).hexdigest()
        knobs = {"held_out_fraction": self.held_out_fraction, "think_every": self.think_every, **self.knobs()}
        knobs |= {"thinking_tokens": True} if self.thinking_tokens else {}
        return {"sha256": digest, "border": self.border, "vocab_size": self.vocab_size, **knobs}

    def vocabulary(self) -> str:
        """Return a hash of the tokeniser, and of what the checkpoint says about its tokens."""
        says: dict[str, Any] = {"vocab_size": _config(self._folder).get("vocab_size"), "ends": self.ends}
        says |= {"added": self.added_tokens} if self.thinking_tokens else {}
        content = tokenizer_file(self._folder).read_bytes() + json.dumps(says, sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()[:16]

    def with_vocabulary(self, vocabulary: str) -> TokenText:
        """Return the task, whose tokeniser must be the one that the run was trained with.

        Raises:
            ValueError: one line with both hashes.
        """
        if vocabulary != (now := self.vocabulary()):
            raise ValueError(
                f"task.tokenizer={self.tokenizer}: has changed since the run was trained: its hash was "
                f"{vocabulary} and is {now}; put back what was there"
            )
        return self

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw windows as `Windows` does, thinking at every think_every-th position."""
        batch = super().sample(generator, batch_size, seq_len, split, progress)
        places = torch.arange(1, seq_len + 1) % self.think_every == 0
        return batch._replace(think=batch.think & places)

    def _solution(self, places: Tensor) -> Tensor | None:
        """Return how long the answer of the document at each place of the corpus is, in tokens.

        Args:
            places: (…) long, numbers of ids.

        Returns:
            (…) long; None where documents are no questions with answers, or a file says what is difficult.
        """
        _, starts, answers = self._corpus
        if answers is None or self.losses is not None:
            return None
        return answers[torch.searchsorted(starts, places, right=True) - 1]

    def difficulty(self) -> Tensor:
        """Return how difficult each id of the training text is: of problems by the length of the solution."""
        solution = self._solution(torch.arange(self.border))
        return super().difficulty() if solution is None else solution.double()

    def given_lengths(self, split: str, places: Tensor) -> Tensor | None:
        """Return how long thoughts are, of problems by quantiles of the length of the solution."""
        solution = self._solution(places if split == "train" else places + self.border)
        if solution is None:
            return super().given_lengths(split, places)
        training = self._solution(torch.arange(self.border))
        assert training is not None
        return 1 + quantile_of(solution, training, self.levels).unsqueeze(0)

    def given_problems(self, split: str, places: Tensor) -> Tensor | None:
        """Return how much of a document's question has been read at each place, where documents are such.

        In the answer that is the whole question, "Answer:" included, in tokens.
        """
        ids, starts, answers = self._corpus
        if answers is None:
            return None
        length = torch.cat([starts, torch.tensor([len(ids)])]).diff() - len(self.ends[:1])
        places = places if split == "train" else places + self.border
        document = torch.searchsorted(starts, places, right=True) - 1
        read = places - starts[document] + 1
        return read.minimum((length - answers)[document]).unsqueeze(0)

    def encode(self, text: str) -> Tensor:
        """Return the ids (n,) long of a text's tokens."""
        ((ids, _),) = self._cutter.cut([text])
        return torch.tensor(ids, dtype=torch.long)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids."""
        return self._cutter.text(ids)

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return whether the next token begins with a space, and what comes first in it after spaces.

        "vowel" and "letter" say whether that is one. The token itself is no feature: there are too many.
        """
        table = _beginnings(self._cutter)[:, batch.targets]
        names = ("space", "vowel", "letter")
        return {name: Feature(values, 2, NO_YES) for name, values in zip(names, table, strict=True)}

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the texts of token ids; what cannot be printed as Python escapes it."""
        names = _names(self._cutter)
        return [names[i] for i in ids]


@functools.lru_cache(maxsize=4)
def _names(cutter: Cutter) -> list[str]:
    return [repr(text)[1:-1] for text in cutter.texts()]


@functools.lru_cache(maxsize=4)
def _beginnings(cutter: Cutter) -> Tensor:
    """Return whether each token begins with a space, then a vowel, then a letter, (3, V) long."""
    # A tokeniser may drop the space of a text's first token, which only the token's own name then shows.
    texts, names = cutter.texts(), cutter.names()
    spaces = [text[:1].isspace() or name[:1] in SPACES for text, name in zip(texts, names, strict=True)]
    first = [text.lstrip()[:1] for text in texts]
    return torch.tensor([spaces, [is_vowel(x) for x in first], [x.isalpha() for x in first]]).long()


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ValueError(f"task.tokenizer={folder}: its {name} is damaged; give another checkpoint")
    return config
