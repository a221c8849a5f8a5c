"""Text as a finished run writes it, with the thoughts before each token."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.answers.command import add_command, temperature
from toyqs.answers.heading import heading
from toyqs.answers.loaded.load import TRAINS_ON_TEXT, LoadedRun, load
from toyqs.answers.loaded.predictor import Predictor, Step
from toyqs.answers.text import encode_context
from toyqs.command_line import path_of, whole
from toyqs.config.builders.recording import own_symbol_names
from toyqs.config.errors import Refusal
from toyqs.config.keys import TASKS
from toyqs.evidence.cells import load_cells
from toyqs.evidence.tables.thoughts import counted_words, names_of, vector_word, word, wrapped_line
from toyqs.evidence.text import WIDTH
from toyqs.files import ROW, visible
from toyqs.training.evaluation.thought_language import spoken
from toyqs.types import Thoughts

DIM, BOLD, PLAIN = "\033[2m", "\033[1m", "\033[0m"
TOKENS = 40  # that are written by default
END = "the end of the text"


class Said(NamedTuple):
    """One token that a run wrote, and what it thought before."""

    token: str  # as it can be shown
    p: float  # with the thoughts, the mean over them
    p_without: float | None  # with no thought; None: the run does not predict so, or does not think
    thoughts: list[str]  # K of them, as words


def add_to(measures: Any) -> None:
    """Add the command to the command line."""
    text = "write on from a prompt, and show the thoughts before each token"
    part = add_command(measures, "say", _say, text)
    help_ = "folder of a finished run on a text (the one that finished last and thinks)"
    part.add_argument("run", metavar="RUN", nargs="?", help=help_)
    part.add_argument("prompt", metavar="PROMPT", help='text to go on from; "": the beginning of a text')
    help_ = "where to look for the run that finished last (runs)"
    part.add_argument("--runs", metavar="FOLDER", type=path_of, default=Path("runs"), help=help_)
    help_ = f"tokens to write at most ({TOKENS}, fewer where a transformer has no room)"
    part.add_argument("--tokens", type=whole, metavar="N", help=help_)
    help_ = "of sampled tokens (0.7); 0 takes the likeliest"
    part.add_argument("--temperature", type=temperature, default=0.7, metavar="T", help=help_)
    help_ = "thoughts before each token (as many as in training)"
    part.add_argument("--thoughts", type=whole, metavar="K", help=help_)
    part.add_argument("--seed", type=int, default=0, help="seed of thoughts and sampled tokens (0)")


def _say(given: argparse.Namespace) -> Any:
    if given.run is None and Path(given.prompt).is_dir():
        raise Refusal(f'say: {given.prompt} is a folder, and there is no prompt; give one, such as ""')
    folder = given.run or str(latest(given.runs))
    run = load(folder, given.device, given.seed)
    sizes = run.sizes._replace(number=given.thoughts or run.sizes.number)
    predictor = Predictor(run.model, sizes, seed=given.seed)
    before = encode_context(run.text, given.prompt)
    print(*_head(run, predictor, "" if given.run else f", which finished last in {given.runs}"), "", sep="\n")
    written, said = list[int](), list[Said]()
    room = TOKENS if predictor.room is None else min(TOKENS, max(1, predictor.room - 1))
    for step in predictor.steps(before, given.tokens or room, temperature=given.temperature):
        token = int(step.tokens[0])
        ends = token in run.text.ends
        said.append(_said(run, predictor, step, END if ends else None))
        print(*told(said[-1], coloured()), sep="\n", flush=True)
        if ends:
            break
        written.append(token)
    text = run.text.decode([*run.text.encode(given.prompt).tolist(), *written])
    print("\nThe text, with its prompt:", *map(visible, text.split("\n")), sep="\n")
    return {"run": folder, "text": text, "tokens": [x._asdict() for x in said]}


def latest(runs_dir: Path) -> Path:
    """Return the folder of the run on a text that finished last, of those that think and are no control.

    Args:
        runs_dir: the folder of runs.

    Raises:
        Refusal: there is no such folder, it is damaged, or has no such run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rows from several commits, which are not compared here
            cells = load_cells(runs_dir)
    except (OSError, ValueError) as error:
        raise Refusal(f"say: {error}; or name a run, runs/KEY") from error
    on_text = [x for x in cells if x.thinks and _is_text(str(x.settings.get("task")))]
    arms = [next(iter(cell.arms.values())) for cell in on_text]
    folders = [runs_dir / key for arm in arms for key in arm.get("key", ())]
    if not folders:
        raise Refusal(
            f"say: {runs_dir} has no finished run on a text that thinks; name one, or where to look "
            f"(--runs), or train one: {TRAINS_ON_TEXT}"
        )
    return max(folders, key=lambda folder: (folder / ROW).stat().st_mtime_ns)


def _is_text(task: str) -> bool:
    return task in TASKS and TASKS[task].encode is not None


def told(said: Said, colour: bool = False) -> list[str]:
    """Return the lines that say what was thought and which token came of it.

    Args:
        said: the token.
        colour: with the codes by which a terminal shows thoughts dim and the token bold.
    """
    dim, bold, plain = (DIM, BOLD, PLAIN) if colour else ("", "", "")
    shown = said.token if said.token == END else f"'{said.token}'"
    of_what = " with" if said.thoughts else ""
    without = "" if said.p_without is None else f", {said.p_without:.3f} without"
    token = f"Generated token: {bold}{shown}{plain} (p {said.p:.3f}{of_what}{without})"
    if not said.thoughts:
        return [token]
    thinking = f"Thinking… {counted_words(said.thoughts)} done thinking."
    if len(thinking) + len(token) - len(bold + plain) < WIDTH:
        return [f"{dim}{thinking}{plain} {token}"]
    return [*(f"{dim}{line}{plain}" for line in wrapped_line(thinking)), f"  {token}"]


def coloured() -> bool:
    """Tell whether standard output is a terminal that shows colours, and nobody asked for none."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _said(run: LoadedRun, predictor: Predictor, step: Step, end: str | None) -> Said:
    token = int(step.tokens[0])
    without, thoughts = None, list[str]()
    if step.thoughts is not None and predictor.sizes.length:
        thoughts = in_words(run, step.thoughts)
        if run.predicts_without_thought:
            without = float(predictor.without_thought(step.context)[0, token].exp())
    (name,) = run.config.task.symbols([token])
    return Said(end or name, float(step.log_probs[0, token].exp()), without, thoughts)


def in_words(run: LoadedRun, thoughts: Thoughts) -> list[str]:
    """Return the K thoughts of one position as words.

    Args:
        run: that thought them.
        thoughts: at S = B = T = 1.

    Returns:
        The names of symbols; of vectors the nearest tokens, or where no core reads both, their lengths.
    """
    symbols, num_symbols = thoughts.symbols, run.model.num_symbols
    ids = run.model.nearest_tokens(symbols) if num_symbols is None else spoken(symbols, num_symbols)
    if ids is None:
        return [vector_word(thought) for thought in symbols[0, 0, 0].double().cpu().numpy()]
    task, own = run.config.task, own_symbol_names(run.config) if num_symbols else None
    names = names_of(own or task.symbols(range(task.vocab_size)))
    return [word(names, thought) for thought in ids[0, 0, 0].tolist()]


def _head(run: LoadedRun, predictor: Predictor, chosen: str) -> list[str]:
    """Return the lines that say which run it is and how to read what follows."""
    (number, length, *_), lines = predictor.sizes, heading([run.folder], after=chosen)
    if not predictor.thinking or not length:
        return [*lines, "This run has no thoughts. p: probability of the token"]
    kind = "vectors: the nearest tokens, or their lengths where no core reads both"
    if run.model.num_symbols:
        own = own_symbol_names(run.config)
        kind = f"out of {len(own)}" if own else "tokens of the text"
        kind = kind if own is None or len(own) > 1 else "always the same one"
    each, symbols = (
        f"{count} {noun}{'s' * (count > 1)}" for count, noun in ((number, "thought"), (length, "symbol"))
    )
    upto = "up to " if run.config.lengths_vary else ""
    several = " each" if number > 1 else ""
    twice = "; ×2: the same one twice" if number > 1 else ""
    lines.append(f"{each} before each token, of {upto}{symbols}{several} ({kind}){twice}")
    over = "the mean over its thoughts (with)" if number > 1 else "after its thought (with)"
    words = f"p: probability of the token, {over}"
    if run.predicts_without_thought:
        words += " and by the same model with no thought (without), which it may never have learned"
    return [*lines[:-1], *wrapped_line(lines[-1]), *wrapped_line(words)]
