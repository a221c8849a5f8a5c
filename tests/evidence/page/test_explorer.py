"""The explorer: axes that some cells lack, settings that a map leaves aside, scales, no thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.analysis import synthetic
from tests.evidence.page.browser import Tab
from toyqs.evidence.__main__ import main

SEEDS = (7, 8, 9, 10)
BETAS, LENGTHS, GROUPS = (1.0, 10.0), (2, 8), ("AAAA", "ABCD")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight cells that think, with gains of 0.1 to 0.8, and two that do not and have no policy loss."""
    folder = tmp_path_factory.mktemp("explorer")
    cells = [(groups, length, beta) for groups in GROUPS for length in LENGTHS for beta in BETAS]
    for place, (groups, length, beta) in enumerate(cells):
        chosen = synthetic.settings(weight_groups=groups, max_reasoning_len=length, policy_loss_beta=beta)
        write(folder, chosen, {"thinking": 0.9 - 0.1 * (place + 1), "zero_length": 0.9}, place % 2 == 0)
    for groups in GROUPS:
        chosen = synthetic.settings(weight_groups=groups, max_reasoning_len=0)
        write(folder, chosen, {"thinking": 0.8, "no_reasoner": 0.9}, False, ("policy_loss_beta",))
    return made(folder)


def write(
    folder: Path, chosen: Any, means: dict[str, float], started: bool, inactive: tuple[str, ...] = ()
) -> None:
    losses = {
        arm: {seed: mean + 0.001 * (seed - 8.5) * (arm == "thinking") for seed in SEEDS}
        for arm, mean in means.items()
    }
    columns = {"started": started, "nll_no_thought": 1.5 if chosen["weight_groups"] == "AAAA" else None}
    synthetic.write(folder / "runs", chosen, losses, inactive=inactive, **columns)


def made(folder: Path) -> Path:
    assert main(["report", str(folder / "runs"), "-o", str(folder / "page.html")]) == 0
    return folder / "page.html"


DRAW_ALL = """() => {
  const bad = [];
  let drawn = 0;
  const [explorer] = PANELS.filter((one) => one.id === "explorer");
  const axes = freeAxes();
  for (const cell of DATA.cells.slice(0, 2)) for (const axis of axes) for (const down of ["none", ...axes])
    for (const control of knownControls()) {
      Object.assign(state, { cell: cell.id, axis, down, control });
      drawPanel(explorer);
      drawn += 1;
      const panel = explorer.section;
      const all = /NaN|undefined|Infinity/.test(panel.innerHTML) || panel.querySelector(".problem")
        || (down === "none" && panel.querySelectorAll("[data-id^=cell-]").length !== DATA.cells.length)
        || (!panel.querySelector(`[data-id="cell-${cell.id}"]`));
      if (all) bad.push([axis, down, control, cell.name]);
    }
  return [drawn / knownControls().length, bad];
}"""


def test_every_choice_is_drawn_with_all_cells_in_it(kept: Tab, page: Path) -> None:
    kept.show(page)
    drawn, bad = kept.page.evaluate(DRAW_ALL)
    assert drawn == 2 * 3 * 4 and bad == [], "two cells, three axes across, points and three maps"


def test_a_map_says_which_other_settings_it_shows_and_lets_choose_them(kept: Tab, page: Path) -> None:
    kept.show(page, "axis=policy_loss_beta&down=weight_groups")
    squares = "#explorer [data-id^=cell-] text"
    for length, gains in (
        ("2", ["+0.10", "+0.20", "+0.50", "+0.60"]),
        ("8", ["+0.30", "+0.40", "+0.70", "+0.80"]),
    ):
        kept.page.select_option("#fixed [data-id=fixed-max_reasoning_len]", length)
        shown = [words for words in kept.texts(squares) if words != "no thoughts"]
        assert shown == gains
        assert f"symbols per thought: {length}" in "".join(kept.texts("#explorer svg text"))
        assert gains[-1][:4] in kept.texts("#explorer svg text"), (
            "the colours end at the greatest that is shown"
        )
        assert kept.page.evaluate("cellNow().values.max_reasoning_len") == length
    kept.page.select_option("#explorer [data-id=axis]", "max_reasoning_len")
    assert kept.texts("#fixed label")[0].startswith("weight of the policy loss")
    kept.page.select_option("#explorer [data-id=down]", "none")
    assert kept.texts("#fixed") == []


def test_dots_are_filled_for_the_seeds_that_started(kept: Tab, page: Path) -> None:
    kept.show(page, "axis=policy_loss_beta&down=weight_groups")
    fills = kept.page.eval_on_selector_all(
        "#explorer [data-id^=cell-]",
        """all => all.map((one) => [...one.querySelectorAll('.judged-seed')]
          .map((dot) => dot.getAttribute('fill')))""",
    )
    numbers = [(len(one), sum(fill != "none" for fill in one)) for one in fills if one]
    assert numbers[:2] == [(4, 4), (4, 0)] and len(numbers) >= 4


def test_numbers_are_placed_to_scale_where_there_is_room(kept: Tab, page: Path) -> None:
    kept.show(page)
    lengths, betas = (
        kept.page.evaluate(f"(({{ at, ...x }}) => x)(placesAcross('{name}', 0, 1000))")
        for name in ("max_reasoning_len", "policy_loss_beta")
    )
    first, second, last = lengths["places"]
    assert (second - first) * 4 == pytest.approx(last - first) and lengths["note"] == ""
    assert betas["values"] == ["1", "10", "–"] and betas["note"] == " (log scale)"
    assert betas["places"] == sorted(betas["places"])
    narrow = kept.page.evaluate("(({ at, ...x }) => x)(placesAcross('max_reasoning_len', 0, 120))")
    assert narrow["note"] == " (not to scale)", "0 and 2 would cover each other"


def test_a_cell_without_thoughts_has_no_gain_of_thinking(kept: Tab, page: Path) -> None:
    kept.show(page)
    assert kept.texts("#tally")[0].startswith("10 cells: ")
    assert kept.texts("#tally")[0].endswith("; 2 that do not think.")
    assert kept.page.evaluate("cellNow().thinks"), "the page opens at a cell that thinks"
    kept.show(page, f"cell={kept.page.evaluate('DATA.cells.find((one) => !one.thinks).id')}")
    assert kept.texts("#verdict") == ["no verdict: this run has no thoughts"]
    assert kept.texts("#answer svg") == [] and kept.texts("#curves .onset") == []
    assert "thinking" not in kept.texts("#curves .controls button")
    for panel in ("thoughts", "dictionary", "tests"):
        assert "This run has no thoughts." in kept.texts(f"#{panel} p"), panel
        assert kept.texts(f"#{panel} pre") == [], "no command that would fail"


BOX = "(one) => { const { left, right } = one.getBoundingClientRect(); return [left, right]; }"


def test_seeds_judged_by_others_thoughts_alone_are_said_so(kept: Tab, page: Path) -> None:
    kept.show(page)
    lines = {"ABCD": "4 of 4, judged by other sequences' thoughts alone", "AAAA": "4 of 4."}
    for groups, words in lines.items():
        found = f"DATA.cells.find((one) => one.thinks && one.values.weight_groups === '{groups}').id"
        kept.show(page, f"cell={kept.page.evaluate(found)}")
        assert any(words in line for line in kept.texts("#answer .note")), groups


def test_numbers_of_an_axis_do_not_cover_its_name(tmp_path: Path, tab: Tab) -> None:
    for width in (4, 8):
        chosen = synthetic.settings(base_lm_hidden_dim=width)
        write(tmp_path, chosen, {"thinking": 0.0002, "zero_length": 0.0001}, True)
    tab.open(made(tmp_path), "show=gain")
    tab.page.evaluate(
        "for (const one of Object.values(DATA.curves)) one.nll = one.nll.map((_, at) => at * 1e-5)"
    )
    tab.page.evaluate("redraw()")
    for panel in ("explorer", "curves"):
        texts = f"#{panel} svg > text"
        numbers = tab.page.eval_on_selector_all(f"{texts}[text-anchor=end]", f"all => all.map({BOX})")
        (name,) = tab.page.eval_on_selector_all(f"{texts}[transform]", f"all => all.map({BOX})")
        assert len(numbers) > 2 and name[1] <= min(left for left, _ in numbers)
        assert name[0] >= tab.page.eval_on_selector(f"#{panel} svg", BOX)[0], "inside the drawing"
