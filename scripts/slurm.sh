#!/usr/bin/env bash
# Trains on GPUs under Slurm, one process for each, and is queued again where a process was lost or the job preempted:
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 scripts/slurm.sh --config=configs/NAME.py --workdir=DIR
# DIR must be on a file system that all nodes share. The processes find each other by Slurm's variables.
#SBATCH --job-name=train
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}" || exit 1
srun --kill-on-bad-exit=0 python train.py "$@"
code=$?
# 75: another process was lost; 143: SIGTERM, with the step saved. Both go on from the last checkpoint.
if ((code == 75 || code == 143)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
