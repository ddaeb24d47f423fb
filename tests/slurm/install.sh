#!/usr/bin/env bash
# Installs SLURM and munge on Debian and Ubuntu, for the slow test that submits a job. Needs root; starts nothing.
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge
