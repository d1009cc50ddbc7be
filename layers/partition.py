"""Activations on a device mesh: rows over the axes `data` and `fsdp`, heads and hidden channels over `tensor`.

These few constraints pin what a layer takes and gives; XLA's partitioner finds the rest. Without a mesh in force
(`jax.set_mesh`), or where an axis does not divide, they do nothing.
"""

import math

import jax
from jax import Array
from jax.sharding import AxisType, PartitionSpec

from kernels.choice import BATCH_AXES, TENSOR_AXIS


def axes() -> dict[str, int]:
  """The axes of the mesh in force that the partitioner has and that have several devices, with their sizes."""
  mesh = jax.sharding.get_abstract_mesh()
  kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
  return {name: mesh.shape[name] for name, kind in kinds if kind == AxisType.Auto and mesh.shape[name] > 1}


def _row_axes(rows: int) -> dict[str, int]:
  """The axes that share out so many rows, with their sizes."""
  mesh, found = axes(), {}
  for name in BATCH_AXES:
    if name in mesh and rows % mesh[name] == 0:
      found[name] = mesh[name]
      rows //= mesh[name]
  return found


def row_shards(rows: int) -> int:
  """Into how many equal blocks `by_rows` shares out so many rows."""
  return math.prod(_row_axes(rows).values())


def by_rows(x: Array) -> Array:
  """x [B, ...]: rows shared out, all else as XLA likes (it may keep a residual stream's channels over `tensor`)."""
  names = tuple(_row_axes(x.shape[0]))
  if not names:
    return x
  return jax.lax.with_sharding_constraint(x, PartitionSpec(names, *(PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)))


def by_columns(kernel: Array, units: int) -> Array:
  """kernel [in, units * n]: its columns over `tensor`, those of one unit (a head, a channel) together; the whole of it
  on every device where the axis does not divide the units.
  """
  tensor = axes().get(TENSOR_AXIS)
  if tensor is None:
    return kernel
  if kernel.shape[0] % tensor == 0:  # from where it is kept, by rows, in two steps: a gather and an exchange
    kernel = jax.lax.with_sharding_constraint(kernel, PartitionSpec(TENSOR_AXIS, None))
  return jax.lax.with_sharding_constraint(kernel, PartitionSpec(None, None if units % tensor else TENSOR_AXIS))
