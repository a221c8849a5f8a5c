"""The plan in tables: which rooms and packages each room may import; see test_edges.py."""

from __future__ import annotations

# A room is a file or a folder directly below toyqs/, or one of the folders and scripts beside it.
# Each room may import the rooms of its line, and nothing else from the project.
EDGES: dict[str, set[str]] = {
    "types": set(),
    "numerics": set(),
    "rng": set(),
    "graphs": set(),
    "files": set(),
    "console": set(),
    "installation": set(),
    "assets": set(),
    "positions": {"types"},
    "command_line": {"console", "files"},
    "thought_record": {"files", "installation"},
    "tasks": {"assets", "files", "types"},
    "objectives": {"files", "numerics", "types"},
    "model": {"assets", "files", "numerics", "positions", "rng", "types"},
    "training": {"graphs", "numerics", "objectives", "positions", "rng", "tasks", "thought_record", "types"},
    "config": {"assets", "files", "model", "objectives", "rng", "tasks", "training", "types"},
    "evidence": {"command_line", "files", "installation", "thought_record"},
    "experiment": {"config", "files", "numerics", "positions", "thought_record", "training", "types"},
    "answers": {
        "positions",
        *(
            "assets",
            "command_line",
            "config",
            "evidence",
            "files",
            "installation",
            "model",
            "objectives",
            "rng",
        ),
        *("sweep", "tasks", "thought_record", "training", "types"),  # sweep: `probe`, which types commands
    },
    "sweep": {"assets", "config", "evidence", "experiment", "files", "installation", "training"},
    # the mains of evidence, answers and analysis are imported by their names
    "__main__": {"console", "installation", "sweep"},
    "run": {"__main__"},
    "hydra_plugins": {"sweep"},
    # sweep: scale_up.py, which types commands; answers: budget.py, which asks finished runs
    "analysis": {"answers", "command_line", "evidence", "files", "sweep"},
    # evidence: the figure of speed.py
    "bench": {
        *(
            "command_line",
            "config",
            "evidence",
            "experiment",
            "files",
            "model",
            "objectives",
            "rng",
            "tasks",
            "training",
        ),
        "types",
    },
}

# Inside config/: each part may import the parts of the lines above its own.
CONFIG_ORDER = (
    {"choices", "errors", "key_table"},
    {"keys"},
    {"facts"},
    {"run_config"},
    {"plugins"},
    {"resolve", "inactive", "controls", "bounds", "plain"},
    {"finished_run"},
    {"contents"},
    {"identity", "builders"},
    {"checks"},
)

# The packages that each room may import beyond the standard library; some files have a line of their own.
PACKAGES: dict[str, set[str]] = {
    "types": {"torch"},
    "positions": {"torch"},
    "numerics": {"torch"},
    "rng": {"torch"},
    "graphs": {"torch"},
    "files": set(),
    "console": set(),
    "installation": set(),
    "command_line": set(),
    "thought_record": {"numpy"},
    "assets": {"datasets", "huggingface_hub", "safetensors", "torch", "transformers"},
    "tasks": {"numpy", "tokenizers", "torch"},
    "objectives": {"torch"},
    "model": {"torch"},
    "model.backbones": {"torch", "transformers"},
    "training": {"torch"},
    "training.evaluation": {"numpy", "torch"},
    "config": {"omegaconf"},
    "config.builders": {"safetensors", "torch", "transformers"},
    "config.checks": {"torch"},  # whether the device asked for is there
    "config.plugins.batches": {"torch"},  # draws some
    "evidence": {"matplotlib", "numpy", "pandas", "scipy"},
    "experiment": {"numpy", "safetensors", "torch", "wandb"},
    "answers": {"numpy", "scipy", "torch"},
    "answers.harness": {"lm_eval", "torch"},
    "sweep": {"filelock", "hydra", "omegaconf", "pandas", "tqdm"},
    "sweep.executors": {"omegaconf", "ray", "submitit"},
    "__main__": {"omegaconf"},
    "run": set(),
    "hydra_plugins": {"hydra", "omegaconf"},
    "analysis": {"matplotlib", "numpy", "pandas", "scipy"},
    "bench": {"jax", "numpy", "torch", "transformers"},
}

# What toyqs/__init__.py may import, inside a function: the faces of `import toyqs`.
FACES = {"toyqs.sweep.calls"}

# Packages that are slow to import and rarely used, or usually not installed -> the files that import them at
# their head; all others import them inside functions.
ONLY_INSIDE_FUNCTIONS = {
    "transformers": {
        *(f"model.backbones.{name}" for name in ("decoder", "functional_layers", "transformer")),
        *("bench.library_ways", "bench.transformer"),
    },
    "jax": {"bench.jax_step"},
    "lm_eval": {"answers.harness"},
    **{name: set() for name in ("datasets", "huggingface_hub", "ray", "submitit", "tokenizers", "wandb")},
}
# Files of the project that are imported inside functions only -> the files that import them at their head.
LAZY_MODULES = {
    "toyqs.model.backbones.functional_layers": {"toyqs.model.backbones.decoder"},
    "toyqs.model.backbones.decoder": {"toyqs.model.backbones.transformer"},
    "toyqs.model.backbones.transformer": {"bench.library_ways", "bench.transformer"},
    "toyqs.answers.harness": set(),
    "bench.jax_step": set(),
}
