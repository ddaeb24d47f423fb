#!/usr/bin/env bash
# One command from a fresh machine to a result: makes .venv when absent, installs requirements.txt, runs. Never deletes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./launch.sh COMMAND [ARGUMENTS]

  quickstart [--config.key=value ..]           train and evaluate on photographs in minutes, without a GPU
  train CONFIG [--config.key=value ..]         train and evaluate an experiment, e.g. experiments/folder.py
  train CONFIG .. --slurm [SLURM OPTIONS]      the same as a job of a SLURM cluster
  sweep FILE [--variants=a,b] [--seeds=0,1]    train the variants of a sweep file, e.g. experiments/ablation.py, and report;
                                               also --smoke (toy size), --report (only), --dry-run (print the commands)
  sweep FILE .. --slurm [SLURM OPTIONS]        the same as a job array, one training per task; then once --report
  evaluate --run=DIR [--compare=DIR ..]        evaluate a run beside baselines, other runs, other programs
  inpaint PHOTO MASK OUT ..                    fill a photograph, or a folder of them; white in the mask is the hole
  web [FOLDER] [--port=N] [--no-browser] ..    fill photographs on a page with a brush, on this machine alone
  infill --weights=FILE --data=FILE.nc ..      fill missing values of a NetCDF file on a grid of the whole earth
  masks --out=FILE [--kind=strokes ..]         draw a grid of masks
  test [pytest arguments]                      run the tests (default: all but slow, gpu and browser)
  help                                         this text

SLURM options: --nodes=1, --gpus-per-node=1 (0 for none), --cpus-per-task=4 (default 4 per GPU), --sbatch="--time=4:00:00 --account=x"
(any options of sbatch, repeatable), --dry-run (print the script, submit nothing). The log is runs/<config>-<job>.out (of an array
runs/<config>-<job>_<task>.out); a job that reaches its time limit or is preempted saves a checkpoint, queues again and goes on.

The same train or sweep command started again resumes. PYTHON=python3.12 ./launch.sh .. chooses the interpreter for .venv;
PCONV_PYTHON=/path/to/python uses an environment of your own, as it is, instead of .venv. Paths are relative to this file.
TEXT
}

fail() {
  echo "error: $1" >&2
  exit 2
}

# Installs when .venv is absent, was left half-made, or was made for other requirements.
install_requirements() {
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
keep_memory() {
  if [[ $(uname -s) == Linux && ${PCONV_MALLOC:-keep} == keep && ! -e /dev/nvidia0 ]]; then
    export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=67108864 MALLOC_ARENA_MAX=1
  fi
}

# Before Python starts on this machine.
prepare() {
  install_requirements
  keep_memory
}

# The sbatch script for `./launch.sh "${arguments[@]}"`: one task per node, which drives all GPUs of its node. With a
# $count, an array of so many of them, each of which is told its number by --only.
job_script() {
  cat <<TEXT
#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=$cpus
#SBATCH --output=runs/$name-$([[ -z $count ]] && echo %j || echo %A_%a).out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
TEXT
  [[ -z $count ]] || echo "#SBATCH --array=0-$((count - 1))"
  [[ $gpus == 0 ]] || echo "#SBATCH --gres=gpu:$gpus"
  [[ ${#options[@]} == 0 ]] || printf '#SBATCH %s\n' "${options[@]}"
  printf '\ncd %q || exit\nlaunch=(env' "$PWD"
  printf ' %q' PCONV_PYTHON="$interpreter" ./launch.sh "${arguments[@]}"
  [[ -z $count ]] || printf ' "--only=$SLURM_ARRAY_TASK_ID"'
  cat <<'TEXT'
)
status=0
# The host that ends first must not kill one that still saves. The number of CPUs is not handed on since SLURM 22.05.
srun --label --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" "${launch[@]}" || status=$?
# Training saved a checkpoint at SIGTERM, which SLURM sends two minutes before the time limit.
if [[ $status == 75 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
TEXT
}

# `train CONFIG ..` or `sweep FILE ..` with --slurm: takes out SLURM's options and hands the rest to a job, or an array.
submit() {
  local arguments=() options=() nodes=1 gpus=1 cpus="" dry_run="" count="" name option
  for option in "$@"; do
    case $option in
      --slurm) ;;
      --dry-run) dry_run=yes ;;
      --nodes=*) nodes=${option#*=} ;;
      --gpus-per-node=*) gpus=${option#*=} ;;
      --cpus-per-task=*) cpus=${option#*=} ;;
      --sbatch=*) options+=("${option#*=}") ;;
      --slurm=* | --dry-run=* | --nodes | --gpus-per-node | --cpus-per-task | --sbatch)
        fail "$option: write --slurm, --dry-run, --nodes=N, --gpus-per-node=N, --cpus-per-task=N, --sbatch=OPTIONS"
        ;;
      *) arguments+=("$option") ;;
    esac
  done
  [[ $nodes =~ ^[1-9][0-9]*$ ]] || fail "--nodes=$nodes; needs a whole number from 1"
  [[ $gpus =~ ^(0|[1-9][0-9]*)$ ]] ||
    fail "--gpus-per-node=$gpus; needs a whole number (of one type: --gpus-per-node=0 --sbatch=--gres=gpu:TYPE:N)"
  cpus=${cpus:-$((gpus > 0 ? 4 * gpus : 4))}
  [[ $cpus =~ ^[1-9][0-9]*$ ]] || fail "--cpus-per-task=$cpus; needs a whole number from 1"
  for option in ${options[@]+"${options[@]}"}; do
    [[ $option == -* && $option != *$'\n'* ]] || fail "--sbatch=$option; needs options of sbatch, e.g. --sbatch=--time=4:00:00"
  done
  [[ -f ${2%%:*} ]] || fail "$2 is not there; $1 needs a config file first, e.g. experiments/folder.py"
  name=${2%%:*}
  name=${name##*/}
  name=${name%.py}
  name=${name//[^A-Za-z0-9._-]/_}
  if [[ -z $dry_run ]]; then
    command -v sbatch >/dev/null ||
      fail "sbatch is not on PATH; submit on a host of a SLURM cluster, or look at the script with --dry-run"
    install_requirements
  fi
  if [[ $1 == sweep ]]; then
    command -v "$interpreter" >/dev/null || fail "$interpreter is not there, and only it can tell how many runs there are"
    count=$("$interpreter" -m pconv_jax.sweep --config="${arguments[@]:1}" --count)
  fi
  if [[ -n $dry_run ]]; then
    job_script
    return
  fi
  mkdir -p runs
  job_script | sbatch
  if [[ $1 == sweep ]]; then
    printf 'when all are done: ./launch.sh%s --report\n' "$(printf ' %q' "${arguments[@]}")" >&2
  fi
}

interpreter=${PCONV_PYTHON:-.venv/bin/python}
command=${1:-help}
[[ $# -gt 0 ]] && shift
case $command in
  quickstart)
    prepare
    exec "$interpreter" -m pconv_jax.main --config=experiments/quickstart.py "$@"
    ;;
  train | sweep)
    if [[ $# -eq 0 || $1 == --* ]]; then
      example="folder.py --config.data.path=DIR"
      [[ $command == train ]] || example=ablation.py
      fail "$command needs a config file first, e.g. ./launch.sh $command experiments/$example"
    fi
    for argument in "$@"; do
      if [[ $argument == --slurm ]]; then
        submit "$command" "$@"
        exit
      fi
    done
    prepare
    config=$1
    shift
    [[ $command == sweep ]] && module=sweep || module=main
    exec "$interpreter" -m "pconv_jax.$module" --config="$config" "$@"
    ;;
  evaluate)
    prepare
    exec "$interpreter" -m pconv_jax.evaluate "$@"
    ;;
  inpaint)
    prepare
    exec "$interpreter" -m pconv_jax.inpaint "$@"
    ;;
  web)
    prepare
    exec "$interpreter" -m pconv_jax.web "$@"
    ;;
  infill)
    prepare
    exec "$interpreter" -m pconv_jax.infill "$@"
    ;;
  masks)
    prepare
    exec "$interpreter" -m pconv_jax.tools.mask_sheet "$@"
    ;;
  test)
    prepare
    exec "$interpreter" -m pytest -n auto --maxprocesses=8 --dist=loadgroup "$@"
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
