"""Which strategies a response follows, recognised by rule: each has a form of its own in tokens and words."""

from __future__ import annotations

import re
from typing import NamedTuple

from toyqs.tasks.reasoning.thinking_tokens import (
    DOUBT,
    END_OF_THINK,
    EXPERT,
    FALSIFY,
    MECE,
    REASON,
    STEP,
    THINK,
    THINKING_TOKENS,
)

N, WORD = r"\d+", r"[a-z]+"
EQUATION = rf"{N} (?:plus|minus|times) {N} is {N}"

# Strategy -> its whole form: what has only the token, or only a part of the form, does not follow it.
FORMS = {
    "chain_of_thought": rf"(?:{STEP} {EQUATION} ?){{2,}}",
    "mece": rf"(?:{MECE} {WORD} : {EQUATION} ){{2,}}{REASON} none twice none left : {EQUATION}",
    "falsification": rf"(?:{FALSIFY} {N} is [a-z0-9 ]+ )+{REASON} (?:{N}|none) breaks it",
    "expert": rf"{EXPERT} {WORD} : (?:{WORD} )+(?:{REASON} {EQUATION} ?)+",
    "analogy": rf"{REASON} like {N} seats in a ring : [a-z0-9 ]+ (?:{REASON} {EQUATION} )+"
    rf"{REASON} seat {N} is {N}",
    "self_doubt": rf"(?:{REASON} try {N} {DOUBT} {EQUATION} , {EQUATION} , [a-z ]+ )*"
    rf"{REASON} try {N} {DOUBT} {EQUATION} , {EQUATION} , right",
    "bayes": rf"{REASON} before : {N} to {N} (?:{REASON} {EQUATION} ){{2,}}{REASON} after : {N} to {N}",
}
_FORMS = {name: re.compile(rf"(?<!\S){form}(?!\S)") for name, form in FORMS.items()}
_TOKEN = re.compile("|".join(map(re.escape, THINKING_TOKENS)))
_EQUATION = re.compile(rf"(?<!\S)({N}) (plus|minus|times) ({N}) is ({N})(?!\S)")


class Response(NamedTuple):
    """What a response says, apart from the reasoning itself."""

    thinks: bool  # it begins with <think>, ends that with </think>, and has another thinking token in between
    strategies: tuple[str, ...]  # whose forms are in what it thinks, in that order
    equations: int  # that it states
    true_equations: int
    answer: str | None  # the words after the reasoning; None: it gives no answer there


def read(response: str) -> Response:
    """Read a response by rule.

    Args:
        response: what follows the prompt, up to the end of the text; words stand apart, and thinking tokens
            may touch other words.
    """
    text = " ".join(_TOKEN.sub(lambda token: f" {token[0]} ", response).split())
    before, _, rest = text.partition(THINK)
    reasoning, closes, after = ("" if before else rest).partition(END_OF_THINK)
    reasoning = reasoning.strip()
    found = sorted((x.start(), name) for name, form in _FORMS.items() for x in form.finditer(reasoning))
    stated = [_is_true(*x.groups()) for x in _EQUATION.finditer(text)]
    says, mark, answer = after.partition("answer ")
    return Response(
        thinks=bool(closes and _TOKEN.search(reasoning)),
        strategies=tuple(name for _, name in found),
        equations=len(stated),
        true_equations=sum(stated),
        answer=answer.strip() if mark and not says.strip() else None,
    )


def _is_true(a: str, sign: str, b: str, said: str) -> bool:
    x, y = int(a), int(b)
    return {"plus": x + y, "minus": x - y, "times": x * y}[sign] == int(said)
