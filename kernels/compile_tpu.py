"""Compiles the kernels for TPUs with libtpu; no TPU is needed, and nothing runs.

  python -m kernels.compile_tpu                                    # everything
  python -m kernels.compile_tpu --operation=route --topology=v5e:2x2 --width=1024

A process a case, since the compiler may abort on a kernel that it does not take. Prints a line a case: ok, with the
temporaries that the program keeps in HBM, or the compiler's error. Exit status 1 if any case failed.
"""

import concurrent.futures
import itertools
import json
import sys

from absl import app, flags

from kernels import aot, apart, cases

_OPERATIONS = flags.DEFINE_multi_enum('operation', cases.OPERATIONS, cases.OPERATIONS, 'Operations.')
_TOPOLOGIES = flags.DEFINE_multi_string('topology', aot.TPU_TOPOLOGIES, 'TPU topologies.')
_WIDTHS = flags.DEFINE_multi_integer('width', cases.WIDTHS, 'D.')
_DTYPES = flags.DEFINE_multi_enum('dtype', cases.DTYPES, cases.DTYPES, 'Of activations.')
_LENGTH = flags.DEFINE_integer('length', cases.LENGTH, 'L; there are L / 4 chunks.')
_BATCH = flags.DEFINE_integer('batch', 1, 'Rows.')
_DEVICES = flags.DEFINE_integer('devices', 1, 'Chips that share the rows; they must divide --batch.')
_JOBS = flags.DEFINE_integer('jobs', 1, 'Compilers that run side by side.')
_ONE = flags.DEFINE_string('one', None, 'Compiles one case in this process: [topology, case, devices] as JSON.')

COLUMNS = '{:<9} {:>5} {:<9} {:<10} {:<9} {}'


def main(_: list[str]) -> int:
  """Prints the table."""
  if _ONE.value:
    return _compile_one(*json.loads(_ONE.value))
  for topology in _TOPOLOGIES.value:
    try:
      aot.tpu_mesh(topology, _DEVICES.value)
    except ValueError as error:
      print(error, file=sys.stderr)
      return 1
  todo = [
    (topology, cases.Case(operation, width, dtype, gradient, _BATCH.value, _LENGTH.value))
    for operation, width, dtype, gradient, topology in itertools.product(
      _OPERATIONS.value, _WIDTHS.value, _DTYPES.value, (False, True), _TOPOLOGIES.value
    )
  ]
  print(COLUMNS.format('operation', 'width', 'dtype', 'topology', 'pass', 'result'), flush=True)
  failed = 0
  with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
    results = pool.map(lambda one: apart.compile_for_tpu(*one, _DEVICES.value), todo)
    for (topology, case), (ok, text) in zip(todo, results, strict=True):
      kind = 'gradient' if case.gradient else 'forward'
      print(COLUMNS.format(case.operation, case.width, case.dtype, topology, kind, text), flush=True)
      failed += not ok
  print(f'{len(todo) - failed} of {len(todo)} compiled.')
  return int(failed > 0)


def _compile_one(topology: str, fields: dict, devices: int = 1) -> int:
  try:
    mesh = aot.tpu_mesh(topology, devices)
  except ValueError as error:
    print(f'Error: {error}', file=sys.stderr)
    return 1
  compiled = aot.compile_case(cases.Case(**fields), 'pallas_tpu', mesh)
  if 'all-gather' in compiled.as_text():
    print('Error: the program gathers rows that each chip should keep.', file=sys.stderr)
    return 1
  print(f'ok, temporaries {compiled.memory_analysis().temp_size_in_bytes / 2**20:.1f} MiB')
  return 0


if __name__ == '__main__':
  aot.prepare()
  app.run(main)
