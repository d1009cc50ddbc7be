"""A compiler in a process of its own: on a kernel that it does not take it may abort, and not raise."""

import json
import subprocess
import sys
from typing import Any

from kernels import cases


def compile_for_tpu(topology: str, case: cases.Case, devices: int = 1) -> tuple[bool, str]:
  """Compiles one case with libtpu: (whether it worked, what to print)."""
  return _run('kernels.compile_tpu', [topology, vars(case), devices])


def compile_for_gpu(device: str, case: cases.Case, devices: int = 1) -> tuple[bool, str]:
  """Compiles one case with the CUDA plugin: (whether it worked, what to print)."""
  return _run('kernels.compile_gpu', [device, vars(case), devices])


def _run(module: str, what: list[Any]) -> tuple[bool, str]:
  done = subprocess.run([sys.executable, '-m', module, f'--one={json.dumps(what)}'], capture_output=True, text=True)
  if done.returncode == 0:
    return True, done.stdout.splitlines()[-1]
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  errors = [line for line in lines if 'rror' in line and 'common_lib' not in line] or lines or ['no message']
  how = 'failed' if done.returncode > 0 else f'aborted by signal {-done.returncode}'
  return False, f'{how}: {errors[-1].strip()[:300]}'
