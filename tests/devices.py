"""Programs on simulated devices of a CPU: their number is fixed when a process begins, so each has its own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def environment(number: int) -> dict[str, str]:
  """What makes a process see so many devices; it compiles as the tests do."""
  flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={number}'
  return {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}


def run(program: str, number: int) -> None:
  """Runs a program's text on so many devices; AssertionError, with its last words, if it fails."""
  changed = os.environ | environment(number)
  done = subprocess.run([sys.executable, '-c', program], env=changed, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
