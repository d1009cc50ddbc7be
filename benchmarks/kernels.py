"""What the kernels move between memory and processor, against XLA's own form of the same operation.

  python -m benchmarks.kernels --topology=v5e:2x2            # any TPU topology; needs libtpu and no TPU
  python -m benchmarks.kernels --topology=h100               # needs the CUDA plugin and no GPU

Prints a Markdown table. A row is an operation at a released width, forward alone or with its gradient. `least`: inputs
once and outputs once. `kernels`: what the grids and blocks of the Pallas calls move, and its ratio to `least`.
`program`: the bytes that XLA's cost analysis counts for the whole compiled program, once with the kernels (whose part
XLA takes from their CostEstimate) and once in XLA's form; copies that XLA puts into VMEM before an instruction count
too. GPU compilers give no such count without a GPU. `temporaries`: memory that the program keeps beside its inputs and
outputs. `VMEM`: two buffers a block and the scratch of the largest call. Megabytes are 10^6 bytes. Times on a device:
`python -m benchmarks.device`.
"""

import itertools
import sys

import jax
from absl import app, flags
from jax.sharding import Mesh

from kernels import aot, cases, cost, gpu_compiler

_TOPOLOGY = flags.DEFINE_string('topology', None, 'TPU topology or kind of GPU to compile for.', required=True)
_OPERATIONS = flags.DEFINE_multi_enum('operation', cases.OURS, cases.OURS, 'Operations.')
_WIDTHS = flags.DEFINE_multi_integer('width', cases.WIDTHS, 'D.')
_DTYPES = flags.DEFINE_multi_enum('dtype', cases.DTYPES, cases.DTYPES, 'Of activations.')
_LENGTH = flags.DEFINE_integer('length', cases.LENGTH, 'L.')
_CHUNKS = flags.DEFINE_integer('chunks', 0, 'M; 0 for L / 4.')
_BATCH = flags.DEFINE_integer('batch', 1, 'Rows.')

KERNELS = {'tpu': 'pallas_tpu', 'gpu': 'pallas_gpu', 'cuda': 'pallas_gpu'}


def main(_: list[str]) -> int:
  """Prints the table."""
  try:
    aot.prepare(_TOPOLOGY.value)
    mesh = aot.mesh(_TOPOLOGY.value)
  except ValueError as error:
    print(error, file=sys.stderr)
    return 1
  columns = ['operation', 'pass', 'dtype', 'D', 'least MB', 'kernels', 'ratio', 'program MB', 'XLA', 'fewer']
  columns += ['temporaries MB', 'XLA', 'VMEM MB']
  print(f'{mesh.devices.flat[0].device_kind}, jax {jax.__version__}, B {_BATCH.value}, L {_LENGTH.value}\n')
  print_row(columns)
  print_row(['---'] * len(columns))
  for operation, gradient, dtype, width in itertools.product(
    _OPERATIONS.value, (False, True), _DTYPES.value, _WIDTHS.value
  ):
    case = cases.Case(operation, width, dtype, gradient, _BATCH.value, _LENGTH.value, _CHUNKS.value or None)
    print_row(measure(case, mesh))
  return 0


def print_row(cells: list[str]) -> None:
  """One line of a Markdown table, at once: a compiler takes a while."""
  print(f'| {" | ".join(cells)} |', flush=True)


def measure(case: cases.Case, mesh: Mesh) -> list[str]:
  """Cells of one case."""
  name = KERNELS[mesh.devices.flat[0].platform]
  with jax.set_mesh(mesh):
    made = cases.program(case, name)
    calls = cost.pallas_calls(made.fn, *made.arguments)
  moved = sum(call['bytes'] for call in calls)
  compiled = [aot.compile_case(case, implementation, mesh) for implementation in (name, 'xla')]
  mega = lambda number: f'{number / 1e6:.1f}'
  if name == 'pallas_gpu':  # whose compiler has no cost analysis, and XLA knows nothing of what a kernel moves there
    program = [gpu_compiler.bytes_accessed(c) + extra for c, extra in zip(compiled, (moved, 0), strict=True)]
  else:
    program = [(c.cost_analysis() or {}).get('bytes accessed') for c in compiled]
  kept = [c.memory_analysis().temp_size_in_bytes for c in compiled]
  cells = [case.operation, 'gradient' if case.gradient else 'forward', case.dtype, str(case.width), mega(made.least)]
  cells += [mega(moved), f'{moved / made.least:.2f}']
  cells += [*map(mega, program), 'yes' if program[0] < program[1] else 'NO'] if all(program) else ['?'] * 3
  cells += [*map(mega, kept), mega(max(call['vmem'] for call in calls))]
  return cells


if __name__ == '__main__':
  app.run(main)
