#!/usr/bin/env bash
# One command from a fresh machine to a result: makes .venv when absent, installs requirements.txt, runs. Never deletes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./launch.sh COMMAND [ARGUMENTS]

  quickstart [--config.key=value ..]           train and evaluate on photographs in minutes, without a GPU
  train CONFIG [--config.key=value ..]         train and evaluate an experiment, e.g. experiments/folder.py
  evaluate --run=DIR [--compare=DIR ..]        evaluate a run beside baselines, other runs, other programs
  inpaint --run=DIR --image=.. --mask=.. ..    fill a photograph, or a folder of them
  masks --out=FILE [--kind=strokes ..]         draw a contact sheet of masks
  test [pytest arguments]                      run the tests (default: all but slow and gpu)
  help                                         this text

The same train command started again resumes. PYTHON=python3.12 ./launch.sh .. chooses the interpreter for .venv;
PCONV_PYTHON=/path/to/python uses an environment of your own, as it is, instead of .venv. Paths are relative to this file.
TEXT
}

# Installs when .venv is absent, was left half-made, or was made for other requirements.
prepare() {
  if [[ -n ${PCONV_PYTHON:-} ]]; then
    return
  fi
  local stamp=.venv/requirements.cksum want
  want=$(cksum requirements.txt)
  if [[ ! -f $stamp || $(<"$stamp") != "$want" ]]; then
    local python=${PYTHON:-python3}
    command -v "$python" >/dev/null || {
      echo "error: $python is not there; needs Python 3.11 or newer: install it, or set PYTHON=/path/to/python3.11" >&2
      exit 1
    }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      echo "error: $("$python" --version 2>&1) is too old; needs Python 3.11 or newer: set PYTHON=/path/to/python3.11" >&2
      exit 1
    }
    echo "installing requirements.txt into .venv" >&2
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    echo "$want" >"$stamp"
  fi
}

# glibc gives freed memory back and faults it in again at every step. Kept, the quickstart's step is 1.1 times faster on
# two cores, and the process keeps more memory. PCONV_MALLOC=system leaves the allocator alone, and so does a GPU.
if [[ $(uname -s) == Linux && ${PCONV_MALLOC:-keep} == keep && ! -e /dev/nvidia0 ]]; then
  export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=67108864 MALLOC_ARENA_MAX=1
fi

interpreter=${PCONV_PYTHON:-.venv/bin/python}
command=${1:-help}
[[ $# -gt 0 ]] && shift
case $command in
  quickstart)
    prepare
    exec "$interpreter" -m pconv_jax.main --config=experiments/quickstart.py "$@"
    ;;
  train)
    if [[ $# -eq 0 || $1 == --* ]]; then
      echo "error: train needs a config file first, e.g. ./launch.sh train experiments/folder.py --config.data.path=DIR" >&2
      exit 2
    fi
    prepare
    config=$1
    shift
    exec "$interpreter" -m pconv_jax.main --config="$config" "$@"
    ;;
  evaluate)
    prepare
    exec "$interpreter" -m pconv_jax.evaluate "$@"
    ;;
  inpaint)
    prepare
    exec "$interpreter" -m pconv_jax.inpaint "$@"
    ;;
  masks)
    prepare
    exec "$interpreter" -m pconv_jax.tools.mask_sheet "$@"
    ;;
  test)
    prepare
    exec "$interpreter" -m pytest -n auto --maxprocesses=8 "$@"
    ;;
  help | -h | --help)
    usage
    ;;
  *)
    echo "error: unknown command $command" >&2
    usage >&2
    exit 2
    ;;
esac
