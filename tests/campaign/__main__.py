"""Trains small models while everything goes wrong: python -m tests.campaign --minutes=60 --seed=0

Each round trains a tiny model, in one process or in two, and injects faults at random moments: signals, a full disk,
damage to the newest checkpoint, a killed data worker, a clock that jumps. Whatever ends the run, it is started again by
the same call, until it is trained; then its parameters, optimizer, average and losses must be bit-equal to those of a
run that nothing happened to, and no start may have lost a step that was saved. Ends with code 0 if all of that held.

Faults that need root (a small file system of their own for the full disk) are skipped without it, and counted. A run
is forked from this process, which has imported everything and started nothing, so that a start takes seconds.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax

from tests.campaign.faults import Campaign, table
from tests.campaign.runs import Kind

DISK = 24  # MiB of the file system that is filled


def main() -> None:
  parser = argparse.ArgumentParser(description='Trains small models while everything goes wrong.')
  parser.add_argument('--minutes', type=float, default=5.0)
  parser.add_argument('--faults', type=float, default=float('inf'), help='end earlier, after so many')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--kinds', default='1/0,2/0,1/1', help='of training: processes/data workers in each')
  options = parser.parse_args()
  kinds = tuple(Kind(*map(int, kind.split('/'))) for kind in options.kinds.split(','))
  began = time.monotonic()
  with tempfile.TemporaryDirectory(prefix='campaign-') as name, small_disk(pathlib.Path(name)) as disk:
    directory = pathlib.Path(name)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
      jax.config.update('jax_compilation_cache_dir', str(directory / 'compiled'))
    campaign = Campaign(directory, options.seed, kinds, disk)
    try:
      campaign.run(60 * options.minutes, options.faults)
    except KeyboardInterrupt:
      campaign.tally.problems.append('interrupted: what was under way was not brought to its end')
    finally:
      campaign.stop()
  print(table(campaign.tally, time.monotonic() - began))
  sys.exit(bool(campaign.tally.problems))


@contextlib.contextmanager
def small_disk(directory: pathlib.Path) -> Iterator[pathlib.Path | None]:
  """A file system of DISK MiB in memory, mounted for the block; None where that is not allowed."""
  mounted = directory / 'disk'
  mounted.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', f'size={DISK}m', 'tmpfs', str(mounted)]
  if shutil.which('mount') is None or subprocess.run(command, capture_output=True).returncode:
    yield None
    return
  try:
    yield mounted
  finally:
    subprocess.run(['umount', '--lazy', str(mounted)], check=False)


if __name__ == '__main__':
  main()
