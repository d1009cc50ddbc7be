"""Where arrays live: the device mesh, and a short table from parameter path to partition."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from training import config as config_lib

AXES = ('data',)

# The first pattern found in a parameter's path gives its partition, aligned with the array's last dimensions so that
# stacked layers fit; axes that the mesh lacks are ignored. Under pure data parallelism every parameter is on every
# device.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = ((r'', ()),)


def make_mesh(settings: config_lib.Config) -> jax.sharding.Mesh:
  """The mesh of a config over this run's devices.

  Raises ValueError for unknown axes, a shape that the devices cannot fill, or rows that cannot be shared out evenly.
  """
  shape, axes, devices = settings.mesh.shape, settings.mesh.axes, jax.devices()
  if len(shape) != len(axes) or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
    raise ValueError(f'mesh.shape {shape} and mesh.axes {axes} must give one size for each axis; the axes are {AXES}')
  if any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
    raise ValueError(f'mesh.shape must hold sizes of at least 1, one of them may be -1 for the rest, got {shape}')
  given = math.prod(size for size in shape if size != -1)
  sizes = [max(len(devices) // given, 1) if size == -1 else size for size in shape]
  used = math.prod(sizes)
  if used > len(devices):
    raise ValueError(f'mesh.shape {shape} needs {used} devices, there are {len(devices)}')
  mesh = jax.make_mesh(sizes, axes, axis_types=(AxisType.Auto,) * len(axes), devices=devices[:used])
  shards, accumulate = data_shards(mesh), settings.optimizer.accumulate
  if settings.batch_size % (accumulate * shards):
    raise ValueError(
      f'batch_size {settings.batch_size} is not divisible by optimizer.accumulate {accumulate} x {shards} devices'
    )
  if settings.eval.batch_size % shards:
    raise ValueError(f'eval.batch_size {settings.eval.batch_size} is not divisible by {shards} devices')
  return mesh


def data_shards(mesh: jax.sharding.Mesh) -> int:
  """Into how many pieces the rows of a batch are cut."""
  return mesh.shape.get('data', 1)


def batch_spec(mesh: jax.sharding.Mesh) -> PartitionSpec:
  """Partition of a batch's rows."""
  return PartitionSpec('data') if 'data' in mesh.shape else PartitionSpec()


def partition_spec(path: str, dimensions: int, axes: Sequence[str], rules=RULES) -> PartitionSpec:
  """The partition of one array, from the first rule whose pattern is found in its path."""
  for pattern, spec in rules:
    if re.search(pattern, path):
      known = tuple(axis if axis in axes else None for axis in spec)[max(len(spec) - dimensions, 0) :]
      return PartitionSpec(*(None,) * (dimensions - len(known)), *known)
  return PartitionSpec()


def shardings(tree: Any, mesh: jax.sharding.Mesh, rules=RULES) -> Any:
  """A NamedSharding for every leaf: each array that belongs to a parameter (itself, its moments, its average) goes
  where the parameter goes, by the flat dict's key that it stands under; counters are on every device.
  """

  def place(path, leaf):
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    spec = partition_spec(keys[-1], len(leaf.shape), mesh.axis_names, rules) if keys else PartitionSpec()
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(place, tree)


def put_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """This host's rows of a batch (numpy) as part of one global array, rows over the data axis."""
  sharding = NamedSharding(mesh, batch_spec(mesh))
  return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)
