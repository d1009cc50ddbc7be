"""What the kernels move between memory and processor, against XLA's own form of the same operation.

  python -m benchmarks.kernels --topology=v5e:2x2            # any TPU topology; needs libtpu and no TPU
  python -m benchmarks.kernels --topology=h100               # needs the CUDA plugin and no GPU
  python -m benchmarks.kernels                               # on the accelerator of this machine: times too

Prints a Markdown table. A row is an operation at a released width, forward alone or with its gradient. `least`: inputs
once and outputs once. `kernels`: what the grids and blocks of the Pallas calls move, and its ratio to `least`.
`program`: the bytes that XLA's cost analysis counts for the whole compiled program, once with the kernels (whose part
XLA takes from their CostEstimate) and once in XLA's form; copies that XLA puts into VMEM before an instruction count
too. GPU compilers give no such count without a GPU. `temporaries`: memory that the program keeps beside its inputs and
outputs. `VMEM`: two buffers a block and the scratch of the largest call. Megabytes are 10^6 bytes.
"""

import itertools
import sys
import time

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.sharding import AxisType, Mesh

from kernels import aot, cases, cost, gpu_compiler

_TOPOLOGY = flags.DEFINE_string(
  'topology', None, 'TPU topology or kind of GPU to compile for; without it, the device of this machine.'
)
_OPERATIONS = flags.DEFINE_multi_enum('operation', cases.OURS, cases.OURS, 'Operations.')
_WIDTHS = flags.DEFINE_multi_integer('width', cases.WIDTHS, 'D.')
_DTYPES = flags.DEFINE_multi_enum('dtype', cases.DTYPES, cases.DTYPES, 'Of activations.')
_LENGTH = flags.DEFINE_integer('length', cases.LENGTH, 'L.')
_CHUNKS = flags.DEFINE_integer('chunks', 0, 'M; 0 for L / 4.')
_BATCH = flags.DEFINE_integer('batch', 1, 'Rows.')
_REPEATS = flags.DEFINE_integer('repeats', 20, 'Runs of which the fastest counts, on a device.')

# Bytes a second between a chip and its memory, as the makers give it.
BANDWIDTH = {
  'TPU v4': 1228e9,
  'TPU v5 lite': 819e9,
  'TPU v5': 2765e9,
  'TPU v6 lite': 1640e9,
  'NVIDIA H100 80GB HBM3': 3350e9,
}
KERNELS = {'tpu': 'pallas_tpu', 'gpu': 'pallas_gpu', 'cuda': 'pallas_gpu'}


def main(_: list[str]) -> int:
  """Prints the table."""
  try:
    if _TOPOLOGY.value:
      aot.prepare(_TOPOLOGY.value)
    mesh = aot.mesh(_TOPOLOGY.value) if _TOPOLOGY.value else device_mesh()
  except ValueError as error:
    print(error, file=sys.stderr)
    return 1
  timed = _TOPOLOGY.value is None
  columns = ['operation', 'pass', 'dtype', 'D', 'least MB', 'kernels', 'ratio', 'program MB', 'XLA', 'fewer']
  columns += ['temporaries MB', 'XLA', 'VMEM MB'] + (['ms', 'XLA', 'of peak'] if timed else [])
  print(f'{mesh.devices.flat[0].device_kind}, jax {jax.__version__}, B {_BATCH.value}, L {_LENGTH.value}\n')
  print_row(columns)
  print_row(['---'] * len(columns))
  for operation, gradient, dtype, width in itertools.product(
    _OPERATIONS.value, (False, True), _DTYPES.value, _WIDTHS.value
  ):
    case = cases.Case(operation, width, dtype, gradient, _BATCH.value, _LENGTH.value, _CHUNKS.value or None)
    print_row(measure(case, mesh, timed))
  return 0


def print_row(cells: list[str]) -> None:
  """One line of a Markdown table, at once: a compiler takes a while."""
  print(f'| {" | ".join(cells)} |', flush=True)


def device_mesh() -> Mesh:
  """One accelerator of this machine; ValueError if it has none."""
  device = jax.devices()[0]
  if device.platform not in KERNELS:
    raise ValueError(f'This machine has a {device.platform} only: name a --topology, such as v5e:2x2, to compile for.')
  return Mesh([device], ('data',), axis_types=(AxisType.Auto,))


def measure(case: cases.Case, mesh: Mesh, timed: bool) -> list[str]:
  """Cells of one case; with timed, the fastest run on the mesh's device."""
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
  if timed:
    seconds = [fastest(c, arguments_of(made.arguments), _REPEATS.value) for c in compiled]
    peak = BANDWIDTH.get(mesh.devices.flat[0].device_kind)
    share = f'{made.least / seconds[0] / peak:.0%}' if peak else 'unknown'
    cells += [*(f'{1e3 * s:.3f}' for s in seconds), share]
  return cells


def arguments_of(shapes: tuple[jax.ShapeDtypeStruct, ...]) -> tuple[jax.Array, ...]:
  """Drawn arrays: floats in (0, 1), a boundary at every fourth position, one document a row."""

  def draw(shape: jax.ShapeDtypeStruct) -> jax.Array:
    if shape.dtype == jnp.bool_:
      return jnp.broadcast_to(jnp.arange(shape.shape[1]) % 4 == 0, shape.shape)
    if jnp.issubdtype(shape.dtype, jnp.integer):
      return jnp.ones(shape.shape, shape.dtype)
    return jax.random.uniform(jax.random.key(0), shape.shape, jnp.float32).astype(shape.dtype)

  return jax.tree.map(draw, shapes)


def fastest(compiled: jax.stages.Compiled, arguments: tuple[jax.Array, ...], repeats: int) -> float:
  """Seconds of the fastest run after one that does not count."""
  seconds = []
  for _ in range(repeats + 1):
    begin = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    seconds.append(time.perf_counter() - begin)
  return min(seconds[1:])


if __name__ == '__main__':
  app.run(main)
