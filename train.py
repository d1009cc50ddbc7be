"""Trains a model: python train.py --config=configs/quickstart.py --workdir=DIR

--config.KEY=VALUE changes any key of the experiment (training/config_flag.py).

The same command goes on where a stopped run ended. --describe [--json] prints parameters and FLOPs per byte instead,
--describe --verbose every key of the experiment and its value too.
On several machines, or with several processes on one, it is the same command in each: on TPU pods, under Slurm, Open
MPI and Kubernetes as it is, elsewhere with --coordinator_address, --num_processes and --process_id (docs/scale.md).
It ends with code 0 when the model is trained, 1 and one sentence where the user can mend something, 128 + n after
signal n (129: a closed terminal, 130: Ctrl-C, 143: SIGTERM), with the step saved, and 75 where another process of the
run was lost: the same command in all goes on.
"""

import os
import sys

if __name__ == '__main__' and sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
  # A step's buffers in huge pages: on a CPU, page faults on fresh memory are up to a third of the time. The quickstart
  # on 2 cores: 16 kB/s, against 11.5 kB/s with `GLIBC_TUNABLES=` before the command. glibc reads this when a process
  # starts, hence the new start; others ignore it.
  os.environ['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

import json

from absl import flags

import training
from text import paths
from training import command_line, compile_for, config_flag, description, processes
from training import config as config_lib

config_flag.define('The experiment, such as configs/quickstart.py.')
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory for checkpoints and metrics; a run goes on where it has some.'
)
_DESCRIBE = flags.DEFINE_bool('describe', False, 'Print parameters and FLOPs per byte by component, and end.')
_VERBOSE = flags.DEFINE_bool('verbose', False, 'With --describe: every key of the experiment and its value, too.')
_JSON = flags.DEFINE_bool('json', False, 'With --describe or --compile_for: as JSON.')
_COMPILE_FOR = flags.DEFINE_string(
  'compile_for', None, 'Compile the step for absent devices, such as v5p:4x4x4 or h100:8, report its memory, and end.'
)
_CAPACITY = flags.DEFINE_enum(
  'capacity', 'stated', ['stated', 'full'], 'With --compile_for: room for the chunks that the model states, or for any.'
)
_COORDINATOR_ADDRESS = flags.DEFINE_string('coordinator_address', None, 'Several processes: host:port of process 0.')
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Several processes: how many there are.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Several processes: which this one is, from 0.')
_INITIALIZATION_TIMEOUT = flags.DEFINE_float(
  'initialization_timeout', processes.INITIALIZATION_TIMEOUT, 'Seconds until all processes must have come.'
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_float(
  'heartbeat_timeout', processes.HEARTBEAT_TIMEOUT, 'Seconds until a process that nothing is heard of counts as lost.'
)
_STALL_TIMEOUT = flags.DEFINE_float(
  'stall_timeout', processes.STALL_TIMEOUT, 'Seconds until processes in which no step ends are given up; 0: never.'
)


def main(_: list[str]) -> int | None:
  """Describes or trains, as the flags say."""
  config = config_flag.read()
  if config is None:
    raise ValueError('--config is missing: name an experiment, such as --config=configs/quickstart.py')
  if _DESCRIBE.value:
    found = training.describe(config) | ({'config': config_lib.resolve(config)} if _VERBOSE.value else {})
    print(json.dumps(found, indent=2) if _JSON.value else description.table(found))
  elif _COMPILE_FOR.value is not None:
    quiet = (lambda _: None) if _JSON.value else print
    report = compile_for.compile_step(config, _COMPILE_FOR.value, quiet, _CAPACITY.value == 'full')
    print(json.dumps(compile_for.as_data(report), indent=2) if _JSON.value else compile_for.as_text(report))
    return int(not report.fits)
  elif _WORKDIR.value is None:
    raise ValueError('--workdir is missing: name a directory for checkpoints and metrics, or use --describe')
  else:
    workdir = paths.of(_WORKDIR.value, '--workdir', text=True)
    with processes.taking_part(
      _COORDINATOR_ADDRESS.value,
      _NUM_PROCESSES.value,
      _PROCESS_ID.value,
      initialization_timeout=_INITIALIZATION_TIMEOUT.value,
      heartbeat_timeout=_HEARTBEAT_TIMEOUT.value,
      stall_timeout=_STALL_TIMEOUT.value,
    ):
      training.train(config, workdir)


if __name__ == '__main__':
  command_line.run(main)
