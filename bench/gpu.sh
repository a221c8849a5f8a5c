#!/usr/bin/env bash
# All that this project wants to know of a GPU; `bash bench/gpu.sh --help` says more.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
carried=$root/.carried
names=(hydra-core omegaconf antlr4-python3-runtime tqdm filelock)

usage() {
  cat <<'TXT'
usage: bash bench/gpu.sh [carry | try]

On a machine with an NVIDIA GPU and torch from 2.9 on, without a network, in at most 8 minutes: tests on the GPU,
training steps, the default job, a transformer, the card itself.
  bash bench/gpu.sh carry   where there is a network: puts pure Python that such a machine may lack into .carried
  bash bench/gpu.sh         on the machine; .carried goes along with the checkout
  bash bench/gpu.sh try     all parts in small on the CPU: does it work?
Writes gpu.md and gpu.json into $OUT, or else into bench-gpu in the current folder. Where the checkout has no .git
there, COMMIT=... says what is tried. Python: that of .venv, or else python3 (PYTHON=/path/to/another).
TXT
}

fail() { printf 'gpu: %s\n' "$*" >&2; exit 1; }

# Exactly the locked versions; moved into place only when whole.
carry() {
  local new=$carried.new name wanted=()
  for name in "${names[@]}"; do
    wanted+=("$(grep -m 1 "^$name==[^ ]*$" "$root/requirements.lock")") || fail "requirements.lock has no $name"
  done
  rm -rf -- "$new"
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$python" -m pip install -q --no-deps --no-compile --target "$new" "${wanted[@]}" ||
    fail "pip could not install ${wanted[*]}: is the package index reachable?"
  rm -rf -- "$new/bin"
  [ -z "$(find "$new" -name '*.so' -print -quit)" ] || fail "${wanted[*]}: not pure Python"
  PYTHONPATH=$new PYTHONDONTWRITEBYTECODE=1 "$python" - "$new" <<'PY' || fail "what was carried cannot be imported"
import os, sys
import antlr4, filelock, hydra, omegaconf, tqdm
elsewhere = [m.__name__ for m in (antlr4, filelock, hydra, omegaconf, tqdm) if not m.__file__.startswith(sys.argv[1])]
sys.exit(f"imported from elsewhere: {elsewhere}" if elsewhere else 0)
PY
  rm -rf -- "$carried"
  mv -- "$new" "$carried"
  printf 'gpu: %s in .carried: %s\n' "$(du -sh "$carried" | cut -f 1)" "${wanted[*]}"
}

# What every part needs; what a single part lacks is a line of its table.
check() {
  "$python" - <<'PY' || exit 1
import importlib.util, re, sys
from importlib import metadata
lacking = [n for n in ("torch", "numpy", "pandas", "safetensors", "yaml", "packaging") if not importlib.util.find_spec(n)]
if lacking:
    sys.exit(f"gpu: {sys.executable} has no {', '.join(lacking)}: name a Python that has, PYTHON=/path/to/it")
if tuple(map(int, re.findall(r"\d+", metadata.version("torch"))[:2])) < (2, 9):
    sys.exit(f"gpu: torch {metadata.version('torch')} is too old: 2.9 or newer is needed")
lacking = [n for n in ("hydra", "omegaconf", "antlr4", "tqdm", "filelock") if not importlib.util.find_spec(n)]
if lacking:
    sys.exit(f"gpu: no {', '.join(lacking)} here: call 'bash bench/gpu.sh carry' where there is a network, and take .carried along")
PY
}

python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
python=${PYTHON:-$python}
command -v "$python" >/dev/null || fail "no $python here: name another, PYTHON=/path/to/it"
device=cuda
case "$#:$*" in
  0:) ;;
  1:try) device=cpu ;;
  1:carry) carry; exit 0 ;;
  1:-h | 1:--help) usage; exit 0 ;;
  *) printf 'gpu: unknown argument: %s (bash bench/gpu.sh --help)\n' "$*" >&2; exit 2 ;;
esac
if [ -d "$carried" ]; then export PYTHONPATH=$carried${PYTHONPATH:+:$PYTHONPATH}; fi
check
exec "$python" "$root/bench/gpu.py" "--device=$device"
