"""Trains a model: python train.py --config=configs/quickstart.py --workdir=DIR

The same command goes on where a stopped run ended. --describe [--json] prints parameters and FLOPs per byte instead.
It ends with code 0 when the model is trained, 1 and one sentence where the user can mend something, and 128 + n after
signal n (130: Ctrl-C, 143: SIGTERM), with the step saved.
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
from ml_collections import config_flags

import training
from training import command_line, description

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'The experiment, such as configs/quickstart.py.', lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory for checkpoints and metrics; a run goes on where it has some.'
)
_DESCRIBE = flags.DEFINE_bool('describe', False, 'Print parameters and FLOPs per byte by component, and end.')
_JSON = flags.DEFINE_bool('json', False, 'With --describe: as JSON.')
flags.mark_flag_as_required('config')


def main(_: list[str]) -> None:
  """Describes or trains, as the flags say."""
  if _DESCRIBE.value:
    found = training.describe(_CONFIG.value)
    print(json.dumps(found, indent=2) if _JSON.value else description.table(found))
  elif _WORKDIR.value is None:
    raise ValueError('--workdir is missing: name a directory for checkpoints and metrics, or use --describe')
  else:
    training.train(_CONFIG.value, _WORKDIR.value)


if __name__ == '__main__':
  command_line.run(main)
