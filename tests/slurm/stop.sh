#!/usr/bin/env bash
# Stops what start.sh started in DIR, the jobs first, and waits until all of it is gone. What did not start is no error.
set -euo pipefail
dir=$(realpath "$1")
export SLURM_CONF=$dir/slurm.conf

if [[ -s $dir/slurmctld.pid ]]; then
  for _ in {1..40}; do
    [[ -z $(squeue --noheader) ]] && break
    scancel --user="$(id -un)" || true # each time: a job may have requeued itself
    sleep 1
  done
fi

# munged last: the others need it to end.
for name in "$(hostname -s)" localhost slurmctld munged; do
  pid=$(cat "$dir/$name.pid" 2>/dev/null) && kill "$pid" 2>/dev/null || continue
  for _ in {1..100}; do
    kill -0 "$pid" 2>/dev/null || continue 2
    sleep 0.1
  done
  kill -9 "$pid"
done
