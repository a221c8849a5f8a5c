"""Weight groups: fifteen patterns, canonical letters, one width to a letter."""

from __future__ import annotations

import pytest

from tests.tiny import PATTERNS
from toyqs.model.roles import ROLES, WeightGroups, check_widths, tie

WIDTHS = dict.fromkeys(ROLES, 3)


@pytest.mark.parametrize(
    ("letters", "label"),
    [
        ("BAAC", "ABBC"),
        ("BAAA", "ABBB"),
        ("ABCD", "ABCD"),
        ("DCBA", "ABCD"),
        ("ZZZZ", "AAAA"),
        ("BABA", "ABAB"),
    ],
)
def test_letters_become_canonical(letters: str, label: str) -> None:
    assert WeightGroups.parse(list(letters)).label == label


@pytest.mark.parametrize("letters", [["A"], list("ABCDE"), ["A", "B", "C", "1"], ["A", "B", "C", "DD"], []])
def test_anything_else_is_refused(letters: list[str]) -> None:
    with pytest.raises(ValueError, match=r"weight_groups=\[.*\]: needs four single letters"):
        WeightGroups.parse(letters)


def test_there_are_fifteen_patterns() -> None:
    assert len(PATTERNS) == 15 and (PATTERNS[0], PATTERNS[-1]) == ("AAAA", "ABCD")
    assert [WeightGroups.parse(label).label for label in PATTERNS] == PATTERNS


def test_a_role_knows_its_letter() -> None:
    groups = WeightGroups.parse(["B", "A", "A", "C"])
    assert [groups.letter(role) for role in ROLES] == ["A", "B", "B", "C"]


def test_a_letter_of_two_widths_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"weight_groups=ABCA: base_lm and interpreter share A but are 3 and 5"
    ):
        check_widths(WeightGroups("ABCA"), WIDTHS | {"interpreter": 5})
    check_widths(WeightGroups("ABCD"), WIDTHS | {"interpreter": 5})
    check_widths(WeightGroups("ABCA"), {"interpreter": 5, "reasoner": 3})  # base_lm is not in use


def test_tie_makes_one_part_for_each_letter_in_use() -> None:
    made = tie(WeightGroups("ABBC"), WIDTHS | {"interpreter": 5}, ROLES, lambda width, roles: (width, roles))
    assert made == {"A": (3, ["base_lm"]), "B": (3, ["base_reasoner", "reasoner"]), "C": (5, ["interpreter"])}
    made = tie(WeightGroups("ABBC"), WIDTHS, ["interpreter", "reasoner"], lambda width, roles: (width, roles))
    assert made == {"B": (3, ["reasoner"]), "C": (3, ["interpreter"])}


def test_tie_refuses_two_widths() -> None:
    with pytest.raises(ValueError, match="share A"):
        tie(WeightGroups("AAAA"), WIDTHS | {"base_lm": 4}, ROLES, lambda width, roles: None)
