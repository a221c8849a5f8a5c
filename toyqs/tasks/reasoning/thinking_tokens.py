"""Eight tokens that mark reasoning in a text: where it begins and ends, and what a part of it does."""

from __future__ import annotations

THINK, END_OF_THINK, STEP, REASON, MECE, FALSIFY, EXPERT, DOUBT = THINKING_TOKENS = (
    *("<think>", "</think>", "<step>", "<reason>"),
    *("<mece>", "<falsify>", "<expert>", "<doubt>"),
)
