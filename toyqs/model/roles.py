"""The four roles and the fifteen ways in which they can share weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

ROLES = ("base_lm", "base_reasoner", "reasoner", "interpreter")

Part = TypeVar("Part")


class WeightGroups(NamedTuple):
    """The partition of the roles into cores: one letter per role, in the order of ROLES, the first is A."""

    label: str

    @classmethod
    def parse(cls, letters: Sequence[str]) -> WeightGroups:
        """Rename four letters so that equal partitions are equal: ["B", "A", "A", "C"] -> ABBC.

        Raises:
            ValueError: not exactly four single letters.
        """
        if len(letters) != len(ROLES) or not all(len(x) == 1 and x.isalpha() for x in letters):
            given = ",".join(map(str, letters))
            raise ValueError(
                f"weight_groups=[{given}]: needs four single letters, one each for {', '.join(ROLES)}; "
                "give for example weight_groups=[A,B,C,D]"
            )
        canonical = {letter: "ABCD"[i] for i, letter in enumerate(dict.fromkeys(letters))}
        return cls("".join(canonical[letter] for letter in letters))

    def letter(self, role: str) -> str:
        """Return the letter of one of ROLES."""
        return self.label[ROLES.index(role)]


def check_widths(groups: WeightGroups, widths: Mapping[str, int]) -> None:
    """Refuse a letter whose roles have two widths.

    Args:
        groups: the roles' letters.
        widths: hidden width of each role in use.

    Raises:
        ValueError: naming both roles and both widths.
    """
    for other, role in _unequal(groups, widths):
        raise ValueError(
            f"weight_groups={groups.label}: {other} and {role} share {groups.letter(role)} but are "
            f"{widths[other]} and {widths[role]} wide; give both one width or {role} another letter"
        )


def check_rates(groups: WeightGroups, rates: Mapping[str, float]) -> None:
    """Refuse a letter whose roles have two learning rates.

    Args:
        groups: the roles' letters.
        rates: of each role in use.

    Raises:
        ValueError: naming both roles and both rates.
    """
    for other, role in _unequal(groups, rates):
        raise ValueError(
            f"weight_groups={groups.label}: {other} and {role} share {groups.letter(role)} but learn at "
            f"{rates[other]:g} and {rates[role]:g}; give both one rate or {role} another letter"
        )


def _unequal(groups: WeightGroups, values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of roles, the first of a letter and another, that have two values."""
    first: dict[str, str] = {}
    for role in (role for role in ROLES if role in values):
        other = first.setdefault(groups.letter(role), role)
        if values[other] != values[role]:
            yield other, role


def tie(
    groups: WeightGroups,
    widths: Mapping[str, int],
    used: Collection[str],
    make: Callable[[int, list[str]], Part],
) -> dict[str, Part]:
    """Make one part per letter in use.

    Args:
        groups: the roles' letters.
        widths: hidden width of each role.
        used: the roles of this run; a letter of other roles alone gets no part.
        make: width and the roles that share it -> part.

    Raises:
        ValueError: a letter's roles have two widths.
    """
    check_widths(groups, {role: widths[role] for role in used})
    members: dict[str, list[str]] = {}
    for role in (role for role in ROLES if role in used):
        members.setdefault(groups.letter(role), []).append(role)
    return {letter: make(widths[roles[0]], roles) for letter, roles in members.items()}
