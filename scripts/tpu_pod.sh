#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU pod slice by gcloud; the processes find each other by the slice's own metadata:
#   TPU=name ZONE=us-east5-a scripts/tpu_pod.sh --config=configs/hnet_2stage_xl.py --workdir=/mnt/shared/xl
# Each host has this repository in ~/hnet-jax, requirements.txt and jax[tpu] installed, and sees the work directory.
set -euo pipefail
: "${TPU:?name the TPU VM, TPU=name}" "${ZONE:?name its zone, ZONE=us-east5-a}"
printf -v arguments ' %q' "$@"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd ~/hnet-jax && exec python3 train.py$arguments"
