"""One layout for tables as text, Markdown and LaTeX; whatever names hold is shown as it is."""

from __future__ import annotations

import re
import string
import subprocess
from pathlib import Path
from shutil import which

import pytest

from toyqs.evidence.tables.layout import (
    Column,
    in_latex,
    in_markdown,
    latex,
    markdown,
    named,
    plain_text,
    varying,
)

HOSTILE = r"<b>&amp;</b> a|b \\ $x$ 50% #1 {y} ~^ _emph_ *em* `code` [1] \input{/etc/passwd}"
TABLE = [
    Column("", "arm", ["thinking", "zero_length"], left=True),
    Column("NLL", "nats", ["0.170 ± 0.216", "1"]),
    named("policy_loss_beta", ["1", "–"]),
]


def test_plain_text_has_a_rule_below_its_headings() -> None:
    assert plain_text(TABLE) == [
        "                       NLL    policy_",
        "arm                   nats  loss_beta",
        "-------------------------------------",
        "thinking     0.170 ± 0.216          1",
        "zero_length              1          –",
    ]


def test_markdown_is_aligned_in_its_source() -> None:
    assert markdown(TABLE) == [
        "| arm         |      NLL nats | policy_loss_beta |",
        "|:------------|--------------:|-----------------:|",
        "| thinking    | 0.170 ± 0.216 |                1 |",
        "| zero_length |             1 |                – |",
    ]


def test_latex_has_the_rules_of_booktabs() -> None:
    assert latex(TABLE, [1]) == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"             &               NLL &   policy\_ \\",
        r"arm          &              nats & loss\_beta \\",
        r"\midrule",
        r"thinking     & $0.170 \pm 0.216$ &          1 \\",
        r"\addlinespace",
        r"zero\_length &                 1 &         -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_long_rows_of_latex_are_broken_between_words() -> None:
    rows = latex([Column("", "x", [f"{letter * 8} " * 12]) for letter in "abc"])[5:]
    assert max(map(len, rows)) <= 110 and rows[1].startswith("  ") and rows[-3].endswith(r"\\")
    assert " ".join(" ".join(rows[:-2]).split()).count("aaaaaaaa") == 12


def test_latex_obeys_no_name() -> None:
    """Each letter with a meaning of its own is escaped, and nothing but ASCII is left."""
    text = in_latex(HOSTILE + "\x1b[2J\n中文 é ± 1")
    assert text.isascii() and "\n" not in text and "\x1b" not in text
    commands = set(re.findall(r"\\(?:[A-Za-z]+|.)", text))
    named_letters = {"backslash", "asciitilde", "asciicircum", "less", "greater", "bar", "quotedblright"}
    assert commands <= {*(f"\\text{x}" for x in named_letters), *(f"\\{x}" for x in "&%$#_{}"), r"\pm"}
    assert r"\textbackslash{}input\{/etc/passwd\}" in text and "{[}U+4E2D{]}" in text
    bare = re.sub(r"\$\\pm\$|\\(?:text[a-z]+\{\}|[&%$#_{}])|\{[][*]\}", "", text)
    assert not set(bare) & set('\\&%$#_{}~^<>|"[]*')


def test_a_row_that_begins_with_a_bracket_is_no_option_of_the_line_end() -> None:
    rows = latex([Column("", "x", ["[1cm]", "*"], left=True)])[5:7]
    assert rows == [r"{[}1cm{]} \\", r"{*}       \\"]


def test_letters_that_latex_would_join_stay_apart() -> None:
    assert in_latex("a--b---c") == "a-{}-b-{}-{}-c" and in_latex("?`''") == "?{}`'{}'"
    assert in_latex("–") == "--" and in_latex("1–3") == r"1\textendash{}3"


@pytest.mark.skipif(which("pdflatex") is None, reason="needs pdflatex, with the package booktabs")
def test_hostile_names_compile(tmp_path: Path) -> None:
    texts = [HOSTILE, "^^M", "%", "[2cm]", "*", "", "–", "---", "+1.0", "\x1b\nß中文…", *string.printable]
    columns = [Column("a", "b", texts, left=True), Column("", "", texts), Column("#", "[x]", texts)]
    head = ["\\documentclass{article}", "\\usepackage{booktabs}", "\\begin{document}"]
    text = "\n".join([*head, *latex(columns, [1, 2]), "\\end{document}"])
    (tmp_path / "a.tex").write_text(text)
    command = ["pdflatex", "-draftmode", "-halt-on-error", "-interaction=batchmode", "a"]
    assert not subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("text", "shown"),
    [("-0.389 ± 0.227", r"$-0.389 \pm 0.227$"), ("-1.5", "$-1.5$"), ("1.5", "1.5"), ("1-2", "1-2")],
)
def test_numbers_with_a_sign_are_mathematics_in_latex(text: str, shown: str) -> None:
    assert in_latex(text) == shown


def test_markdown_obeys_no_name() -> None:
    shown = in_markdown(HOSTILE + "\x1b\n")
    assert shown.startswith(r"&lt;b&gt;&amp;amp;&lt;/b&gt; a\|b \\\\ \$x\$ 50% \#1 {y} \~^ \_emph\_ \*em\*")
    assert shown.endswith(r"\\x1b\\n") and in_markdown("zero_length") == "zero_length"


def test_columns_that_say_nothing_or_always_the_same_are_left_out() -> None:
    columns = [*TABLE, Column("", "seeds", ["4", "4"]), Column("a", "b", ["–", ""])]
    shown, said = varying([*columns, Column("x", "y", ["1", "1"])], ["x y"])
    assert [column.unit for column in shown] == ["arm", "nats", "loss_beta", "y"]
    assert said == ["seeds 4"]
    alone, said = varying([Column("", "seeds", ["4"]), Column("", "gain", ["–"])])
    assert [column.unit for column in alone] == ["seeds"] and not said
