"""Write sums with their worked solutions, as a corpus of questions with answers, and a tokeniser for them."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, path_of, run, whole, writing
from toyqs.files import write_text

DESCRIPTION = """\
Write FOLDER/problems.jsonl, a corpus like GSM8K whose steps are true by rule, and a tokeniser of whole words
beside it. A question is a chain of 1 to STEPS additions and subtractions of digits; its answer says the value
after each of them, modulo 10. Train on it with
  python run.py task=token_text task.path=FOLDER/problems.jsonl task.tokenizer=FOLDER"""
END = "<end>"
WORDS = (END, "Question", "Answer", ":", "+", "-", *map(str, range(10)))


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    parser = Parser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=path_of, help="where both are written")
    parser.add_argument("--number", type=whole, default=6000, help="problems; without this %(default)s")
    parser.add_argument("--steps", type=whole, default=6, help="of the longest; without this %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the draw; without this %(default)s")
    return run(_work, parser, words)


def _work(options: argparse.Namespace) -> None:
    problems = draw_problems(options.number, options.steps, options.seed)
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in problems]
    with writing(options.folder, "FOLDER"):
        options.folder.mkdir(parents=True, exist_ok=True)
        write_text(options.folder / "problems.jsonl", "\n".join(lines) + "\n")
        write_text(options.folder / "config.json", json.dumps({"vocab_size": len(WORDS), "eos_token_id": 0}))
        write_text(options.folder / "tokenizer.json", json.dumps(tokenizer()))
    print(f"{len(lines)} problems {options.folder / 'problems.jsonl'}", flush=True)


def draw_problems(number: int, steps: int, seed: int) -> list[tuple[str, str]]:
    """Draw questions with their answers, such as "4 + 7 - 3" with "1 8".

    Args:
        number: of problems.
        steps: the most additions and subtractions; 1 to so many are equally likely.
        seed: of the draw.
    """
    source, problems = random.Random(f"worked problems/{seed}"), []
    for _ in range(number):
        value = source.randrange(10)
        question, answer = [str(value)], []
        for _ in range(source.randint(1, steps)):
            sign, digit = source.choice("+-"), source.randrange(10)
            value = (value + digit if sign == "+" else value - digit) % 10
            question += [sign, str(digit)]
            answer.append(str(value))
        problems.append((" ".join(question), " ".join(answer)))
    return problems


def tokenizer() -> dict[str, object]:
    """Return a tokeniser whose tokens are WORDS, in the format of the package tokenizers."""
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    return {
        "version": "1.0",
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": END},
    }


if __name__ == "__main__":
    sys.exit(main())
