"""Several trainings as one script: an array job of Slurm, workloads of XPK, or a shell script."""

import os
import pathlib
import re
import shlex
from collections.abc import Sequence

from studies.trainings import HOME, Training

SLURM = """\
#!/bin/bash
#SBATCH --job-name={job}
#SBATCH --array=0-{last}
#SBATCH --output=slurm-%A_%a.log
#SBATCH --requeue
#SBATCH --signal=TERM@300
# {count} trainings, each a task of this array. What they need goes to sbatch: sbatch --gres=gpu:1 --time=8:00:00 FILE
# Five minutes before the time is over they save their step; submitted again, each goes on there.
# shellcheck disable=SC2016 # flags are meant as they stand
set -euo pipefail
cd {here}
mkdir -p {study}
case "$SLURM_ARRAY_TASK_ID" in
{cases}
  *) echo "there is no training $SLURM_ARRAY_TASK_ID: use 0 to {last}" >&2; exit 2 ;;
esac
exec srun "${{run[@]}}" >> "$log" 2>&1
"""

XPK = """\
#!/bin/bash
# {count} trainings, each a workload: CLUSTER=my-cluster TPU_TYPE=v5litepod-16 bash FILE [flags of xpk workload create]
# Commands run in the image's copy of this repository; --workdir must lie on storage that all workloads mount. With
# --max-restarts=50 a workload that was preempted goes on where it stopped.
# shellcheck disable=SC2016 # flags are meant as they stand
set -uo pipefail
: "${{CLUSTER:?name the cluster}}" "${{TPU_TYPE:?name the type of TPU, such as v5litepod-16}}"
failed=()
create() {{
  xpk workload create --cluster="$CLUSTER" --tpu-type="$TPU_TYPE" --workload="$1" --command="$2" "${{@:3}}" \\
    || failed+=("$1")
}}
{cases}
if ((${{#failed[@]}})); then
  echo "not created: ${{failed[*]}}" >&2
  exit 1
fi
"""

SHELL = """\
#!/bin/bash
# {count} trainings, one after the other, or those whose numbers are given: bash FILE 0 2
# SIGTERM goes to the one that runs, which saves its step; the same command goes on there.
# shellcheck disable=SC2016 # flags are meant as they stand
set -uo pipefail
cd {here} || exit
run() {{
  case "$1" in
{cases}
    *) echo "there is no training $1: use 0 to {last}" >&2; exit 2 ;;
  esac
}}
child=''
trap 'kill -TERM "$child"' TERM
trap : INT # of a terminal: the training has it, too
failed=()
(($#)) || set -- {{0..{last}}}
for number; do
  run "$number" &
  child=$!
  while :; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2> /dev/null || break
  done
  if ((code > 128)); then exit "$code"; fi
  if ((code)); then failed+=("$number"); fi
done
if ((${{#failed[@]}})); then
  echo "failed: ${{failed[*]}}" >&2
  exit 1
fi
"""


def script(kind: str, trainings: Sequence[Training], study: pathlib.Path) -> str:
  """The script that runs them; kind: one of KINDS. study: the directory that they share."""
  count, job = len(trainings), re.sub('[^a-z0-9]+', '-', study.name.lower()).strip('-') or 'sweep'
  fill = {'count': count, 'last': count - 1, 'job': job}
  fill |= {'here': shlex.quote(os.getcwd()), 'study': shlex.quote(str(study.absolute()))}
  template, case = KINDS[kind]
  return template.format(**fill, cases='\n'.join(case(*numbered, job) for numbered in enumerate(trainings)))


def _slurm(number: int, training: Training, job: str) -> str:
  log = shlex.quote(str(training.workdir.absolute().with_name(f'{training.name}.log')))
  return f'  {number}) log={log}; run=({shlex.join(["python", *training.command])}) ;;'


def _xpk(number: int, training: Training, job: str) -> str:
  """A workload's name is of letters, digits and hyphens, at most 40, and begins with a letter."""
  name = f'{job if job[0].isalpha() else f"s{job}"}'[: 39 - len(str(number))].rstrip('-')
  command = shlex.join(['python', *(word.replace(f'{HOME}/', '') for word in training.command[:2])])
  return f'create {name}-{number} {shlex.quote(f"{command} {shlex.join(training.command[2:])}")} "$@"'


def _shell(number: int, training: Training, job: str) -> str:
  return f'    {number}) exec {shlex.join(["python", *training.command])} ;;'


KINDS = {'slurm': (SLURM, _slurm), 'xpk': (XPK, _xpk), 'shell': (SHELL, _shell)}
