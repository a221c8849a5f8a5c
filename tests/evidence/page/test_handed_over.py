"""What the page is handed: nothing that no template reads, values of settings that some cells lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.analysis import synthetic
from toyqs.evidence.page.build import SCRIPTS, template
from toyqs.evidence.page.data import page_data
from toyqs.evidence.runs import load_folder


def data_of(folder: Path) -> dict[str, Any]:
    return page_data(folder, load_folder(folder).cells)


def test_every_name_of_a_cell_and_an_arm_is_read_by_a_template(tmp_path: Path) -> None:
    found = {
        arm: {s: nll + s / 100 for s in (7, 8)} for arm, nll in (("thinking", 0.4), ("zero_length", 0.9))
    }
    synthetic.write(tmp_path, synthetic.settings(), found)
    (cell,) = data_of(tmp_path)["cells"]
    arm = cell["arms"]["zero_length"]
    names = {*cell, *cell["thoughts"], *arm, *arm["gain"]}
    text = "".join(map(template, SCRIPTS))
    assert {"judged_seeds", "nll_shuffled", "costs", "onset"} <= names
    assert [name for name in sorted(names) if name not in text] == []
    dropped = {"nll_marginal", "homogeneity", "completeness", "distinct_thoughts"}
    assert not dropped & cell["thoughts"].keys()
    assert not {"info"} & cell.keys() and "started" not in arm and "p" not in arm["gain"]


def test_an_axis_has_a_dash_where_a_cell_lacks_the_setting(tmp_path: Path) -> None:
    for beta, baseline in ((1.0, "none"), (1.0, "leave_one_out"), (0.0, "none")):
        chosen = synthetic.settings(policy_loss_beta=beta, baseline=baseline)
        idle = [] if beta else ["baseline"]
        synthetic.write(tmp_path, chosen, {"thinking": {7: 0.5}}, inactive=idle)
    data = data_of(tmp_path)
    values = {x["key"]: x["values"] for x in data["axes"]}
    assert values == {"policy_loss_beta": ["0", "1"], "baseline": ["leave_one_out", "none", "–"]}
    assert {cell["values"]["baseline"] for cell in data["cells"]} == {*values["baseline"]}
