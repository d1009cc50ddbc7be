#!/usr/bin/env bash
# Trains with one process for each GPU of this machine (a single process that uses all of them is plain train.py):
#   PROCESSES=8 scripts/one_machine.sh --config=configs/hnet_1stage_l.py --workdir=runs/hnet_1stage_l
# DEVICES=none leaves the devices to JAX, as for a trial of two processes on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
processes=${PROCESSES:?say how many processes, PROCESSES=8}
port=${PORT:-8476}
started=()
trap 'kill -TERM "${started[@]}" 2>/dev/null' TERM INT # a signal to one stops all after the same step, saved
trap 'kill -HUP "${started[@]}" 2>/dev/null' HUP        # a terminal that closes tells them, too: once is enough
for ((process = 0; process < processes; process++)); do
  if [[ ${DEVICES:-} != none ]]; then export JAX_LOCAL_DEVICE_IDS=$process; fi
  python train.py --coordinator_address="localhost:$port" --num_processes="$processes" --process_id="$process" "$@" &
  started+=($!)
done
code=0
for process in "${started[@]}"; do
  wait "$process"
  ended=$?
  while kill -0 "$process" 2>/dev/null; do # a signal ends `wait`, not the process
    wait "$process"
    ended=$?
  done
  if ((ended > code)); then code=$ended; fi
done
exit "$code"
