"""Compiling for accelerators that this machine does not have.

A target is a TPU topology (v5e:2x2, v5p:4x4x4) or GPUs of a kind (h100, h100:8).
"""

import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kernels import gpu_compiler, tpu_compiler
from kernels.cases import Case, program


def is_gpu(target: str) -> bool:
  """Whether a target names GPUs; any other is left to libtpu, which knows its topologies."""
  return target.partition(':')[0] in gpu_compiler.DEVICES


def prepare(target: str) -> None:
  """Sets what the target's compiler needs where there is no such device; call it before anything touches devices."""
  (gpu_compiler if is_gpu(target) else tpu_compiler).prepare()


def devices(target: str) -> list[jax.Device]:
  """The devices of a target. ValueError with one sentence: an unknown target, or no fitting compiler."""
  if not is_gpu(target):
    return tpu_compiler.devices(target)
  kind, colon, count = target.partition(':')
  if colon and not re.fullmatch(r'[1-9]\d*', count):
    raise ValueError(f'target {target!r}: write the number of GPUs behind the colon, such as {kind}:8')
  return gpu_compiler.devices(kind, int(count or 1))


def mesh(target: str, count: int = 1) -> Mesh:
  """A mesh over the first `count` devices of a target, axis 'data'. ValueError: as `devices`, or there are fewer."""
  found = devices(target)
  if len(found) < count:
    raise ValueError(f'target {target!r} has {len(found)} devices: {count} need a larger one.')
  return Mesh(np.array(found[:count]), ('data',), axis_types=(AxisType.Auto,))


def compile_case(case: Case, implementation: str | None, over: Mesh) -> jax.stages.Compiled:
  """The program of a case, compiled for the devices of a mesh; rows stand on the axis 'data' where they divide."""
  made = program(case, implementation)
  rows = lambda v: PartitionSpec('data') if v.ndim > 1 and v.shape[0] % over.size == 0 else PartitionSpec()
  place = lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=NamedSharding(over, rows(v)))
  with jax.set_mesh(over):
    return jax.jit(made.fn).lower(*jax.tree.map(place, made.arguments)).compile()
