"""Question finished runs, with their thoughts and without them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from scipy.stats import binomtest

from toyqs.answers import look, metrics, questions, record, say
from toyqs.answers.base_lm import losses
from toyqs.answers.coherence import scores
from toyqs.answers.command import add_measure, temperature
from toyqs.answers.heading import heading
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.loaded.predictor import Predictor
from toyqs.answers.reasoning import baked
from toyqs.answers.speed import latency
from toyqs.answers.thoughts import interventions, language, lengths, probe, theatre, tokens
from toyqs.command_line import Parser, check_file, protected, whole, writing
from toyqs.files import write_json
from toyqs.installation import program

# Modules with `add_to(measures)`.
OTHERS: Sequence[Any] = (
    *(say, look, baked, scores, interventions, language, latency, lengths, losses, probe, record, theatre),
    tokens,
)

EXAMPLES = """\
examples:
  {program} say "To be, or"
  {program} say runs/KEY "To be, or" --tokens 80 --temperature 0
  {program} exact runs/KEY gsm8k_test.jsonl
  {program} exact runs/KEY gsm8k_test.jsonl --steps --texts 5 --temperature 0.7
  {program} choose runs/KEY commonsense_qa.jsonl
  {program} look runs/KEY
  {program} baked runs/KEY --strict
  {program} tokens runs/KEY --against runs/KEY
  {program} latency runs/KEY --target 200
  {program} coherence runs/KEY runs/KEY
  {program} interventions runs/KEY runs/KEY
  {program} language runs/KEY runs/KEY
  {program} lengths runs/KEY runs/KEY2 runs/KEY3 --upto 2L
  {program} losses runs/KEY losses.npy
  {program} probe runs/KEY runs/KEY
  {program} record runs/*
  {program} theatre runs/KEY runs/KEY --against runs/KEY runs/KEY --strict

`{program} MEASURE --help` lists the options of a measure.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return protected("toyqs", lambda: _answer(words), (ValueError,))


def _answer(words: Sequence[str] | None) -> int:
    given = _parser().parse_args(words)
    torch.set_num_threads(given.threads or torch.get_num_threads())
    if given.output is not None:
        check_file(given.output)
    result = given.measure(given)
    if given.output is not None:
        with writing(given.output):
            write_json(given.output, result)
    code: int = given.code(given, result)
    return code


def _parser() -> argparse.ArgumentParser:
    name = program("toyqs.answers")
    parser = Parser(
        prog=name,
        description=__doc__,
        epilog=EXAMPLES.format(program=name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    measures = parser.add_subparsers(title="measures", required=True, metavar="MEASURE")
    exact = add_measure(
        measures, "exact", _exact, "share of questions answered with the right number (GSM8K)"
    )
    exact.add_argument("--steps", action="store_true", help="ask for a chain of thought")
    help_ = "answers per question, of which the majority counts (1)"
    exact.add_argument("--texts", type=whole, default=1, metavar="N", help=help_)
    help_ = "of sampled tokens; 0, the default, takes the likeliest"
    exact.add_argument("--temperature", type=temperature, default=0.0, metavar="T", help=help_)
    exact.add_argument("--most", type=whole, default=256, metavar="N", help="most tokens of an answer (256)")
    choose = add_measure(
        measures, "choose", _choose, "share of questions whose likeliest choice is right (CommonsenseQA)"
    )
    for part in (exact, choose):
        part.add_argument("file", metavar="FILE", help="questions, one JSON object a line")
        part.add_argument("--first", type=whole, metavar="N", help="ask only the first N questions")
    for module in OTHERS:
        module.add_to(measures)
    return parser


def _exact(given: argparse.Namespace, loaded: LoadedRun) -> Any:
    number_questions = questions.number_questions(given.file)[: given.first]
    kwargs = {"steps": given.steps, "texts": given.texts, "temperature": given.temperature}
    results: dict[str, Any] = {}
    for name, predictor in _predictors(loaded):
        attempts, nll = [], []
        for question in number_questions:
            attempts.append(metrics.answer_number(predictor, loaded.text, question, given.most, **kwargs))
            nll.append(-metrics.solution_log_probs(predictor, loaded.text, question))
        if not results:
            _head(loaded, f"{'':18}{'right':>24}{'NLL of the solution, nats a token':>38}")
        right, mean = sum(x.right for x in attempts), float(torch.cat(nll).mean())
        print(f"{name:18}{_share(right, len(attempts)):>24}{mean:38.3f}")
        results[name] = {"right": right, "nll": mean, "questions": [x._asdict() for x in attempts]}
    return results


def _choose(given: argparse.Namespace, loaded: LoadedRun) -> Any:
    choice_questions = questions.choice_questions(given.file)[: given.first]
    results: dict[str, Any] = {}
    for name, predictor in _predictors(loaded):
        picked = [metrics.pick(predictor, loaded.text, question) for question in choice_questions]
        if not results:
            _head(loaded, f"{'':18}{'right, by sum':>24}{'right, by mean a token':>24}")
        right = [sum(x.by_sum for x in picked), sum(x.by_mean for x in picked)]
        print(f"{name:18}" + "".join(f"{_share(count, len(picked)):>24}" for count in right))
        results[name] = {"by_sum": right[0], "by_mean": right[1], "questions": [x._asdict() for x in picked]}
    return results


def _predictors(loaded: LoadedRun) -> Iterator[tuple[str, Predictor]]:
    if loaded.predicts_without_thought:
        yield "without thoughts", loaded.predictor(thinking=False)
    if loaded.thinks:
        yield "with thoughts", loaded.predictor(thinking=True)


def _head(loaded: LoadedRun, columns: str) -> None:
    print(*heading([loaded.folder]), "", columns, sep="\n")


def _share(right: int, total: int) -> str:
    """Write a share with Wilson's 95 % interval."""
    low, high = binomtest(right, total).proportion_ci(method="wilson")
    return f"{right} of {total} ({100 * low:.1f}-{100 * high:.1f} %)"


if __name__ == "__main__":
    sys.exit(main())
