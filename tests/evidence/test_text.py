"""Numbers as people read them: those of a run that blew up stay short."""

from __future__ import annotations

import io
import math
import re

import pandas as pd
import pytest

from tests.evidence.tables.test_comparison import arm, arms, finding
from toyqs.evidence.tables.comparison import comparison_table
from toyqs.evidence.tables.sweep import sweep_table
from toyqs.evidence.text import csv_text, short, task_words


@pytest.mark.parametrize(
    ("number", "form", "text"),
    [
        (996304608256.0, ".3f", "9.96e+11"),
        (-996304608256.0, "+.3f", "-9.96e+11"),
        (996304608256.0, "+.3f", "+9.96e+11"),
        (9999.9, ".3f", "9999.900"),
        (1e4, ".3f", "1e+04"),
        (0.5, "+.3f", "+0.500"),
        (1e300, ".1f", "1e+300"),
        (math.nan, ".3f", "nan"),
        (math.inf, "+.3f", "+inf"),
        (-0.004, ".2f", "0.00"),
        (-0.004, "+.2f", "-0.00"),
        (-0.006, ".2f", "-0.01"),
    ],
)
def test_a_number_is_short_and_nothing_is_not_below_0(number: float, form: str, text: str) -> None:
    assert short(number, form) == text


def test_tables_of_a_run_that_blew_up_are_readable() -> None:
    thoughts = {"nll_shuffled": 3e30, "nll_no_thought": 2e30, "thought_entropy": 1e9, "information": 1e20}
    blown = arms(
        thinking=arm([996304608256.0, 1e30, 2.0, 1e12], **thoughts, information_shuffled=-1e22, started=True)
    )
    tables = [comparison_table(finding(blown)), sweep_table([finding(blown), finding(arms())], [])]
    assert not any(re.search(r"\d{12}", table) for table in tables)
    assert max(map(len, tables[0].splitlines())) <= 110
    assert "2.5e+29 ± " in tables[0] and "2e+30 without a thought" in tables[0].replace("\n", " ")
    assert " -1.05e+30 to +5.46e+29 " in tables[0]


def test_a_diverged_seed_is_no_number() -> None:
    assert "diverged" in sweep_table([finding({"no_reasoner": arm([math.nan])})], [])


def test_the_task_s_seed_is_not_taken_for_a_run_s() -> None:
    settings = {"task": "rev_prog", "task.p": 6, "task.seed": 0, "task.path": "a/b.txt", "seed": 3}
    assert task_words(settings) == "rev_prog p=6 task.seed=0 path=b.txt"


def test_a_csv_holds_numbers_as_they_are_and_no_formula() -> None:
    texts = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "-1.5", "+2", "", "x=1", None]
    table = pd.DataFrame({"=t": texts, "n": range(-5, 6), "i": pd.array([-1] * 10 + [None], "Int64")})
    read = pd.read_csv(io.StringIO(csv_text(table)), keep_default_na=False, lineterminator="\n")
    assert list(read["'=t"]) == ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "'\rx", "-1.5", "+2", "", "x=1", ""]
    assert list(read["n"]) == [*range(-5, 6)] and list(read["i"]) == ["-1"] * 10 + [""]
