"""Activations on a device mesh: rows over the axes `data` and `fsdp`, heads and hidden channels over `tensor`.

These few constraints pin what a layer takes and gives; XLA's partitioner finds the rest. Without a mesh in force
(`jax.set_mesh`), or where an axis does not divide, they do nothing.
"""

import jax
from flax import nnx
from jax import Array
from jax.sharding import PartitionSpec

from kernels.mesh import TENSOR_AXIS, axes, row_axes


class SharedOut(nnx.Module):
  """A layer whose heads or channels the axis `tensor` divides among devices."""

  @property
  def shared_out(self) -> dict[str, int]:
    """What is divided, and how many there are."""
    raise NotImplementedError


def by_rows(x: Array) -> Array:
  """x [B, ...]: rows shared out, all else as XLA likes (it may keep a residual stream's channels over `tensor`)."""
  names = tuple(row_axes(x.shape[0]))
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
