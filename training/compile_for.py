"""The real training step, compiled for devices that are not here: does it fit, and what does it do?

Nothing is allocated and nothing runs: the state and the batch are shapes, the mesh is over the devices of a topology,
and the compiler is the one that a run there would use (libtpu's, or that of the CUDA plugin).
"""

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import jax

from kernels import aot, gpu_compiler
from training import hlo
from training.description import BACKWARD
from training.trainer import Trainer

GIB = 2**30
# Memory of one device of a topology, GiB, after cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e,tpu7x}; v2, v3 and 7x
# have two devices a chip. A GPU's is in its description (kernels/*.textproto), from its own driver.
TPU_MEMORY = {'v2': 8, 'v3': 16, 'v4': 32, 'v5e': 16, 'v5p': 95, 'v6e': 32, 'tpu7x': 96}
SLOWEST = 10


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device, by kind. aliased: outputs that stand where arguments stood (the donated state)."""

  arguments: int
  outputs: int
  aliased: int
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """What stands in memory together."""
    return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Report:
  """capacity: bytes of a device, None where unknown; the compiler then has the say. memory: None if `refused`, which is
  what the compiler says of a program that it cannot place. smallest, largest: with each switch at its first and last
  branch. flops: of a step by the model's formulas, all devices; xla_flops: of a device as XLA counts.
  """

  target: str
  devices: int
  device_kind: str
  mesh: dict[str, int]
  seconds: float
  capacity: int | None
  memory: Memory | None
  refused: str
  flops: float
  xla_flops: float | None
  smallest: hlo.Work | None
  largest: hlo.Work | None
  remarks: list[str]

  @property
  def fits(self) -> bool:
    """Whether the step's memory fits one device."""
    return self.memory is not None and (self.capacity is None or self.memory.total <= self.capacity)


def compile_step(config: Any, target: str, say: Callable[[str], None] = print) -> Report:
  """Compiles the training step of a config for a TPU topology such as 'v5p:4x4x4', or for GPUs such as 'h100:8'.

  The mesh is the config's own over the target's devices. Call it before anything has touched jax's devices. ValueError
  with one sentence: an unknown target, a missing compiler, a mesh that does not fit the devices or divide the batch.
  """
  aot.prepare(target)
  devices, kind = aot.devices(target), target.partition(':')[0]
  capacity = gpu_compiler.memory(kind) if aot.is_gpu(target) else TPU_MEMORY.get(kind, 0) * GIB or None
  jax.config.update('jax_enable_compilation_cache', False)  # it keeps programs to run, not what was said of them
  trainer = Trainer.of(config, devices)
  mesh, remarks = trainer.mesh, []
  shape = ' x '.join(f'{axis}={count}' for axis, count in mesh.shape.items())
  device_kind = mesh.devices.flat[0].device_kind
  say(f'compiling for {target}: {mesh.size} x {device_kind}, mesh {shape}')
  began = time.perf_counter()
  lowered = trainer.lower(trainer.abstract_state(), trainer.abstract_batch(), remarks.append)
  compiled, refused = None, ''
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    refused = _sentence(str(error))
  settings = trainer.settings
  per_byte = sum(trainer.model.flops_per_byte(settings.seq_len, None).values())
  text = compiled.as_text() if compiled else ''
  return Report(
    target=target,
    devices=mesh.size,
    device_kind=device_kind,
    mesh=dict(mesh.shape),
    seconds=time.perf_counter() - began,
    capacity=capacity,
    memory=memory_of(compiled) if compiled else None,
    refused=refused,
    flops=(1 + BACKWARD) * per_byte * settings.batch_size * settings.seq_len,
    xla_flops=_xla_flops(compiled) if compiled else None,
    smallest=hlo.work(text, 0) if compiled else None,
    largest=hlo.work(text, -1) if compiled else None,
    remarks=remarks,
  )


def _sentence(error: str) -> str:
  """What the compiler says of memory, without its list of buffers."""
  said = re.search(r'Used [\d.]+\w of [\d.]+\w hbm[^\n]*', error)
  return said[0].rstrip('.') if said else error.splitlines()[0]


def memory_of(compiled: jax.stages.Compiled) -> Memory:
  """What the compiler plans for a program."""
  found = compiled.memory_analysis()
  return Memory(
    found.argument_size_in_bytes,
    found.output_size_in_bytes,
    found.alias_size_in_bytes,
    found.temp_size_in_bytes,
    found.generated_code_size_in_bytes,
  )


def _xla_flops(compiled: jax.stages.Compiled) -> float | None:
  try:
    return float(compiled.cost_analysis()['flops'])
  except (jax.errors.JaxRuntimeError, NotImplementedError, KeyError, TypeError):
    return None  # the CUDA plugin cannot say without a GPU


def _size(count: int) -> str:
  unit = next((unit for unit in range(3) if abs(count) < 1024 ** (unit + 1)), 3)
  return f'{count / 1024**unit:9.{2 * (unit > 0)}f} {("B  ", "KiB", "MiB", "GiB")[unit]}'


def as_text(report: Report) -> str:
  """The report for people."""
  lines = [f'compiled in {report.seconds:.0f} s', *report.remarks, '', 'memory of a device']
  capacity = f' of {report.capacity / GIB:.0f} GiB' if report.capacity else ''
  if report.memory is None:
    lines.append(f'  does not fit{capacity}: the compiler says: {report.refused}')
    return '\n'.join(lines)
  memory = report.memory
  rows = {
    'arguments (state, batch)': memory.arguments,
    'outputs': memory.outputs,
    'outputs in place of arguments': -memory.aliased,
    'temporaries': memory.temporaries,
    'generated code': memory.code,
    'together': memory.total,
  }
  lines += [f'  {label:<32}{_size(count)}' for label, count in rows.items()]
  share = f' ({memory.total / report.capacity:.0%})' if report.capacity else ''
  lines.append(f'  {"fits" if report.fits else "does not fit"}{capacity}{share}')
  lines += ['', 'FLOPs of a step']
  lines.append(f'  {"by the model, a device":<32}{report.flops / report.devices:10.3g}')
  if report.xla_flops is not None:
    lines.append(f'  {"as XLA counts, a device":<32}{report.xla_flops:10.3g}  (a loop once, no kernels)')
  lines += ['', f'collectives of a device and step{"":8}{"smallest rungs":>16}{"largest rungs":>16}']
  moved = [work.collective_bytes for work in (report.smallest, report.largest)]
  for kind in sorted({*moved[0], *moved[1]}) or ('none',):
    lines.append(f'  {kind:<38}' + ''.join(f'{_size(side.get(kind, 0)):>16}' for side in moved))
  if report.smallest.unknown_loops or report.largest.unknown_loops:
    lines.append(f'  (loops of unknown length, counted once: {report.largest.unknown_loops})')
  lines += ['', "slowest operations by the compiler's estimate (smallest rungs)"]
  if not report.smallest.cycles:
    lines.append('  this compiler makes no estimate')
  for cycles, operation, times in report.smallest.slowest[:SLOWEST]:
    share = cycles / report.smallest.cycles
    lines.append(f'  {share:6.1%} {cycles:14,} cycles, {times} x {operation.name}: {operation.source[-80:]}')
  return '\n'.join(lines)


def as_data(report: Report) -> dict[str, Any]:
  """The report as JSON data; bytes, and cycles by operation."""
  work = lambda found: (
    found
    and {
      'collective_bytes': found.collective_bytes,
      'estimated_cycles': found.cycles,
      'unknown_loops': found.unknown_loops,
      'slowest': [
        {'cycles': cycles, 'times': times, 'operation': operation.name, 'source': operation.source}
        for cycles, operation, times in found.slowest[:SLOWEST]
      ],
    }
  )
  fields = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
  memory = report.memory and {**dataclasses.asdict(report.memory), 'total': report.memory.total}
  return fields | {
    'fits': report.fits,
    'memory': memory,
    'smallest': work(report.smallest),
    'largest': work(report.largest),
  }
