#!/usr/bin/env bash
# A SLURM on this machine for tests: munged, slurmctld and two nodes (two slurmd), with configuration and logs in DIR.
#   tests/slurm/start.sh DIR; export SLURM_CONF=DIR/slurm.conf; sbatch ..; tests/slurm/stop.sh DIR
# It shares nothing with a SLURM that the machine may have. Needs root, as slurmd does.
set -euo pipefail
dir=$(realpath "$1")
PATH=$PATH:/usr/sbin
host=$(hostname -s)

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)) && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

mkdir -p "$dir/munge" "$dir/state"
chmod 755 "$dir" "$dir/munge"
(umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
munged --key-file="$dir/munge.key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
  --log-file="$dir/munged.log" --seed-file="$dir/munged.seed"

# The second node is the first by another name, so that it has all CPUs as well and its name leads to this machine. A
# requeued job waits until its credential has expired: 5 seconds here, 120 by default.
cat >"$dir/slurm.conf" <<TEXT
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmUser=root
AuthInfo=socket=$dir/munge/socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 NodeHostname=$host Port=$(free_port) CPUs=$(nproc)
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname=$host Port=$(free_port) CPUs=$(nproc)
PartitionName=test Nodes=ALL Default=YES
TEXT
export SLURM_CONF=$dir/slurm.conf
slurmctld -i
slurmd -N "$host"
slurmd -N localhost

for _ in {1..60}; do
  [[ $(sinfo -h -o '%T %D' 2>/dev/null) == "idle 2" ]] && exit 0
  sleep 1
done
echo "error: the nodes did not become idle in 60 seconds: see $dir/*.log" >&2
exit 1
