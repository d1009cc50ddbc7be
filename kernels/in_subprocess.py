"""A compiler in a process of its own: on a kernel that it does not take it may abort, and not raise."""

import json
import subprocess
import sys

from kernels import cases


def compile_case(target: str, case: cases.Case, devices: int = 1) -> tuple[bool, str]:
  """Compiles one case for the first devices of a target: (whether it worked, what to print)."""
  one = json.dumps([target, vars(case), devices])
  done = subprocess.run([sys.executable, '-m', 'kernels.compile', f'--one={one}'], capture_output=True, text=True)
  if done.returncode == 0:
    return True, done.stdout.splitlines()[-1]
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  errors = [line for line in lines if 'rror' in line and 'common_lib' not in line] or lines or ['no message']
  how = 'failed' if done.returncode > 0 else f'aborted by signal {-done.returncode}'
  return False, f'{how}: {errors[-1].strip()[:300]}'
