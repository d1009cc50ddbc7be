"""The real training step, compiled for devices that are not here: does it fit, and what does it do?

Nothing is allocated and nothing runs: the state and the batch are shapes, the mesh is over the devices of a topology,
and the compiler is the one that a run there would use (libtpu's, or that of the CUDA plugin).
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from kernels import aot, gpu_compiler
from layers import capacity
from layers.capacity import Capacities
from training import hlo
from training import memory as memory_lib
from training.description import BACKWARD
from training.trainer import Trainer

GIB = 2**30
# Memory of one device of a topology, GiB, after cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e,tpu7x}; v2, v3 and 7x
# have two devices a chip. A GPU's is in its description (kernels/*.textproto), from its own driver.
TPU_MEMORY = {'v2': 8, 'v3': 16, 'v4': 32, 'v5e': 16, 'v5p': 95, 'v6e': 32, 'tpu7x': 96}
SLOWEST = 10


@dataclasses.dataclass(frozen=True)
class Report:
  """capacities: chunks of a row that the program has room for, at each level inside. room: bytes of a device, None
  where unknown; the compiler then has the say. memory: None if `refused`, which is what the compiler says of a program
  that it cannot place. flops: of a step by the model's formulas, all devices; xla_flops: of a device as XLA counts.
  """

  target: str
  devices: int
  device_kind: str
  mesh: dict[str, int]
  capacities: Capacities
  seconds: float
  room: int | None
  memory: memory_lib.Memory | None
  refused: str
  flops: float
  xla_flops: float | None
  work: hlo.Work | None
  remarks: list[str]

  @property
  def fits(self) -> bool:
    """Whether the step's memory fits one device."""
    return self.memory is not None and (self.room is None or self.memory.total <= self.room)


def compile_step(config: Any, target: str, say: Callable[[str], None] = print, is_full: bool = False) -> Report:
  """Compiles the training step of a config for a TPU topology such as 'v5p:4x4x4', or for GPUs such as 'h100:8'.

  The mesh is the config's own over the target's devices. The step has room for half as many chunks again as the model
  states, or, if `is_full`, for as many as rows have bytes. Call it before anything has touched jax's devices.
  ValueError with one sentence: an unknown target, a missing compiler, a mesh that does not fit the devices or divide
  the batch.
  """
  aot.prepare(target)
  devices, kind = aot.devices(target), target.partition(':')[0]
  room = gpu_compiler.memory(kind) if aot.is_gpu(target) else TPU_MEMORY.get(kind, 0) * GIB or None
  jax.config.update('jax_enable_compilation_cache', False)  # it keeps programs to run, not what was said of them
  trainer = Trainer.of(config, devices)
  mesh, remarks = trainer.mesh, []
  shape = ' x '.join(f'{axis}={count}' for axis, count in mesh.shape.items())
  device_kind = mesh.devices.flat[0].device_kind
  capacities = (capacity.full if is_full else capacity.stated)(trainer.model, trainer.settings.seq_len)
  chunks = f', {" and ".join(map(str, capacities))} chunks a row' if capacities else ''
  say(f'compiling for {target}: {mesh.size} x {device_kind}, mesh {shape}{chunks}')
  began = time.perf_counter()
  lowered = trainer.lower(trainer.abstract_state(), trainer.abstract_batch(), capacities, remarks.append)
  compiled, refused = None, ''
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    refused = memory_lib.refusal(error)
    if refused is None:
      raise
  settings = trainer.settings
  per_byte = sum(trainer.model.flops_per_byte(settings.seq_len, None).values())
  text = compiled.as_text() if compiled else ''
  return Report(
    target=target,
    devices=mesh.size,
    device_kind=device_kind,
    mesh=dict(mesh.shape),
    capacities=capacities,
    seconds=time.perf_counter() - began,
    room=room,
    memory=memory_lib.planned(compiled) if compiled else None,
    refused=refused,
    flops=(1 + BACKWARD) * per_byte * settings.batch_size * settings.seq_len,
    xla_flops=_xla_flops(compiled) if compiled else None,
    work=hlo.work(text) if compiled else None,
    remarks=remarks,
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
  room = f' of {report.room / GIB:.0f} GiB' if report.room else ''
  if report.memory is None:
    lines.append(f'  does not fit{room}: the compiler says: {report.refused}')
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
  share = f' ({memory.total / report.room:.0%})' if report.room else ''
  lines.append(f'  {"fits" if report.fits else "does not fit"}{room}{share}')
  lines += ['', 'FLOPs of a step']
  lines.append(f'  {"by the model, a device":<32}{report.flops / report.devices:10.3g}')
  if report.xla_flops is not None:
    lines.append(f'  {"as XLA counts, a device":<32}{report.xla_flops:10.3g}  (a loop once, no kernels)')
  lines += ['', 'collectives of a device and step']
  moved = report.work.collective_bytes
  lines += [f'  {kind:<32}{_size(moved[kind])}' for kind in sorted(moved)] or ['  none']
  if report.work.unknown_loops:
    lines.append(f'  (loops of unknown length, counted once: {report.work.unknown_loops})')
  lines += ['', "slowest operations by the compiler's estimate"]
  if not report.work.cycles:
    lines.append('  this compiler makes no estimate')
  for cycles, operation, times in report.work.slowest[:SLOWEST]:
    share = cycles / report.work.cycles
    lines.append(f'  {share:6.1%} {cycles:14,} cycles, {times} x {operation.name}: {operation.source[-80:]}')
  return '\n'.join(lines)


def as_data(report: Report) -> dict[str, Any]:
  """The report as JSON data; bytes, and cycles by operation."""
  work, memory = report.work, report.memory
  fields = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
  return fields | {
    'fits': report.fits,
    'memory': memory and {**dataclasses.asdict(memory), 'total': memory.total},
    'work': work
    and {
      'collective_bytes': work.collective_bytes,
      'estimated_cycles': work.cycles,
      'unknown_loops': work.unknown_loops,
      'slowest': [
        {'cycles': cycles, 'times': times, 'operation': operation.name, 'source': operation.source}
        for cycles, operation, times in work.slowest[:SLOWEST]
      ],
    },
  }
