"""What follows from several keys about thoughts, and about the positions that they need."""

from __future__ import annotations

from toyqs.config.keys import Keys
from toyqs.model.latent_heads import HEADS

MARKERS = 2  # start and end, which a thought adds to its symbols

EM_DASH = "\N{EM DASH}"


class ThoughtFacts(Keys):
    """The keys, and what follows from them about thoughts."""

    @property
    def has_thoughts(self) -> bool:
        """Tell whether there are thoughts of one symbol or more."""
        return self.use_reasoner and self.max_reasoning_len > 0

    @property
    def lengths_vary(self) -> bool:
        """Tell whether thoughts may differ in length."""
        return self.has_thoughts and (self.variable_len or self.adaptive_len)

    @property
    def tokens_per_symbol(self) -> int | None:
        """Return how many tokens of a problem make a symbol; None: no problem's length sets a thought's."""
        by_problem = self.has_thoughts and self.adaptive_len and self.adaptive_by == "problem"
        return self.problem_per_symbol if by_problem else None

    @property
    def sets_lengths(self) -> bool:
        """Tell whether the task has what the length of a thought goes by, with adaptive_len."""
        by_problem = self.adaptive_by == "problem"
        return (self.task.problem_length if by_problem else self.task.thought_length) is not None

    @property
    def symbol_kind(self) -> str:
        """Return the kind of a symbol; token where there are none: zero-length thoughts are one run."""
        return HEADS[self.thoughts].kind if self.has_thoughts else "token"

    @property
    def symbols_are_tokens(self) -> bool:
        """Tell whether a symbol is one of a vocabulary, relaxed or not."""
        return self.symbol_kind in ("token", "gumbel")

    @property
    def num_symbols(self) -> int:
        """Return how many symbols a thought may be of, where they are tokens."""
        return self.thought_vocab or self.task.vocab_size

    @property
    def has_cosine_logits(self) -> bool:
        """Tell whether the logits of thought symbols are bounded cosines."""
        bounded = self.thought_logits == "cosine" and not self.random_thoughts
        return bounded and self.has_thoughts and self.symbol_kind == "token"

    @property
    def thinks_everywhere(self) -> bool:
        """Tell whether all positions think, wherever the task says."""
        return self.use_reasoner and self.think_at == "all"

    @property
    def num_thinking(self) -> int:
        """Return how many positions of a sequence think, or may be selected to."""
        everywhere = self.thinks_everywhere
        return self.task.length(self.seq_len) if everywhere else self.task.thinking(self.seq_len)

    @property
    def off_policy(self) -> bool:
        """Tell whether training draws its thoughts from another distribution than the policy."""
        return self.has_thoughts and self.sampler != "policy"

    @property
    def predicts_jointly(self) -> bool:
        """Tell whether a position predicts several tokens from what was read up to it."""
        return self.n_tokens_ahead > 1 and self.ahead == "joint"

    @property
    def num_ahead(self) -> int:
        """Return N, the tokens that each position predicts: 1 without thoughts, but for ahead=joint."""
        return self.n_tokens_ahead if self.use_reasoner or self.predicts_jointly else 1

    @property
    def interpreter_reads_on(self) -> bool:
        """Tell whether the interpreter reads the true tokens after a thought."""
        return self.num_ahead > 1 and self.ahead == "continue"

    @property
    def hands_on(self) -> bool:
        """Tell whether readings are added to base_lm's next inputs."""
        return self.use_reasoner and self.thought_into == "state"

    @property
    def marker_start(self) -> int | None:
        """Return the id of the thought symbol whose embedding the markers start as.

        Where a text has no em dash, the literature's choice, a hyphen takes its place.

        Returns:
            None: they start at random; also where no token has the name given, which the checks refuse.
        """
        given = self.meta_token_init if self.has_thoughts and self.symbols_are_tokens else None
        if not isinstance(given, str):
            return given
        names = self.task.symbols(range(self.task.vocab_size))
        wanted = (given, "-") if given == EM_DASH else (given,)
        return next((names.index(name) for name in wanted if name in names), None)

    @property
    def reads_hints(self) -> bool:
        """Tell whether the run's model, or the one that it learns from, reads hints before sequences."""
        return self.hint_share > 0 or self.stage == "bake"

    @property
    def hint_length(self) -> int:
        """Return how many tokens are read before a sequence."""
        there = self.reads_hints and self.task.hint_length is not None
        return self.task.hint_length(self.seq_len) if there else 0

    @property
    def sequence_length(self) -> int:
        """Return T of the longest sequences, those of training or the held-out ones, with their hints."""
        longest = max(self.task.length(self.seq_len), self.task.held_out_length(self.seq_len))
        return longest + self.hint_length

    @property
    def longest_sequence(self) -> int:
        """Return the positions that a sequence, its longest thought and the tokens ahead need together."""
        length = self.sequence_length
        if not self.use_reasoner:  # a plain model must not depend on settings that are inactive in it
            return length
        return length + self.max_reasoning_len + MARKERS + self.num_ahead

    @property
    def learns_positions(self) -> bool:
        """Tell whether positions are rows of a learned table, whose size is this run's choice."""
        return self.backbone == "gpt2" and self.pretrained is None

    @property
    def num_positions(self) -> int:
        """Return how many positions a transformer knows."""
        given = self.positions_up_to if self.learns_positions else None
        return given or self.longest_sequence
