#!/usr/bin/env bash
# Makes .venv beside this file and installs toyqs into it; `bash setup.sh --help` says more.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

torch_range=$(sed -n 's/^ *"\(torch[<>=][^"]*\)",$/\1/p' pyproject.toml)
cpu_index=https://download.pytorch.org/whl/cpu
venv=.venv
stamp=$venv/toyqs-setup
log=$venv/toyqs-setup.log
export PIP_USER=0 PIP_UPGRADE=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

usage() {
  cat <<'TXT'
usage: bash setup.sh [dev]

Makes .venv in this folder and installs toyqs and what it needs into it; nothing outside .venv changes,
but for Debian's venv package where Python lacks it and you are root.
  bash setup.sh        to run:  .venv/bin/python run.py
  bash setup.sh dev    to work on it (adds pytest, ruff, mypy, transformers):  .venv/bin/python -m pytest -q
About a minute the first time, a second when all is in place; after an interruption, call it again.

torch: a torch that .venv already has and that fits is kept. Else, where an NVIDIA GPU answers (nvidia-smi),
the package index's build; where none does, a CPU build and never the gigabytes of CUDA packages.
Needs: bash, Python 3.11 or newer (another than python3: PYTHON=/path/to/python3.12 bash setup.sh).
TXT
}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
pip_install() { "$venv/bin/python" -m pip install --no-compile "$@" >>"$log" 2>&1; }
# What pip does on one core, on all of them; a package may hold a file that does not compile.
compile_all() { "$venv/bin/python" -m compileall -q -j 0 "$venv"/lib/python3*/site-packages >>"$log" 2>&1 || true; }

# What an installation depends on: these files, the Python, this folder (a moved .venv still points to the old one).
fingerprint() {
  "$venv/bin/python" - <<'PY'
import hashlib, os, sys
parts = [open("pyproject.toml", "rb").read(), open("setup.sh", "rb").read(), sys.version.encode(), os.fsencode(os.getcwd())]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PY
}

# A plain installation is part of a dev one.
in_place() {
  [ -x "$venv/bin/python" ] && [ -f "$stamp" ] || return 1
  local now
  now=$(fingerprint 2>/dev/null) || return 1
  [ "$(cat "$stamp")" = "$now dev" ] || [ "$(cat "$stamp")" = "$now $mode" ] || return 1
  "$venv/bin/python" - "$mode" <<'PY' 2>/dev/null
import importlib.util, sys
names = "torch hydra numpy pandas matplotlib scipy safetensors tqdm wandb toyqs".split()
names += ["pytest", "xdist", "ruff", "mypy", "transformers"] if sys.argv[1] == "dev" else []
sys.exit(not all(importlib.util.find_spec(name) for name in names))
PY
}

check_python() {
  command -v "$python" >/dev/null || fail "no $python here: install Python 3.11 or newer"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail \
    "$python is $("$python" -c 'import platform; print(platform.python_version())'), but toyqs needs 3.11 or newer:" \
    "install one and call PYTHON=/path/to/it bash setup.sh"
}

# Debian and Ubuntu ship Python without the part that fills a new environment.
check_venv_module() {
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  local package
  package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  command -v apt-get >/dev/null || fail "$python has no venv module: install your system's package for it, then call this again"
  [ "$(id -u)" = 0 ] || fail "$python has no venv module: call 'sudo apt-get install $package', then this again"
  say "this Python has no venv module: installing $package by apt-get"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
    fail "apt-get could not install $package: install it, then call this again"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python still has no venv module: name a Python that has one, PYTHON=/usr/bin/python3 bash setup.sh"
}

make_venv() {
  if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  say "making $venv with Python $("$python" -c 'import platform; print(platform.python_version())')"
  "$python" -m venv --clear "$venv" || fail "could not make $venv: the lines above say why"
}

gpu_answers() {
  command -v nvidia-smi >/dev/null && timeout 20 nvidia-smi -L 2>/dev/null | grep -q '^GPU'
}

torch_fits() {
  "$venv/bin/python" - "$torch_range" <<'PY' 2>/dev/null
import importlib.metadata, sys
from pip._vendor.packaging.requirements import Requirement
sys.exit(not Requirement(sys.argv[1]).specifier.contains(importlib.metadata.version("torch")))
PY
}

# Asks pip what it would install, without installing it; prints the exact torch, or fails: 1 none found, 2 with CUDA.
resolve_torch() {
  local report=$venv/toyqs-torch.json
  pip_install --dry-run --report "$report" "$torch_range" "$@" || return 1
  "$venv/bin/python" - "$report" <<'PY'
import json, re, sys
found = {i["metadata"]["name"].lower(): i["metadata"]["version"] for i in json.load(open(sys.argv[1]))["install"]}
gpu = [name for name in found if name.startswith(("nvidia", "cuda"))]
if gpu or "torch" not in found or re.search(r"\+(cu|rocm)", found["torch"]):
    sys.exit(2)
print("torch==" + found["torch"])
PY
}

install_cpu_torch() {
  # Before 23.3, pip downloads whole files to find out what it would install.
  "$venv/bin/python" -c 'import pip; raise SystemExit(tuple(map(int, pip.__version__.split(".")[:2])) < (23, 3))' ||
    pip_install --retries 1 --timeout 20 --upgrade 'pip>=23.3' || true
  local from pinned status
  for from in "--index-url $cpu_index --retries 0 --timeout 10" ""; do
    # shellcheck disable=SC2086 # options without spaces
    pinned=$(resolve_torch $from) && status=0 || status=$?
    [ "$status" = 0 ] || continue
    say "no NVIDIA GPU answers: installing a CPU build, $pinned"
    # shellcheck disable=SC2086
    pip_install "$pinned" ${from/--retries 0/--retries 1} || give_up
    return
  done
  [ "$status" = 2 ] || give_up
  fail "no NVIDIA GPU answers, $cpu_index cannot be reached, and your package index has torch only with CUDA:" \
    "make that address reachable, or put a torch of your choice into .venv yourself" \
    "($venv/bin/python -m pip install ...), then call this again"
}

give_up() {
  tail -n 5 "$log" >&2
  fail "pip could not install this (last lines above, all of it in $log): is the package index reachable? Call this again to go on"
}

install_all() {
  make_venv
  : >"$log"
  if torch_fits; then
    say "keeping the torch that .venv has"
  elif gpu_answers; then
    say "an NVIDIA GPU answers: installing the package index's torch (gigabytes the first time)"
    pip_install "$torch_range" || give_up
  else
    install_cpu_torch
  fi
  say "installing toyqs and what it needs"
  if [ "$mode" = dev ]; then pip_install -e '.[dev,transformer]' || give_up; else pip_install -e . || give_up; fi
  compile_all
}

imports() {
  "$venv/bin/python" -c 'import hydra, matplotlib, numpy, pandas, safetensors, scipy, torch, tqdm, wandb, toyqs' >>"$log" 2>&1
}

mode=run
case "$#:${1:-}" in
  0:) ;;
  1:dev) mode=dev ;;
  1:-h | 1:--help) usage; exit 0 ;;
  *) printf 'setup: unknown argument: %s (bash setup.sh --help)\n' "$*" >&2; exit 2 ;;
esac
python=${PYTHON:-python3}

if in_place; then
  say "all is in place ($venv)"
  exit 0
fi
check_python
check_venv_module
rm -f "$stamp"
install_all
if ! imports; then
  say "something in $venv is broken: making it anew"
  "$python" -m venv --clear "$venv"
  install_all
  imports || give_up
fi
printf '%s %s\n' "$(fingerprint)" "$mode" >"$stamp"
if [ "$mode" = dev ]; then next="-m pytest -q"; else next="run.py"; fi
say "done in $SECONDS s; next: $venv/bin/python $next"
