#!/usr/bin/env bash
# Makes .venv in this folder and installs toyqs into it; `bash setup.sh --help` says more.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

lock=requirements.lock
torch_range=$(sed -n 's/^ *"\(torch[<>=][^"]*\)",$/\1/p' pyproject.toml)
extras=dev,transformer,cluster,ray,tensorboard,docs # of pyproject.toml, which the tests need
cpu_index=https://download.pytorch.org/whl/cpu
venv=.venv
stamp=$venv/toyqs-setup
log=$venv/toyqs-setup.log
held=$venv/toyqs-constraints.txt
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PYTHONHOME PYTHONPATH # they would lead away from .venv
unset PYTHONDONTWRITEBYTECODE # what is imported at the end is compiled for good
export PIP_USER=0 PIP_UPGRADE=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

usage() {
  cat <<'TXT'
usage: bash setup.sh [dev] [newest | lowest]

Makes .venv in this folder and installs toyqs and what it needs into it; nothing outside .venv changes,
but for Debian's venv package where Python lacks it and you are root.
  bash setup.sh        to run:  .venv/bin/python run.py
  bash setup.sh dev    to work on it (adds pytest, ruff, mypy, all that is optional):  .venv/bin/python -m pytest -q
About a minute the first time, a second when all is in place; after an interruption, call it again.

Versions: those of requirements.lock, which were tested together. With newest, the newest that the ranges in
pyproject.toml allow, asked for at each call; with lowest, the lower ends of the ranges (on Python 3.11).

torch: a torch that .venv already has and that is in range is kept (with newest or lowest: if there is no
better). Else, where an NVIDIA GPU answers (nvidia-smi), the package index's build; where none does, a CPU build
and never the gigabytes of CUDA packages.
Needs: bash, Python 3.11 or newer (another than python3: PYTHON=/path/to/python3.12 bash setup.sh).
A C++ compiler, where there is one, compiles the kernels by which GRUs train faster (docs/sweeps.md#kernels).
TXT
}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
pip_install() { "$venv/bin/python" -m pip install --no-compile "$@" >>"$log" 2>&1; }

# What an installation depends on: these files, the Python, this folder (a moved .venv still points to the old one).
fingerprint() {
  "$venv/bin/python" - <<'PY'
import hashlib, os, sys
parts = [open(name, "rb").read() for name in ("pyproject.toml", "setup.py", "setup.sh", "requirements.lock")]
parts += [sys.version.encode(), os.fsencode(os.getcwd())]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PY
}

# A plain installation is part of a dev one. What is newest, only the index knows.
in_place() {
  [ "$versions" != newest ] && [ -x "$venv/bin/python" ] && [ -f "$stamp" ] || return 1
  local now
  now=$(fingerprint 2>/dev/null) || return 1
  [ "$(cat "$stamp")" = "$now dev $versions" ] || [ "$(cat "$stamp")" = "$now $mode $versions" ] || return 1
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
  "$venv/bin/python" - "$1" <<'PY' 2>/dev/null
import importlib.metadata, sys
from pip._vendor.packaging.requirements import Requirement
sys.exit(not Requirement(sys.argv[1]).specifier.contains(importlib.metadata.version("torch")))
PY
}

# Asks pip what it would install, without installing it; prints the exact torch, or fails: 1 none found, 2 with CUDA.
# Prints nothing where the torch that is there is as good. With fast-deps, pip reads of a package only the part that
# names what it needs, not the whole: gigabytes of CUDA on some indexes.
resolve_torch() {
  local report=$venv/toyqs-torch.json
  pip_install --dry-run --use-feature=fast-deps --upgrade --report "$report" "$@" || return 1
  "$venv/bin/python" - "$report" <<'PY'
import json, re, sys
found = {i["metadata"]["name"].lower(): i["metadata"]["version"] for i in json.load(open(sys.argv[1]))["install"]}
gpu = [name for name in found if name.startswith(("nvidia", "cuda"))]
if gpu or re.search(r"\+(cu|rocm)", found.get("torch", "")):
    sys.exit(2)
print("torch==" + found["torch"] if "torch" in found else "")
PY
}

# Fails as resolve_torch does.
install_cpu_torch() {
  local from pinned status
  for from in "--index-url $cpu_index --retries 0 --timeout 10" ""; do
    # shellcheck disable=SC2086 # options without spaces
    pinned=$(resolve_torch "$1" $from) && status=0 || status=$?
    [ "$status" = 0 ] || continue
    if [ -z "$pinned" ]; then say "keeping the torch that .venv has"; return; fi
    say "no NVIDIA GPU answers: installing a CPU build, $pinned"
    # shellcheck disable=SC2086
    pip_install "$pinned" ${from/--retries 0/--retries 1} || give_up
    return
  done
  return "$status"
}

install_gpu_torch() {
  say "an NVIDIA GPU answers: installing the package index's $1 (gigabytes the first time)"
  if [ "$1" = "$torch_locked" ]; then pip_install "$1" -c "$lock"; else pip_install --upgrade "$1"; fi
}

# The version that is asked for; where the index has no such build, another in range.
install_torch() {
  local wanted kept install=install_cpu_torch status
  case $versions in
    locked) wanted=$torch_locked kept=$torch_range ;;
    lowest) wanted=${torch_range%%,*} wanted=${wanted/>=/==} kept=$wanted ;;
    newest) wanted=$torch_range kept= ;;
  esac
  if [ -n "$kept" ] && torch_fits "$kept"; then
    say "keeping the torch that .venv has"
    return
  fi
  if gpu_answers; then install=install_gpu_torch; else new_pip; fi
  $install "$wanted" && return || status=$?
  if torch_fits "$torch_range"; then
    say "no $wanted to be had: keeping the torch that .venv has"
    return
  fi
  if [ "$wanted" != "$torch_range" ]; then
    say "no $wanted to be had: looking for another of $torch_range"
    $install "$torch_range" && return || status=$?
  fi
  [ "$status" = 2 ] || give_up
  fail "no NVIDIA GPU answers, $cpu_index cannot be reached, and your package index has torch only with CUDA:" \
    "make that address reachable, or put a torch of your choice into .venv yourself" \
    "($venv/bin/python -m pip install ...), then call this again"
}

# Before 25.3, pip downloads whole files to find out what it would install, where an index does not tell.
new_pip() {
  "$venv/bin/python" -c 'import pip; raise SystemExit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 3))' ||
    pip_install --retries 1 --timeout 20 --upgrade 'pip>=25.3' || true
}

# What pip is held to in addition to the ranges, one requirement a line. An installed torch stays, and with it what it
# alone asks for.
constraints() {
  "$venv/bin/python" - "$versions" "$lock" "$extras" <<'PY'
import importlib.metadata, re, sys, tomllib
from pip._vendor.packaging.requirements import Requirement
versions, lock = sys.argv[1:3]
lines = []
if versions == "locked":
    lines = open(lock, encoding="utf-8").read().splitlines()
elif versions == "lowest":
    project = tomllib.load(open("pyproject.toml", "rb"))["project"]
    extras = project["optional-dependencies"]
    chosen = [wanted for name in sys.argv[3].split(",") for wanted in extras[name]]
    for wanted in map(Requirement, project["dependencies"] + chosen):
        lines += [f"{wanted.name}=={part.version}" for part in wanted.specifier if part.operator == ">="]
lines = [line for line in lines if not re.match("(torch|triton|nvidia-.*|cuda-.*)==", line)]
print("\n".join([*lines, "torch===" + importlib.metadata.version("torch")]))
PY
}

give_up() {
  tail -n 20 "$log" | grep -A 6 'The conflict is caused by' >&2 || tail -n 5 "$log" >&2
  fail "pip could not install this (what it says above, all of it in $log): is the package index reachable? Call this again to go on"
}

install_all() {
  local what=. upgrade=()
  [ "$mode" = run ] || what=".[$extras]"
  [ "$versions" != newest ] || upgrade=(--upgrade --upgrade-strategy eager)
  make_venv
  : >"$log"
  install_torch
  say "installing toyqs and what it needs, in the $versions versions"
  constraints >"$held"
  pip_install "${upgrade[@]}" -c "$held" -e "$what" || give_up
}

# Pip compiles nothing, for nine files in ten are never imported: here, what a training needs.
imports() {
  "$venv/bin/python" -c 'import hydra, tqdm, wandb, toyqs.sweep.main' >>"$log" 2>&1
}

# Once, for the first run would else wait for it.
build_kernels() {
  local why
  why=$("$venv/bin/python" - 2>>"$log" <<'PY'
from toyqs.model.backbones.kernels import library
try:
    library.load()
except library.Unavailable as error:
    print(error)
PY
  ) || why="the end of $log says why"
  [ -z "$why" ] || say "no native kernels: $why; torch's train the same models, only slower"
}

mode=run versions=locked
case "$#:$*" in
  0:) ;;
  1:dev) mode=dev ;;
  1:newest | 1:lowest) versions=$1 ;;
  2:"dev newest" | 2:"dev lowest") mode=dev versions=$2 ;;
  1:-h | 1:--help) usage; exit 0 ;;
  *) printf 'setup: unknown argument: %s (bash setup.sh --help)\n' "$*" >&2; exit 2 ;;
esac
[ -f "$lock" ] || fail "$lock is missing here: take it from the repository"
torch_locked=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$lock")
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
build_kernels
printf '%s %s %s\n' "$(fingerprint)" "$mode" "$versions" >"$stamp"
if [ "$mode" = dev ]; then next="-m pytest -q"; else next="run.py"; fi
say "done in $SECONDS s; next: $venv/bin/python $next"
