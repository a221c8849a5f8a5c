"""Pretrained checkpoints: the library's own logits, what learns, and adapters as peft computes them."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

from tests.run_folders import written
from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import finished_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.checks.values import check
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.lora import Adapter
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import stream
from toyqs.sweep import main
from toyqs.tasks.rev_prog import RevProg
from toyqs.training.batches import draw_batches
from toyqs.training.loop import train

TASK = RevProg()
SIZES: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(
        n_embd=16, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, vocab_size=TASK.vocab_size
    ),
    "llama": LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        vocab_size=TASK.vocab_size,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        rms_norm_eps=1e-3,
    ),
}
KINDS = [(family, tied) for family in SIZES for tied in (True, False)]
EACH = pytest.mark.parametrize(
    ("family", "tied"), KINDS, ids=[f"{f}-{'tied' if t else 'untied'}" for f, t in KINDS]
)
THINKING: dict[str, Any] = {
    "weight_groups": ["A", "A", "A", "A"],
    "interpreter_start": "onward",
    "thought_vocab": None,
    "share_lm_head": True,
    "max_reasoning_len": 2,
    "trice_samples": 2,
}
APART = THINKING | {"weight_groups": ["A", "B", "C", "D"], "interpreter_start": "afresh"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints, FAMILY-TIED."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for family, tied in KINDS:
        torch.manual_seed(len(family) + tied)
        config = copy.deepcopy(SIZES[family])
        config.tie_word_embeddings = tied
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # norms and biases away from where they begin
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
        model.save_pretrained(folder / f"{family}-{tied}")
    return folder


def config_of(path: Path, **keys: Any) -> RunConfig:
    given = {"pretrained": str(path), "dtype": "float64", "max_steps": 2, "data_loader_batch_size": 4}
    config = replace(RunConfig(), **given | keys)
    check(config)
    return resolved(config)


def theirs(path: Path, inputs: Tensor) -> Tensor:
    """The library's logits (B, T, V)."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    with torch.no_grad():
        return model(inputs).logits


def some_inputs() -> Tensor:
    return TASK.sample(stream(0, "x"), 3, 0, "train").inputs


@torch.no_grad()
def silent(model: LatentReasoner, inputs: Tensor) -> Tensor:
    """Our logits (B, T, V) with no thought."""
    return model.talk(model.read(inputs, None), None).logits[0, :, :, 0, 0]


@EACH
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    "keys",
    [
        {"use_reasoner": False},
        THINKING,
        APART | {"mixing": "residual"},
    ],
    ids=["plain", "shared", "apart"],
)
def test_without_a_thought_a_pretrained_model_is_the_library_s(
    saved: Path, family: str, tied: bool, rank: int, keys: dict[str, Any]
) -> None:
    path = saved / f"{family}-{tied}"
    model, inputs = build_model(config_of(path, lora_rank=rank, **keys), [0]), some_inputs()
    atol = 1e-10 if family == "gpt2" else 1e-5  # the library's Llama computes its norms in float32
    torch.testing.assert_close(silent(model, inputs), theirs(path, inputs[0]), rtol=0, atol=atol)


def test_where_a_checkpoint_ties_one_table_is_both(saved: Path) -> None:
    def count(tied: bool, **keys: Any) -> int:
        return sum(
            p.numel() for p in build_model(config_of(saved / f"llama-{tied}", **keys), [0]).parameters()
        )

    table = 16 * TASK.vocab_size
    for keys in ({"use_reasoner": False}, THINKING):
        assert count(False, **keys) - count(True, **keys) == table
    plain = AutoModelForCausalLM.from_pretrained(saved / "llama-True")
    assert count(True, use_reasoner=False) == sum(p.numel() for p in plain.parameters())


def trained(config: RunConfig, steps: int = 1) -> tuple[LatentReasoner, LatentReasoner]:
    """A model before and after some training."""
    model = build_model(config, [0])
    before = copy.deepcopy(model)
    settings = build_training_params(config)
    data = draw_batches(config.task, [0], settings, next(model.parameters()))
    train(model, build_objective(config), data, replace(settings, steps=steps), lambda *_: None)
    return before, model


@EACH
def test_all_that_learns_moves_and_nothing_else(saved: Path, family: str, tied: bool) -> None:
    config = config_of(saved / f"{family}-{tied}", lora_rank=2, **THINKING)
    before, after = trained(config, 2)
    names = dict(after.named_parameters())
    own = {"cores.A.markers.weight", *(name for name in names if name.startswith("mixer."))}
    assert {name for name in names if not name.endswith((".A", ".B"))} == own
    moved = {name for name, p in before.named_parameters() if not torch.equal(p, names[name])}
    assert moved == set(names)
    frozen, same = dict(after.named_buffers()), dict(before.named_buffers())
    assert all(same[name] is frozen[name] for name in frozen if "frozen" in name or "tokens" in name)
    inputs = some_inputs()
    assert not torch.equal(silent(before, inputs), silent(after, inputs)), "a copy has adapters of its own"


def test_four_roles_with_adapters_share_one_trunk(saved: Path) -> None:
    model = build_model(config_of(saved / "llama-True", lora_rank=2, **APART), [0])
    assert len(model.cores) == 4
    decoders = [core.backbone.decoder.frozen for core in model.cores.values()]
    assert all(x is decoders[0] for x in decoders)
    assert len({core.tokens.weight.data_ptr() for core in model.cores.values()}) == 1
    assert model.head.table.weight.data_ptr() == model.cores["A"].tokens.weight.data_ptr()


def test_adapters_start_silent_and_are_drawn_for_each_core(saved: Path) -> None:
    model = build_model(config_of(saved / "gpt2-True", lora_rank=3, **APART), [0])
    adapters = {name: x for name, x in model.named_modules() if isinstance(x, Adapter)}
    assert len(adapters) == 4 * 2 * 4  # roles, layers, affine maps
    assert all(x.down.any() and not x.up.any() for x in adapters.values())
    downs = [x.down.flatten()[:9].tolist() for x in adapters.values()]
    assert len({tuple(x) for x in downs}) == len(downs)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
@pytest.mark.parametrize("family", SIZES)
def test_adapters_compute_what_peft_s_do(saved: Path, family: str) -> None:
    peft = pytest.importorskip("peft")
    path, rank = saved / f"{family}-True", 3
    model = build_model(config_of(path, lora_rank=rank, use_reasoner=False), [0])
    adapters = {name: x for name, x in model.named_modules() if isinstance(x, Adapter)}
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", fan_in_fan_out=family == "gpt2"
    )
    wrapped = peft.get_peft_model(plain, config)
    generator = torch.Generator().manual_seed(1)
    maps = {name: x for name, x in wrapped.named_modules() if hasattr(x, "lora_A")}
    assert len(maps) == len(adapters)
    with torch.no_grad():
        for name, adapter in adapters.items():
            adapter.up.normal_(generator=generator)
            (theirs,) = (x for key, x in maps.items() if key.endswith(name.split("weights.")[-1]))
            theirs.lora_A["default"].weight.copy_(adapter.down[0])
            theirs.lora_B["default"].weight.copy_(adapter.up[0])
    inputs = some_inputs()
    with torch.no_grad():
        wanted = wrapped(inputs[0]).logits
    ours = silent(model, inputs)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-10 if family == "gpt2" else 1e-5)
    assert (ours - silent(build_model(config_of(path, use_reasoner=False), [0]), inputs)).abs().max() > 0.1


@pytest.mark.parametrize("rank", [0, 2])
def test_a_finished_run_is_read_again_with_its_trunk(saved: Path, tmp_path: Path, rank: int) -> None:
    config = config_of(saved / "llama-True", lora_rank=rank, dtype="float32", **THINKING)
    _, model = trained(config, 1)
    folder = written(tmp_path / "run", config, model)
    again = finished_model(folder, 1)
    torch.testing.assert_close(silent(again, some_inputs()), silent(model, some_inputs()), rtol=0, atol=0)
    shutil.move(saved / "llama-True", tmp_path / "there")
    shutil.copytree(saved / "llama-False", saved / "llama-True")
    with pytest.raises(ValueError, match=r"pretrained=.*llama-True: has changed since .*run was trained"):
        finished_model(folder, 1)
    shutil.rmtree(saved / "llama-True")
    shutil.move(tmp_path / "there", saved / "llama-True")
    size = (tmp_path / "run" / "model.safetensors").stat().st_size
    assert size > 4 * sum(p.numel() for p in model.parameters())
    assert rank == 0 or not any("decoder.weights.norm" in name for name, _ in model.named_parameters())


def test_a_run_is_known_by_what_the_checkpoint_holds(saved: Path, tmp_path: Path) -> None:
    def key(path: Path, **keys: Any) -> str:
        return run_key(config_of(path, **keys), 0)

    path, elsewhere = saved / "gpt2-True", tmp_path / "elsewhere"
    shutil.copytree(path, elsewhere)
    assert key(path) == key(elsewhere)
    assert len({key(path), key(path, lora_rank=1), key(saved / "gpt2-False"), run_key(RunConfig(), 0)}) == 4
    file = elsewhere / "model.safetensors"
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, file, {"format": "pt"})
    assert key(path) != key(elsewhere)


def test_markers_may_begin_as_a_token_of_the_checkpoint(saved: Path) -> None:
    for rank in (0, 2):
        config = config_of(saved / "llama-True", lora_rank=rank, meta_token_init=3, **THINKING)
        core = build_model(config, [0]).cores["A"]
        rows = load_file(saved / "llama-True" / "model.safetensors")["model.embed_tokens.weight"]
        assert torch.equal(core.markers.rows()[0], rows[3].double().expand(2, -1))


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("harm", ["none there", "one missing", "torn"])
def test_a_damaged_checkpoint_is_one_line(
    saved: Path, tmp_path: Path, harm: str, rank: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(saved / "llama-True", folder)
    file = folder / "model.safetensors"
    if harm == "none there":
        file.unlink()
    elif harm == "torn":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        held = load_file(file)
        del held["model.layers.1.mlp.up_proj.weight"]
        save_file(held, file, metadata={"format": "pt"})
    given = {"pretrained": str(folder), "lora_rank": rank, "seed": 0, "controls": "none"}
    config = resolved(RunConfig(**given, max_steps=1, use_reasoner=False, runs_dir=str(tmp_path / "runs")))
    assert main.main([config]) == 1
    said = {"none there": "holds no *.safetensors", "one missing": "lacks layers.1.mlp.up_proj.weight"}
    err = capsys.readouterr().err
    why = said.get(harm, "its safetensors are damaged")
    assert f"toyqs: this run cannot be trained: pretrained={folder}: {why}" in err
    assert err.count("\n") == 1
