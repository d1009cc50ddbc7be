"""Trains small models while everything goes wrong: python -m tests.campaign --minutes=60 --seed=0

Each round trains a tiny model, in one process or in two, and injects faults at random moments: signals, a full disk,
damage to the newest checkpoint, a killed data worker, a clock that jumps. Whatever ends the run, it is started again by
the same call, until it is trained; then its parameters, optimizer, average and losses must be bit-equal to those of a
run that nothing happened to, and no start may have lost a step that was saved. Ends with code 0 if all of that held.

  python -m tests.campaign --config=configs/quickstart.py --config.num_steps=60 --config.checkpoint.every_steps=10 \\
    --kinds=1/0 --faults=10 --minutes=30

does it to a config of your own. Faults that need root (a small file system of their own for the full disk) are skipped
without it, and counted. A run is forked from this process, which has imported everything and started nothing, so that
a start takes seconds.
"""

import os
import pathlib
import re
import sys
import tempfile
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
from absl import flags

from tests.campaign.faults import Campaign, table
from tests.campaign.runs import Kind
from training import command_line, config_flag
from training import config as config_lib

config_flag.define('What to train; without it, a tiny model.')
_MINUTES = flags.DEFINE_float('minutes', 5.0, 'After so many, the training under way is brought to its end.')
_FAULTS = flags.DEFINE_integer('faults', 10**9, 'The same, after so many faults.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the faults and their moments.')
_KINDS = flags.DEFINE_list('kinds', ['1/0', '2/0', '1/1'], 'Of training: processes/data workers in each.')


def main(_: list[str]) -> None:
  """Runs the campaign and prints its report; code 1 if something was found."""
  kinds, began = tuple(map(_kind, _KINDS.value)), time.monotonic()
  config = config_flag.read()
  config = config and config_lib.resolve(config)
  if config and not 0 < 4 * config['checkpoint']['every_steps'] <= config['num_steps']:
    raise ValueError(
      f'checkpoint.every_steps is {config["checkpoint"]["every_steps"]} of {config["num_steps"]} steps: save at least '
      'four times, or a fault costs the whole run'
    )
  with tempfile.TemporaryDirectory(prefix='campaign-') as name:
    directory = pathlib.Path(name)
    # `command_line.run` has chosen the user's cache, without what compiles fast; a start here compiles nothing.
    jax.config.update('jax_compilation_cache_dir', str(directory / 'compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    campaign = Campaign(directory, _SEED.value, kinds, config)
    try:
      campaign.run(60 * _MINUTES.value, _FAULTS.value)
    except KeyboardInterrupt:
      campaign.tally.problems.append('interrupted: what was under way was not brought to its end')
    finally:
      campaign.stop()
  print(table(campaign.tally, kinds, time.monotonic() - began))
  sys.exit(bool(campaign.tally.problems))


def _kind(text: str) -> Kind:
  if not re.fullmatch(r'[1-9]\d*/\d+', text):
    raise ValueError(f"--kinds holds '{text}': write processes/data workers in each, as in 2/0")
  return Kind(*map(int, text.split('/')))


if __name__ == '__main__':
  command_line.run(main)
