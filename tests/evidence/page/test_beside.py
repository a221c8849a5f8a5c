"""Two runs beside each other: the same sequences alone; predictions hold the truth; names cover no others."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis import synthetic
from tests.evidence.page.browser import Tab
from tests.evidence.page.recorded import OPERATORS, code_record, number_of
from toyqs.evidence.__main__ import main
from toyqs.thought_record import Record, read, write

SEEDS = (0, 1, 2, 3)
NUM = 12


def record_of(seed: int) -> Record:
    """Return a record; 0: predictions cut to two tokens, 1: other numbers, 2: other sequences, 3: as 0."""
    one = code_record(seed % 3, NUM, (100, 200) if seed == 0 else (200,))
    if seed == 1:
        return one._replace(sequences=[x + 1000 for x in one.sequences], held_out=2000)
    one = one._replace(tokens=[f"a long name {x}" for x in one.tokens])
    if seed:
        return one
    then = [x._replace(arrays=likeliest(x.arrays)) for x in one.evaluations]
    return one._replace(arrays=likeliest(one.arrays), evaluations=then)


def likeliest(arrays: Any) -> Any:
    """Return a record's arrays with the two likeliest tokens of every prediction."""
    found = dict(arrays)
    for end in ("", "_none"):
        p = arrays[f"predicted_p{end}"]
        found[f"predicted{end}"] = np.argsort(-p, -1, kind="stable")[..., :2]
        found[f"predicted_p{end}"] = np.take_along_axis(p, found[f"predicted{end}"], -1)
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    losses = {"thinking": dict.fromkeys(SEEDS, 0.4), "zero_length": dict.fromkeys(SEEDS, 0.9)}
    columns = {"nll_no_thought": 1.25, "information": 0.7, "pass_at_k": 0.75}
    synthetic.write(folder / "runs", synthetic.settings(), losses, **columns)
    for seed in SEEDS:
        write(folder / "runs" / key(seed), record_of(seed))
    assert main(["report", str(folder / "runs"), "-o", str(folder / "page.html")]) == 0
    return folder / "page.html"


def key(seed: int) -> str:
    return synthetic.key_of(synthetic.settings(), "thinking", seed)


def link(beside: int, **more: Any) -> str:
    return "&".join([f"run={key(0)}&beside={key(beside)}", *(f"{x}={y}" for x, y in more.items())])


def test_only_the_same_sequence_at_the_same_time_stands_beside(kept: Tab, page: Path) -> None:
    number = number_of(3)
    lacks = {1: f"sequence {number} is not in this record"}
    lacks[2] = f"sequence {number} is another one in this record"
    for beside, words in lacks.items():
        kept.show(page, link(beside, sequence=number, position=OPERATORS + 2))
        assert kept.texts("#thoughts .lacks") == [words]
        assert len(kept.texts("#thoughts .thought")) == 4
    kept.show(page, link(3, sequence=number, position=OPERATORS + 2, time=100))
    assert kept.texts("#thoughts .lacks") == ["not recorded after step 100"]
    for time in (200, ""):
        kept.show(page, link(3, sequence=number_of(4), position=OPERATORS + 2, time=time))
        assert kept.texts("#thoughts .lacks") == [] and len(kept.texts("#thoughts .thought")) == 8


def test_a_prediction_of_the_likeliest_has_the_truth_in_it(kept: Tab, page: Path) -> None:
    stored = read(page.parent / "runs" / key(0))
    lacks = (stored.arrays["predicted"] != stored.arrays["truth"][..., None, None]).all(-1)
    n, t, k = (int(x[0]) for x in lacks.nonzero())
    kept.show(page, f"run={key(0)}&sequence={number_of(n)}&position={OPERATORS + t + 1}")
    bars = kept.page.eval_on_selector_all(
        f"#thoughts .thought:nth-of-type({k + 1}) rect.share",
        "all => all.map((one) => [+one.getAttribute('height'), one.textContent])",
    )
    p = [*stored.arrays["predicted_p"][n, t, k], math.exp(stored.arrays["log_q"][n, t, k])]
    names = [*stored.arrays["predicted"][n, t, k], stored.arrays["truth"][n, t]]
    assert len(bars) == 3
    for (height, words), token, share in zip(bars, names, p, strict=True):
        assert words == f"{stored.tokens[int(token)].replace(' ', '␣')}: {share:.3f}"
        assert height / bars[0][0] == pytest.approx(share / p[0], abs=0.05)
    highest = max(stored.arrays[f"predicted_p{end}"][n, t].max() for end in ("", "_none"))
    assert bars[0][0] == pytest.approx(22 * p[0] / highest, rel=0.01)


OVER = """all => all.some((one) => {
  const boxes = [...one.querySelectorAll('text.share')].map((name) => name.getBoundingClientRect());
  return boxes.some((a, at) => boxes.slice(0, at).some((b) => a.left < b.right && b.left < a.right));
})"""


def test_names_below_bars_do_not_cover_each_other(kept: Tab, page: Path) -> None:
    kept.show(page, link(3))
    assert kept.page.eval_on_selector_all("#thoughts .thought", OVER) is False
    for words in kept.page.eval_on_selector_all(
        "#thoughts .thought", "all => all.map((one) => one.querySelector('text.share.strong').textContent)"
    ):
        assert words.startswith("a␣long"), "the truth has its name"


def test_the_gain_of_a_position_is_over_no_thought(kept: Tab, page: Path) -> None:
    stored = read(page.parent / "runs" / key(0))
    kept.show(page, f"run={key(0)}&sequence={number_of(5)}")
    gains = stored.arrays["log_q"][5].mean(-1) - stored.arrays["log_q_none"][5]
    shown = kept.page.eval_on_selector_all(
        "#thoughts [data-id^=chip-]", "all => all.map((one) => one.getAttribute('aria-label'))"
    )
    assert [float(x.split("gain ")[1].split()[0].replace("−", "-")) for x in shown] == [
        pytest.approx(x, abs=0.0051) for x in gains
    ]
    rows = list(csv.DictReader(kept.saved("thoughts", "csv").splitlines()))
    assert {(row["sequence"], row["position"]) for row in rows} == {
        (f"{number_of(5)}", f"{OPERATORS + t + 1}") for t in range(len(gains))
    }


def test_the_record_and_the_rows_are_compared(kept: Tab, page: Path) -> None:
    kept.show(page, f"run={key(0)}")
    without = -read(page.parent / "runs" / key(0)).arrays["log_q_none"].mean()
    record, row = kept.texts("#record-loss")[0].split("; in the run's row")
    assert f", without a thought {without:.3f}" in record and ", without a thought 1.250" in row
    (means,) = kept.texts("#thought-means")
    assert "context 0.70 nats (of at most 4.16)" in means
    assert "at 75.0 % of positions (pass@K)" in means
