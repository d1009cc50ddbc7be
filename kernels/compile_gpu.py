"""Compiles the kernels for GPUs with the CUDA plugin; no GPU is needed, and nothing runs.

  python -m kernels.compile_gpu                                 # everything
  python -m kernels.compile_gpu --operation=route --width=1024

A process a case, since a compiler may abort on a kernel that it does not take. Prints a line a case: ok, with the
temporaries that the program keeps in device memory, or the compiler's error. Exit status 1 if any case failed.
"""

import itertools
import json
import sys

from absl import app, flags

from kernels import apart, cases, gpu_compiler
from kernels.aot import compile_case

_OPERATIONS = flags.DEFINE_multi_enum('operation', cases.OPERATIONS, cases.OPERATIONS, 'Operations.')
_DEVICES = flags.DEFINE_multi_string('device', gpu_compiler.DEVICES, 'Kinds of GPU.')
_WIDTHS = flags.DEFINE_multi_integer('width', cases.WIDTHS, 'D.')
_DTYPES = flags.DEFINE_multi_enum('dtype', cases.DTYPES, cases.DTYPES, 'Of activations.')
_LENGTH = flags.DEFINE_integer('length', cases.LENGTH, 'L; there are L / 4 chunks.')
_BATCH = flags.DEFINE_integer('batch', 2, 'Rows.')
_COUNT = flags.DEFINE_integer('devices', 1, 'GPUs that share the rows.')
_ONE = flags.DEFINE_string('one', None, 'Compiles one case in this process: [device, case, devices] as JSON.')

COLUMNS = '{:<9} {:>5} {:<9} {:<6} {:<9} {}'


def main(_: list[str]) -> int:
  """Prints the table."""
  if _ONE.value:
    return _compile_one(*json.loads(_ONE.value))
  for device in _DEVICES.value:
    try:
      gpu_compiler.gpu_mesh(device, _COUNT.value)
    except ValueError as error:
      print(error, file=sys.stderr)
      return 1
  print(COLUMNS.format('operation', 'width', 'dtype', 'device', 'pass', 'result'), flush=True)
  results = []
  for operation, width, dtype, gradient, device in itertools.product(
    _OPERATIONS.value, _WIDTHS.value, _DTYPES.value, (False, True), _DEVICES.value
  ):
    case = cases.Case(operation, width, dtype, gradient, _BATCH.value, _LENGTH.value)
    ok, text = apart.compile_for_gpu(device, case, _COUNT.value)
    kind = 'gradient' if gradient else 'forward'
    print(COLUMNS.format(operation, width, dtype, device, kind, text), flush=True)
    results.append(ok)
  print(f'{sum(results)} of {len(results)} compiled.')
  return int(not all(results))


def _compile_one(device: str, fields: dict, devices: int) -> int:
  mesh = gpu_compiler.gpu_mesh(device, devices)
  compiled = compile_case(cases.Case(**fields), 'pallas_gpu', mesh)
  kernels = compiled.as_text().count('__gpu$xla.gpu.triton')
  if not kernels:
    print('Error: the program has no kernel in it.', file=sys.stderr)
    return 1
  memory = compiled.memory_analysis()
  print(f'ok, {kernels} kernels, temporaries {memory.temp_size_in_bytes / 2**20:.1f} MiB')
  return 0


if __name__ == '__main__':
  gpu_compiler.prepare()
  app.run(main)
