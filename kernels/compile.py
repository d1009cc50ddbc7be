"""Compiles the kernels for TPUs with libtpu, or for GPUs with the CUDA plugin; no such device is needed, nothing runs.

  python -m kernels.compile                                      # everything, for four kinds of TPU
  python -m kernels.compile --target=h100                        # everything, for a GPU
  python -m kernels.compile --operation=route --target=v5e:2x2 --width=1024
  python -m kernels.compile --devices=4 --batch=4                # rows over four chips

A process a case, since a compiler may abort on a kernel that it does not take. Prints a line a case: ok, with the
kernels in the program and the temporaries that it keeps in device memory, or the compiler's error. A program that has
no kernel, or that gathers rows which each device should keep, has failed. Exit status 1 if any case failed.
"""

import concurrent.futures
import itertools
import json
import sys

from absl import app, flags

from kernels import aot, cases, in_subprocess, tpu_compiler

_OPERATIONS = flags.DEFINE_multi_enum('operation', cases.OPERATIONS, cases.OPERATIONS, 'Operations.')
_TARGETS = flags.DEFINE_multi_string('target', tpu_compiler.TOPOLOGIES, 'TPU topologies, or kinds of GPU.')
_WIDTHS = flags.DEFINE_multi_integer('width', cases.WIDTHS, 'D.')
_DTYPES = flags.DEFINE_multi_enum('dtype', cases.DTYPES, cases.DTYPES, 'Of activations.')
_LENGTH = flags.DEFINE_integer('length', cases.LENGTH, 'L; there are L / 4 chunks.')
_BATCH = flags.DEFINE_integer('batch', 1, 'Rows.')
_DEVICES = flags.DEFINE_integer('devices', 1, 'Devices that share the rows; they must divide --batch.')
_JOBS = flags.DEFINE_integer('jobs', 1, 'Compilers that run side by side.')
_ONE = flags.DEFINE_string('one', None, 'Compiles one case in this process: [target, case, devices] as JSON.')

COLUMNS = '{:<15} {:>5} {:<9} {:<10} {:<9} {}'


def main(_: list[str]) -> int:
  """Prints the table."""
  try:
    if _ONE.value:
      print(_compile_one(*json.loads(_ONE.value)))
      return 0
    for target in _TARGETS.value:
      aot.prepare(target)
      aot.mesh(target, _DEVICES.value)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  todo = [
    (target, cases.Case(operation, width, dtype, gradient, _BATCH.value, _LENGTH.value))
    for operation, width, dtype, gradient, target in itertools.product(
      _OPERATIONS.value, _WIDTHS.value, _DTYPES.value, (False, True), _TARGETS.value
    )
    if operation != 'local_attention' or not aot.is_gpu(target)  # JAX's GPU kernel has no window
  ]
  print(COLUMNS.format('operation', 'width', 'dtype', 'target', 'pass', 'result'), flush=True)
  failed = 0
  with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
    results = pool.map(lambda one: in_subprocess.compile_case(*one, _DEVICES.value), todo)
    for (target, case), (ok, text) in zip(todo, results, strict=True):
      kind = 'gradient' if case.gradient else 'forward'
      print(COLUMNS.format(case.operation, case.width, case.dtype, target, kind, text), flush=True)
      failed += not ok
  print(f'{len(todo) - failed} of {len(todo)} compiled.')
  return int(failed > 0)


def _compile_one(target: str, fields: dict, devices: int) -> str:
  aot.prepare(target)
  implementation, call = (
    ('pallas_gpu', '__gpu$xla.gpu.triton') if aot.is_gpu(target) else ('pallas_tpu', 'tpu_custom_call')
  )
  compiled = aot.compile_case(cases.Case(**fields), implementation, aot.mesh(target, devices))
  text, memory = compiled.as_text(), compiled.memory_analysis()
  if call not in text:
    raise ValueError('the program has no kernel in it')
  if 'all-gather' in text:
    raise ValueError('the program gathers rows that each device should keep')
  return f'ok, {text.count(call)} kernels, temporaries {memory.temp_size_in_bytes / 2**20:.1f} MiB'


if __name__ == '__main__':
  app.run(main)
