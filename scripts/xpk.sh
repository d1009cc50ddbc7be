#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster by xpk, which starts one process for each host and starts them again when they
# end with an error:
#   CLUSTER=name TPU_TYPE=v5p-128 scripts/xpk.sh --config=configs/hnet_2stage_xl.py --workdir=/mnt/shared/runs/xl
# IMAGE: a base image with the requirements and jax[tpu]; xpk adds this directory to it.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CLUSTER:?name the cluster, CLUSTER=name}" "${TPU_TYPE:?name the slice, TPU_TYPE=v5p-128}"
printf -v arguments ' %q' "$@"
exec xpk workload create --cluster="$CLUSTER" --workload="${WORKLOAD:-train-$USER}" \
  --tpu-type="$TPU_TYPE" --num-slices="${SLICES:-1}" --max-restarts="${RESTARTS:-100}" \
  --base-docker-image="${IMAGE:-python:3.12}" --script-dir=. --command="python3 train.py$arguments"
