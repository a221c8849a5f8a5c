"""`python -m toyqs.answers --help`: what a finished run answers, with its thoughts and without them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

from toyqs.answers import metrics, questions
from toyqs.answers.load import LoadedRun, load
from toyqs.answers.predictor import Predictor
from toyqs.files import write_json

EXAMPLES = """\
python -m toyqs.answers exact runs/KEY gsm8k_test.jsonl          answers whose number is right
python -m toyqs.answers exact runs/KEY gsm8k_test.jsonl --steps --texts 5 --temperature 0.7
python -m toyqs.answers choose runs/KEY commonsense_qa.jsonl     choices by log-likelihood
python -m toyqs.answers tokens runs/KEY                          gain token by token on held-out text
python -m toyqs.answers latency runs/KEY                         seconds per token
"""


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    given = _parser().parse_args(words)
    torch.set_num_threads(given.threads or torch.get_num_threads())
    try:
        _check_folder(given.output)
        loaded = load(given.run, given.device, given.seed)
        found = given.measure(given, loaded)
        if given.output is not None:
            write_json(given.output, found)
    except ValueError as error:
        print(f"toyqs: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toyqs.answers",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(required=True, metavar="MEASURE")
    exact = parts.add_parser("exact", help="share of questions whose number is right (GSM8K's format)")
    exact.add_argument("--steps", action="store_true", help="ask for a chain of thought")
    exact.add_argument("--texts", type=_count, default=1, help="answers to a question; the majority counts")
    exact.add_argument(
        "--temperature", type=_temperature, default=0.0, help="of the tokens; 0: the likeliest"
    )
    exact.add_argument("--most", type=_count, default=256, help="tokens of an answer (256)")
    choose = parts.add_parser("choose", help="share of questions whose likeliest choice is right")
    tokens = parts.add_parser("tokens", help="NLL by deciles of the NLL without thoughts")
    tokens.add_argument("--count", type=_count, default=10_000, help="tokens of held-out text (10,000)")
    latency = parts.add_parser("latency", help="seconds per token, median and 95th percentile")
    latency.add_argument("--tokens", type=_count, default=50, help="tokens that are timed (50)")
    kinds: list[tuple[argparse.ArgumentParser, Callable[..., Any], bool]] = [
        *((exact, _exact, True), (choose, _choose, True), (tokens, _tokens, False)),
        (latency, _latency, False),
    ]
    for part, measure, asks in kinds:
        part.add_argument("run", metavar="RUN", help="the folder of a finished run, runs/KEY")
        if asks:
            part.add_argument("file", metavar="FILE", help="questions, one JSON object a line")
            part.add_argument("--first", type=_count, help="so many questions alone")
        part.add_argument("-o", "--output", metavar="FILE", help="write all of it as JSON too")
        part.add_argument("--seed", type=int, default=0, help="of thoughts and sampled tokens (0)")
        part.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
        part.add_argument("--threads", type=_count, help="of the CPU; all")
        part.set_defaults(measure=measure)
    return parser


def _exact(given: argparse.Namespace, loaded: LoadedRun) -> Any:
    asked = questions.sums(given.file)[: given.first]
    kwargs = {"steps": given.steps, "texts": given.texts, "temperature": given.temperature}
    found: dict[str, Any] = {}
    print(f"{'':18}{'right':>24}{'NLL of the solution, nats a token':>38}")
    for name, predictor in _predictors(loaded):
        attempts, nll = [], []
        for one in asked:
            attempts.append(metrics.answer_number(predictor, loaded.text, one, given.most, **kwargs))
            nll.append(-metrics.solution_log_probs(predictor, loaded.text, one))
        right, mean = sum(x.right for x in attempts), float(torch.cat(nll).mean())
        print(f"{name:18}{_share(right, len(asked)):>24}{mean:38.3f}")
        found[name] = {"right": right, "nll": mean, "questions": [x._asdict() for x in attempts]}
    return found


def _choose(given: argparse.Namespace, loaded: LoadedRun) -> Any:
    asked = questions.choices(given.file)[: given.first]
    found: dict[str, Any] = {}
    print(f"{'':18}{'right, by sum':>24}{'right, by mean a token':>24}")
    for name, predictor in _predictors(loaded):
        picked = [metrics.pick(predictor, loaded.text, one) for one in asked]
        right = [sum(x.by_sum for x in picked), sum(x.by_mean for x in picked)]
        print(f"{name:18}" + "".join(f"{_share(count, len(asked)):>24}" for count in right))
        found[name] = {"by_sum": right[0], "by_mean": right[1], "questions": [x._asdict() for x in picked]}
    return found


def _tokens(given: argparse.Namespace, loaded: LoadedRun) -> Any:
    if not loaded.thinks:
        raise ValueError(f"{given.run}: this run has no thoughts whose gain could be measured")
    if not loaded.predicts_without_thought:
        raise ValueError(f"{given.run}: this run has no prediction without a thought to compare with")
    without, having = (
        torch.cat(
            [-predictor.score(before, after).log_probs for before, after in loaded.held_out(given.count)]
        )
        for _, predictor in _predictors(loaded)
    )
    print(f"{'tenth':>5}{'tokens':>9}{'without':>10}{'with':>10}{'gain':>10}   nats a token")
    deciles = metrics.by_decile(without, having)
    for number, decile in enumerate(deciles, start=1):
        print(f"{number:5d}{_row(decile)}")
    whole = metrics.by_decile(without, having, parts=1)[0]
    print(f"{'all':>5}{_row(whole)}")
    return {"all": whole._asdict(), "tenths": [x._asdict() for x in deciles]}


def _row(part: metrics.Decile) -> str:
    return f"{part.tokens:9d}{part.without:10.3f}{part.with_thoughts:10.3f}{part.gain:+10.3f}"


def _latency(given: argparse.Namespace, loaded: LoadedRun) -> Any:
    before = next(loaded.held_out(1))[0]
    found: dict[str, Any] = {}
    print(f"{'ms a token':18}{'median':>10}{'95th percentile':>18}")
    for name, predictor in _predictors(loaded):
        taken = metrics.latency(predictor, before, given.tokens)
        print(f"{name:18}{1e3 * taken.median:10.2f}{1e3 * taken.p95:18.2f}")
        found[name] = taken._asdict()
    return found


def _predictors(loaded: LoadedRun) -> Iterator[tuple[str, Predictor]]:
    if loaded.predicts_without_thought:
        yield "without thoughts", loaded.predictor(thinking=False)
    if loaded.thinks:
        yield "with thoughts", loaded.predictor(thinking=True)


def _share(right: int, of: int) -> str:
    """With Wilson's 95 % interval."""
    low, high = binomtest(right, of).proportion_ci(method="wilson")
    return f"{right} of {of} ({100 * low:.1f}-{100 * high:.1f} %)"


def _count(word: str) -> int:
    """At least 1."""
    if (number := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"{word} is less than 1")
    return number


def _temperature(word: str) -> float:
    """At least 0."""
    if not 0 <= (number := float(word)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is no temperature; give 0 or more")
    return number


def _check_folder(path: str | None) -> None:
    if path is not None and not (folder := Path(path).absolute().parent).is_dir():
        raise ValueError(f"{path}: there is no folder {folder}; give a file in a folder that is there")


if __name__ == "__main__":
    sys.exit(main())
