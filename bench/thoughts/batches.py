"""K thoughts at T positions in one batch against one after another: equal gradients, and ratios of time.

    python bench/thoughts/batches.py -o thought_batches.csv --figure thought_batches.png

Before anything is timed every way must give the gradient of all thoughts in one batch, with the same forced
thoughts, to 1e-12 in float64, and sample the same symbols from the same numbers. Then all are timed in turns,
on one thread, in CPU time: `sample`, the thoughts alone, after a context that was read before, and `step`, a
training step without the optimiser's. bench/thoughts/one_by_one.py says what each way does. A ratio of 1 is
what arithmetic alone would give, but for the products that calls share; K is the most that a machine can give
that makes a batch of K in the time of one.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.gpu import commit, version
from bench.programs import ratio
from bench.step import processor
from bench.thoughts.one_by_one import ONE_BATCH, WAYS, Size, Step, Way, build, compare_gradients, flops
from toyqs.command_line import Parser, check_file, path_of, run, whole, writing
from toyqs.evidence.figures import style
from toyqs.evidence.figures.recipes.batches import batches_figure
from toyqs.files import Refusal, write_text

TOLERANCE = 1e-12  # of a gradient's difference, times its largest number where that is above 1
TURN = 0.02  # seconds of a way's turn, about; one call where that takes longer
WHATS = ("sample", "step")
BACKBONES = ("gru", "gpt2")


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and write it; return 1 where gradients or symbols differ."""
    return run(_measure, _parser(), words)


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=path_of, default=Path("thought_batches.csv"), help="where the rows go")
    parser.add_argument("--figure", metavar="FILE", type=path_of, help="draw the ratios there")
    parser.add_argument("--json", metavar="FILE", type=path_of, help="write all numbers there, with machine")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES, help="gru gpt2")
    parser.add_argument("--thoughts", nargs="+", type=whole, default=[1, 2, 4, 8], help="K (1 2 4 8)")
    parser.add_argument("--positions", nargs="+", type=whole, default=[1, 8, 64], help="T (1 8 64)")
    parser.add_argument("--length", type=whole, default=4, help="L, symbols of a thought (4)")
    parser.add_argument("--width", type=lambda word: whole(word, least=2), default=32, help="of all (32)")
    parser.add_argument("--sequences", type=whole, default=1, help="B (1)")
    parser.add_argument("--rounds", type=whole, default=9, help="turns of each way (9)")
    return parser


def _measure(given: argparse.Namespace) -> None:
    if given.figure and given.figure.suffix not in style.ENDINGS:
        raise Refusal(f"--figure {given.figure}: give an ending of {', '.join(style.ENDINGS)}")
    if given.width % 2:
        raise Refusal(f"--width {given.width}: two heads need an even width; give {given.width + 1}")
    for option, path in (("-o", given.o), ("--figure", given.figure), ("--json", given.json)):
        if path:
            check_file(path, option)
    torch.set_num_threads(1)
    head = {"processor": processor(), "commit": commit(), "torch": version("torch")}
    about = "; ".join(["one thread", *(f"{name} {value}" for name, value in head.items())])
    sizes = list(dict.fromkeys(sizes_of(given)))
    print(about)
    compare(sizes)
    print(f"CPU time; ratios are medians (quartiles) of {given.rounds} rounds in turns\n")
    rows = list(measured(sizes, given.rounds))
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with writing(given.o):
        write_text(given.o, text.getvalue())
    print(f"\nrows   {given.o}")
    if given.json:
        with writing(given.json, "--json"):
            write_text(given.json, json.dumps({**head, "rows": rows}, indent=1) + "\n")
        print(f"numbers {given.json}")
    if given.figure:
        with style.style(), writing(given.figure, "--figure"):
            style.save(batches_figure(rows, about), given.figure)
        print(f"figure {given.figure}")


def sizes_of(given: argparse.Namespace) -> Iterator[Size]:
    """Yield the sizes asked for, by backbone, K and T."""
    for backbone in given.backbones:
        for thoughts in given.thoughts:
            for positions in given.positions:
                yield Size(backbone, thoughts, positions, given.length, given.width, given.sequences)


def ways_of(size: Size) -> dict[str, Way]:
    """Return the ways that differ at a size: by thoughts always, for K = 1 shows the noise of the ratios."""
    found = {ONE_BATCH: WAYS[ONE_BATCH], "thought by thought": WAYS["thought by thought"]}
    if size.positions > 1:
        found["position by position"] = WAYS["position by position"]
    if size.positions > 1 and size.thoughts > 1:
        found["one by one"] = WAYS["one by one"]
    return found


def compare(sizes: Sequence[Size]) -> None:
    """Compare gradients and symbols of all ways at these sizes, and print how far they are apart.

    Raises:
        Refusal: they are not equal.
    """
    worst = 0.0
    for size in sizes:
        for name, apart in compare_gradients(size, ways_of(size)).items():
            share = apart.difference / max(1.0, apart.largest)
            if not share <= TOLERANCE:
                raise Refusal(
                    f"{size}, {name}: its gradient differs from that in one batch by "
                    f"{apart.difference:.0e}, so nothing was timed",
                    1,
                )
            worst = max(worst, share)
        _compare_symbols(size)
    print(f"Gradients equal with the same thoughts, in float64: they differ by at most {worst:.0e}")
    print("Symbols equal, sampled from the same numbers", flush=True)


def _compare_symbols(size: Size) -> None:
    step = build(size.config)
    with torch.no_grad():
        context = step.read()
    expected = step.sample(context, WAYS[ONE_BATCH])
    for name, way in ways_of(size).items():
        if not torch.equal(step.sample(context, way), expected):
            raise Refusal(f"{size}, {name}: samples other symbols, so nothing was timed", 1)


def measured(sizes: Sequence[Size], rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each size, way and WHATS, and print a line for each size and WHATS."""
    for size in sizes:
        step, ways = build(size.config), ways_of(size)
        counted = {name: flops(size, way) for name, way in ways.items()}
        for what, times in timed(step, ways, rounds).items():
            shown = [f"{size.backbone:<5} T {size.positions:<3} K {size.thoughts:<2} {what:<7}"]
            shown.append(f"{1e3 * statistics.median(times[ONE_BATCH]):8.2f} ms")
            for name in list(ways)[1:]:
                found = ratio(times[name], times[ONE_BATCH])
                row = size._asdict() | {"kernels": size.config.kernels, "what": what, "way": name}
                row |= {"ms": 1e3 * statistics.median(times[name]), "ratio": found.median}
                row |= {"low": found.low, "high": found.high}
                row["ms_in_one_batch"] = 1e3 * statistics.median(times[ONE_BATCH])
                row["flops_ratio"] = counted[name] / counted[ONE_BATCH] if what == "step" else float("nan")
                yield row
                beside = f", FLOPs {row['flops_ratio']:.2f}" if what == "step" else ""
                shown.append(f"{name} {found}{beside}")
            print("  ".join(shown), flush=True)


def timed(step: Step, ways: Mapping[str, Way], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Time all ways in turns.

    Returns:
        WHATS -> way -> CPU seconds of one call in each round.
    """
    with torch.no_grad():
        context = step.read()
    found: dict[str, dict[str, list[float]]] = {}
    for what in WHATS:
        calls = {name: _call(step, context, way, what) for name, way in ways.items()}
        counts = {name: max(1, round(TURN / _seconds(call, 1))) for name, call in calls.items()}
        found[what] = {name: [] for name in ways}
        names = list(ways)
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                found[what][name].append(_seconds(calls[name], counts[name]))
    return found


def _call(step: Step, context: Any, way: Way, what: str) -> Callable[[], object]:
    if what == "sample":
        return lambda: step.sample(context, way)
    return lambda: step.gradients(way)


def _seconds(call: Callable[[], object], count: int) -> float:
    """Return the CPU seconds of one call, of so many; one before them is not timed."""
    call()
    start = time.process_time()
    for _ in range(count):
        call()
    return max((time.process_time() - start) / count, 1e-9)


if __name__ == "__main__":
    sys.exit(main())
