"""Refusals of runs that start from finished runs, and the lines that say what is taken over."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.config.checks.checking import accepted, refused
from tests.config.test_starts import PLAIN, SMALL, run
from toyqs.files import ROW, sealed, write_json
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.rev_prog import RevProg

ALL = "infer_pretrained_base_reasoner"
PARTS = ("infer_pretrained_base", "infer_pretrained_reasoner", ALL)


def test_what_is_taken_over_is_said(tmp_path: Path) -> None:
    plain, thinking = run(tmp_path / "plain", **PLAIN), run(tmp_path / "thinking")
    assert accepted(**SMALL, start_from=plain) == [
        f"start_from={plain}: 7 of 28 weights are taken over: cores.A, head.bias, head.weight_0",
        "new, as without a start: cores.B, cores.C, cores.D, head.weight_1, interpreter, thought_head",
    ]
    assert accepted(**SMALL, infer_pretrained_reasoner=thinking) == [
        f"infer_pretrained_reasoner={thinking}: 20 of 28 weights are taken over: cores.B, cores.C, cores.D, "
        "interpreter, thought_head; left there: cores.A, head",
        "new, as without a start: cores.A, head",
    ]
    shared = accepted(**SMALL, weight_groups=list("AABA"), infer_pretrained_base=plain)
    assert shared[1] == "infer_pretrained_base: core A is that of base_reasoner, interpreter too"
    shared = accepted(**SMALL, weight_groups=list("AAAA"), start_from=plain)
    assert shared[1] == "start_from: core A is that of base_reasoner, reasoner, interpreter too"
    assert accepted(**SMALL, **PLAIN, infer_pretrained_reasoner="nowhere") == [
        "infer_pretrained_reasoner has no effect: none of its roles computes anything in this run"
    ]


def test_a_weight_of_another_shape_is_refused_with_both(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    for key in ("start_from", *PARTS):
        letter, old, new = ("C", (6, 4), (7, 4)) if key != "infer_pretrained_base" else ("A", (9, 4), (9, 5))
        changed = {"thought_vocab": 7} if letter == "C" else {"base_lm_hidden_dim": 5}
        table = "thoughts" if letter == "C" else "backbone.weight_ih"
        old, new = (old, new) if letter == "C" else ((4, 12), (5, 15))
        said = rf"{key}={folder}: its cores.{letter}.{table}.* has the shape \({old[0]}, {old[1]}\), and "
        refused(
            rf"{said}this run's has \({new[0]}, {new[1]}\); give a run of",
            **(SMALL | changed),
            **{key: folder},
        )


def test_settings_that_contradict_each_other(tmp_path: Path) -> None:
    one = run(tmp_path / "one")
    for key in PARTS:
        refused(f"{key}={one}: start_from={one} hands over the same", **SMALL, start_from=one, **{key: one})
    for key in PARTS[:2]:
        refused(f"{key}={one}: {ALL}={one} hands over the same", **SMALL, **{key: one, ALL: one})
    assert accepted(**SMALL, **dict.fromkeys(PARTS[:2], one))
    compared = {"reward": "log_ratio", "reference": "checkpoint", "reference_run": one}
    assert accepted(**SMALL, **compared, start_from=run(tmp_path / "other", policy_loss_beta=0.5))


def test_cores_that_cannot_start_from_one(tmp_path: Path) -> None:
    apart, shared = run(tmp_path / "apart"), run(tmp_path / "shared", weight_groups=list("AAAA"))
    refused(
        rf"{ALL}={apart}: base_reasoner, reasoner share core B of weight_groups=ABBC and are cores B, C",
        **SMALL,
        weight_groups=list("ABBC"),
        **{ALL: apart},
    )
    for given in (apart, shared):
        refused(
            f"infer_pretrained_reasoner={given}: weight_groups=ABCA: interpreter shares a core with base_lm",
            **SMALL,
            weight_groups=list("ABCA"),
            infer_pretrained_reasoner=given,
        )
    refused(
        f"start_from={shared}: core B of weight_groups=ABCD is not that of base_reasoner there.*{ALL}=RUN",
        **SMALL,
        start_from=shared,
    )
    assert accepted(**SMALL, **{ALL: shared})


def test_roles_that_a_run_does_not_have(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", **PLAIN)
    for key in PARTS[1:]:
        refused(
            f"{key}={plain}: that run has no base_reasoner, reasoner, interpreter", **SMALL, **{key: plain}
        )
    silent = run(tmp_path / "silent", use_base_lm=False)
    said = f"={silent}: that run has no base_lm"
    refused(f"infer_pretrained_base{said}", **SMALL, infer_pretrained_base=silent)
    refused(f"start_from{said}", **SMALL, **PLAIN, start_from=silent)
    assert accepted(**SMALL, start_from=silent, use_base_lm=False)


def test_weights_that_mean_something_else(tmp_path: Path) -> None:
    gaussian = run(tmp_path / "gaussian", thoughts="gaussian")
    refused(
        f"start_from={gaussian}: its sigma is 0.3, and here it is 0.5",
        **SMALL,
        thoughts="gaussian",
        sigma=0.5,
        start_from=gaussian,
    )
    shared = {"share_lm_head": True, "thought_vocab": None}
    own = run(tmp_path / "own", thought_vocab=None)
    refused(f"={own}: its share_lm_head is false, and here it is true", **SMALL, **shared, **{PARTS[1]: own})
    assert accepted(**SMALL, **shared, **{PARTS[0]: own}), "base_lm has no such head"
    scaled = run(tmp_path / "scaled", meta_token_mode="reparameterise")
    refused(f"={scaled}: its meta_token_scale is 10.0, and here it is 1.0", **SMALL, start_from=scaled)
    assert accepted(**SMALL, meta_token_mode="grad_scale", start_from=run(tmp_path / "plain"))
    markov = run(tmp_path / "markov", task=HiddenMarkov())
    refused(f"start_from={markov}: was trained on task=hidden_markov", **SMALL, start_from=markov)
    larger = run(tmp_path / "larger", task=RevProg(p=7))
    refused(f"start_from={larger}: its tokens are not those", **SMALL, start_from=larger)
    assert accepted(**SMALL, task=RevProg(k=2), start_from=run(tmp_path / "longer"))


def test_what_is_no_finished_run(tmp_path: Path) -> None:
    for key in ("start_from", *PARTS):
        refused(f"{key}=nowhere: there is no such folder; give", **SMALL, **{key: "nowhere"})
        by_key = {key: "0123456789abcdef", "runs_dir": str(tmp_path / "runs")}
        refused(f"{key}={tmp_path}/runs/0123456789abcdef: there is no such folder", **SMALL, **by_key)
    folder = Path(run(tmp_path / "run"))
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({name: weight * float("nan") for name, weight in weights.items()}, file)
    refused(f"start_from={folder}: its model.safetensors is not finite", **SMALL, start_from=str(folder))
    file.write_bytes(b"")
    refused(f"start_from={folder}: its model.safetensors is damaged", **SMALL, start_from=str(folder))
    file.unlink()
    refused(f"start_from={folder}: is not the folder|its model.safet", **SMALL, start_from=str(folder))
    (folder / "config.json").write_text("{")
    refused(f"start_from={folder}: its config.json is damaged", **SMALL, start_from=str(folder))


def test_weights_that_are_not_as_they_were_written(tmp_path: Path) -> None:
    folder = Path(run(tmp_path / "run"))
    file = folder / "model.safetensors"
    write_json(folder / ROW, sealed({"nll": 1.0}, folder, ["config.json", file.name]))
    assert accepted(**SMALL, start_from=str(folder))
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file)
    refused(f"start_from={folder}: its {file.name} is not as its row", **SMALL, start_from=str(folder))
    (folder / ROW).write_text("{}")
    assert accepted(**SMALL, start_from=str(folder)), "a row that notes nothing"


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra transformer")
def test_transformers(tmp_path: Path) -> None:
    gpt2: dict[str, Any] = {**SMALL, "backbone": "gpt2"}
    folder = run(tmp_path / "gpt2", backbone="gpt2")
    refused(f"start_from={folder}: its backbone is gpt2, and here it is gru", **SMALL, start_from=folder)
    refused(
        "positions_up_to=null: with start_from all arms need .*positions_up_to=13", **gpt2, start_from=folder
    )
    assert accepted(**gpt2, start_from=folder, positions_up_to=13)
    assert accepted(**gpt2, start_from=folder, controls="none")
    refused("its cores.A.*wpe.weight has the shape", **gpt2, start_from=folder, positions_up_to=20)
    refused(
        "its model_n_head is 2, and here it is 4",
        **gpt2,
        start_from=folder,
        positions_up_to=13,
        model_n_head=4,
    )


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra transformer")
def test_the_checkpoint_is_the_same_in_both(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, GPT2Config

    task = RevProg()
    sizes = GPT2Config(n_embd=4, n_layer=2, n_head=2, n_positions=64, vocab_size=task.vocab_size)
    checkpoint = str(tmp_path / "checkpoint")
    AutoModelForCausalLM.from_config(sizes).save_pretrained(checkpoint)
    small = {"max_steps": 4, "pretrained": checkpoint, **PLAIN}
    tuned, plain = (tmp_path / "tuned", tmp_path / "plain")
    tuned, plain = run(tuned, **small), run(plain, **PLAIN)
    (said,) = accepted(**small, start_from=tuned)
    assert "31 of 31 weights are taken over" in said or "weights are taken over: cores.A" in said
    refused(
        f"pretrained={checkpoint}: start_from={plain} was trained on no checkpoint", **small, start_from=plain
    )
    refused(
        f"pretrained=null: start_from={tuned} was trained on pretrained={checkpoint}",
        **SMALL,
        start_from=tuned,
    )
    refused("its lora_rank is 0, and here it is 2", **small, lora_rank=2, start_from=tuned)
    other = shutil.copytree(checkpoint, tmp_path / "other")
    AutoModelForCausalLM.from_config(sizes).save_pretrained(other)
    refused(
        rf"pretrained={other}: start_from={tuned} was trained on another one, pretrained={checkpoint}",
        **(small | {"pretrained": str(other)}),
        start_from=tuned,
    )
