"""Reasoning texts: every step recomputed from the prompt, what is held out, which strategy is recognised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
import torch

from toyqs.tasks.reasoning import corpus, problems, strategies
from toyqs.tasks.reasoning.corpus import HELD_OUT, MIXED, STRATEGIES, Text, draw, is_held_out
from toyqs.tasks.reasoning.reasoning import PROMPT, RESPONSE, Reasoning
from toyqs.tasks.reasoning.strategies import read
from toyqs.tasks.reasoning.thinking_tokens import THINKING_TOKENS
from toyqs.tasks.reasoning.vocabulary import END, LARGEST, PAD, WORDS

Solved = tuple[list[str], str]  # the steps that a prompt has, and its answer


def numbers(text: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", text)]


def equations(a: int, *steps: tuple[str, int]) -> tuple[list[str], int]:
    """Return the steps of a chain of operations from a, by Python's own arithmetic, and where it ends."""
    said = []
    for word, b in steps:
        sign = {"plus": "+", "minus": "-", "times": "*"}[word]
        value = eval(f"{a} {sign} {b}")
        said.append(f"{a} {word} {b} is {value}")
        a = value
    return said, a


def solved_chain(prompt: str) -> Solved:
    gains = {"gets": "plus", "finds": "plus", "buys": "plus"}
    losses = {"loses": "minus", "drops": "minus", "sells": "minus"}
    told = re.findall(r"(\w+) (\d+) \.", prompt)
    said, value = equations(numbers(prompt)[0], *(((gains | losses)[word], int(n)) for word, n in told))
    return said, str(value)


def solved_mece(prompt: str) -> Solved:
    lots = re.findall(r"(\d+) (\w+) (\w+)", prompt)
    assert len({(colour, kind) for _, colour, kind in lots}) == 4, "no lot stands there twice"
    groups: dict[str, list[int]] = {}
    for n, _, kind in lots:
        groups.setdefault(kind, []).append(int(n))
    sums = [equations(a, ("plus", b)) for a, b in groups.values()]
    total, value = equations(sums[0][1], ("plus", sums[1][1]))
    assert value == sum(int(n) for n, _, _ in lots), "none twice, none left"
    named = [f"{kind} : {each[0][0]}" for kind, each in zip(groups, sums, strict=True)]
    return [*named, f"left : {total[0]}"], str(value)


def solved_falsification(prompt: str) -> Solved:
    listed, words = re.fullmatch(r"claim : all of ([\d ]+) are (.+) \. true \?", prompt).groups()
    word, bound = words.split()[0], (numbers(words) or [0])[0]
    rule: dict[str, Callable[[int], bool]] = {
        "below": lambda n: n < bound,
        "over": lambda n: n > bound,
        "even": lambda n: n in (0, 2, 4, 6, 8),
        "odd": lambda n: n in (1, 3, 5, 7, 9),
    }
    said = []
    for n in numbers(listed):
        said.append(f"{n} is {'' if rule[word](n) else 'not '}{words}")
        if not rule[word](n):
            return [*said, f"{n} breaks it"], "false"
    return [*said, "none breaks it"], "true"


def solved_expert(prompt: str) -> Solved:
    a, b, rest = numbers(prompt)
    less = "off" in prompt or "broke" in prompt
    said, value = equations(a, ("times", b), ("minus" if less else "plus", rest))
    trades = {"cart": "driver", "loaf": "cook", "cost": "trader", "floor": "mason"}
    (trade,) = (trades[word] for word in prompt.split() if word in trades)
    return [f"<expert> {trade}", *said], str(value)


def solved_analogy(prompt: str) -> Solved:
    size, zero, now, more = numbers(prompt)
    assert zero == 0
    wraps = (now + more) // size
    said, value = equations(now, ("plus", more), *[("minus", size)] * wraps)
    assert value == (now + more) % size
    moves = [f"like {size} seats", f"from seat {now} go {more}"]
    return [*moves, *said, f"seat {value} is {value}"], str(value)


def solved_doubt(prompt: str) -> Solved:
    times, more, said_ = numbers(prompt)
    low, high, steps = 2, 8, list[str]()
    while True:
        tried = (low + high) // 2
        found = tried * times + more
        steps += [f"try {tried}"] + equations(tried, ("times", times), ("plus", more))[0]
        if found == said_:
            return steps, str(tried)
        low, high = (tried + 1, high) if found < said_ else (low, tried - 1)


def solved_bayes(prompt: str) -> Solved:
    bags, others, gives, nine, give, again = numbers(prompt)
    assert nine == again == 9
    first, second = equations(bags, ("times", gives)), equations(others, ("times", give))
    odds = f"{first[1]} to {second[1]}"
    return [f"before : {bags} to {others}", *first[0], *second[0], f"after : {odds}"], odds


SOLVED = {
    "chain_of_thought": solved_chain,
    "mece": solved_mece,
    "falsification": solved_falsification,
    "expert": solved_expert,
    "analogy": solved_analogy,
    "self_doubt": solved_doubt,
    "bayes": solved_bayes,
}


def steps_of(response: str) -> list[str]:
    """Return what a response states: whatever has a number in it, and whose expert it asks."""
    forms = (
        r"(?:\w+ : )?\d+ (?:plus|minus|times) \d+ is \d+",
        r"\d+ is (?:not )?(?:below \d|over \d|even|odd)|\S+ breaks it",
        r"like \d+ seats|from seat \d+ go \d+|seat \d+ is \d+|try \d+",
        r"(?:before|after) : \d+ to \d+|<expert> \w+",
    )
    reasoning, form = response.partition(" </think> ")[0], "|".join(forms)
    return [*re.findall(form, reasoning), *numbers_left(re.sub(form, "", reasoning))]


def numbers_left(text: str) -> list[str]:
    """Return the numbers that stand in no step, as steps that no prompt has."""
    return [f"{n} in no step" for n in re.findall(r"\d+", text)]


def some(kind: str, count: int = 300) -> list[Text]:
    """Draw texts of both splits."""
    rng = Random(kind)
    return [draw(rng, kind, held) for held in (False, True) for _ in range(count // 2)]


def is_true(text: Text) -> bool:
    """Tell whether a text's steps and answers are those that its prompts have."""
    found = [
        SOLVED[x.strategy](prompt)
        for x, prompt in zip(text.problems, text.prompt.split(" also "), strict=True)
    ]
    answers = " and ".join(answer for _, answer in found)
    steps = [step for steps, _ in found for step in steps]
    return steps_of(text.response) == steps and text.response.endswith(f"</think> answer {answers}")


@pytest.mark.parametrize("kind", [*STRATEGIES, MIXED])
def test_every_step_is_true(kind: str) -> None:
    assert all(is_true(text) for text in some(kind))


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_step_that_is_not_true_is_noticed(kind: str) -> None:
    """The last number of the reasoning, and that of the answer, are one too large."""
    text = some(kind, 2)[0]
    reasoning, answer = text.response.rsplit(" </think> ", 1)
    last = re.findall(r"\d+", reasoning)[-1]
    cut = reasoning.rindex(last)
    wrong = f"{reasoning[:cut]}{int(last) + 1}{reasoning[cut + len(last) :]} </think> {answer}"
    assert not is_true(text._replace(response=wrong))
    wrong = {"true": "false", "false": "true"}.get(text.answer) or re.sub(
        r"\d+$", lambda x: str(int(x[0]) + 1), text.answer
    )
    assert not is_true(text._replace(response=f"{reasoning} </think> answer {wrong}"))


def test_a_self_doubt_says_which_tries_are_wrong() -> None:
    for text in some("self_doubt"):
        wanted, times, more = text.problems[0].content
        tries = re.findall(r"try (\d+) <doubt> .*? , .*? is (\d+) , (right|too low|too high)", text.response)
        assert [x for _, _, x in tries].count("right") == 1 and tries[-1][2] == "right"
        for tried, found, verdict in tries:
            assert int(found) == int(tried) * times + more
            low = (verdict == "too low", verdict == "too high", verdict == "right")
            assert low == (int(tried) < wanted, int(tried) > wanted, int(tried) == wanted)


def test_the_corpus_has_the_texts_that_it_says() -> None:
    texts = Reasoning().corpus
    counts = Counter(text.kind for text in texts)
    assert counts == {"chain_of_thought": 400, **dict.fromkeys(STRATEGIES[1:], 200), MIXED: 200}
    assert counts.total() - counts[MIXED] == 1600
    assert len({text.prompt for text in texts}) == len(texts), "no text twice"
    assert not any(token in text.prompt for text in texts for token in THINKING_TOKENS)
    assert Counter(len(x.problems) for x in texts if x.kind == MIXED) == {2: 200}
    assert all(len(set(x.strategies)) == len(x.problems) for x in texts), "two strategies where two are mixed"
    claims = Counter(text.answer for text in texts if text.kind == "falsification")
    assert 70 < claims["true"] < 130


def test_held_out_contents_never_occur_in_training() -> None:
    task = Reasoning()
    trained = {(x.strategy, x.content) for text in task.corpus for x in text.problems}
    kinds = [*STRATEGIES, MIXED]
    held = {
        (x.strategy, x.content)
        for kind in kinds
        for text in some(kind)
        for x in text.problems
        if is_held_out(x)
    }
    assert not trained & held and {name for name, _ in held} == set(STRATEGIES)
    batch = task.sample(torch.Generator().manual_seed(0), 400, 0, "held_out")
    prompts = {task.decode(row).split(" <think>")[0] for row in batch.inputs[0].tolist()}
    assert not prompts & {text.prompt for text in task.corpus}
    for name in STRATEGIES:
        drawn = [problems.GENERATORS[name](rng) for rng in [Random(name)] for _ in range(1000)]
        share = sum(map(is_held_out, drawn)) / len(drawn)
        assert 0.6 < share * HELD_OUT < 1.4, name
        other = drawn[0]._replace(prompt="told with other names", answer="")
        assert is_held_out(other) == is_held_out(drawn[0]), "names do not decide it"


def test_what_counts_is_the_response_and_its_end() -> None:
    task = Reasoning(texts=20, mixed=40)
    known = {text.prompt: text.response for text in task.corpus}
    batch = task.sample(torch.Generator().manual_seed(1), 64, 0, "train")
    for inputs, targets, weights, think in zip(*(x[0] for x in batch[:4]), strict=True):
        first = int(weights.nonzero()[0])
        counted = task.decode(targets[weights > 0].tolist())
        assert counted == f"{known[task.decode(inputs[: first + 1].tolist())]} {END}"
        assert int(think.nonzero()[0]) == first and int(think.sum()) == RESPONSE
        assert set(task.symbols(inputs[first + int(weights.sum()) + 1 :].tolist())) <= {PAD}


def test_the_longest_texts_have_room() -> None:
    for kind in (*STRATEGIES, MIXED):
        for text in some(kind, 200):
            assert len(text.prompt.split()) <= PROMPT and len(text.response.split()) < RESPONSE
            assert max(numbers(text.prompt + text.response)) <= LARGEST


def test_the_corpus_is_decided_by_its_seed() -> None:
    again = corpus.corpus.__wrapped__(200, 200, 0)
    assert again == Reasoning().corpus and again != Reasoning(seed=1).corpus


def test_the_thinking_tokens_come_last() -> None:
    task = Reasoning()
    assert tuple(task.symbols(range(task.vocab_size - 8, task.vocab_size))) == THINKING_TOKENS
    assert task.decode([*task.ends]) == END and len(set(WORDS)) == len(WORDS)


@pytest.mark.parametrize("kind", [*STRATEGIES, MIXED])
def test_the_strategy_of_each_text_is_recognised(kind: str) -> None:
    for text in some(kind):
        found = read(text.response)
        assert found.strategies == text.strategies and found.thinks and found.answer == text.answer
        assert found.equations == found.true_equations
        assert kind == "falsification" or found.equations >= 1
        closed = text.response.replace(" <", "<").replace("> ", ">")
        assert read(closed) == found, "a tokeniser may leave no blanks around thinking tokens"


@pytest.mark.parametrize("kind", STRATEGIES)
def test_part_of_a_form_is_not_the_strategy(kind: str) -> None:
    """Without its tokens, without its ending, or outside of the thinking it is none, nor another."""
    text = some(kind, 2)[0].response
    reasoning, answer = text.removeprefix("<think> ").split(" </think> ")
    for token in THINKING_TOKENS[2:]:
        if token in reasoning:
            assert read(text.replace(f"{token} ", "")).strategies == ()
    begins = {"chain_of_thought": 6, "mece": 16, "expert": 8, "analogy": 13, "bayes": 18}
    cut = " ".join(reasoning.split()[: begins.get(kind, 5)])
    assert read(f"<think> {cut} </think> {answer}").strategies == ()
    assert read(f"{reasoning} <think> </think> {answer}").strategies == ()
    assert not read(f"{reasoning} {answer}").thinks and not read(f"<think> </think> {answer}").thinks


def test_a_wrong_equation_is_not_counted_as_true() -> None:
    found = read("<think> <step> 3 plus 4 is 8 <step> 8 minus 1 is 7 </think> answer 7 of them")
    assert found == (True, ("chain_of_thought",), 2, 1, "7 of them")
    assert read("<think> <step> 3 plus 4 is 7 </think> so answer 7").answer is None
    assert read("answer 7").answer is None and read("").strategies == ()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"texts": 0}, "task.texts=0: is too small; give task.texts=1 or more"),
        ({"mixed": -1}, "task.mixed=-1: is too small; give task.mixed=0 or more"),
        (
            {"texts": 900},
            r"task.texts=900: asks for 900 different texts of analogy, .* about \d\d\d; give less",
        ),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Reasoning(**keys).check(128)
    with pytest.raises(ValueError, match="'seven' is no word of its texts; give words as they have"):
        Reasoning().encode("3 plus 4 is seven")


def test_a_mutant_of_each_form_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one strategy's form also took another's text, that text would have two."""
    loose = re.compile(r"<reason>|<step>|<mece>|<falsify>|<expert>|<doubt>")
    for kind in STRATEGIES:
        with monkeypatch.context() as patch:
            patch.setitem(strategies._FORMS, kind, loose)
            other = next(x for x in STRATEGIES if x != kind)
            assert read(some(other, 2)[0].response).strategies != (other,)
