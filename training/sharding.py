"""Where arrays live: the device mesh, and a short table from parameter path to partition.

Axes: `data` and `fsdp` share out the rows of a batch, `fsdp` also every large parameter with its gradient, moments and
average; `tensor` shares out heads and hidden channels. Positions of a row stay together.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kernels.mesh import AXES, BATCH_AXES, TENSOR_AXIS
from layers.partition import SharedOut
from training import config as config_lib

# The first pattern found in a parameter's path gives its partition, aligned with the array's last dimensions so that
# stacked layers fit. An axis that the mesh lacks, or that does not divide its dimension, is left out there: the array
# stays whole along it (`undivided` says which do).
Rules = tuple[tuple[str, tuple[Any, ...]], ...]
RULES: Rules = (
  # Several projections in one kernel (q|k|v, value|gate, z|x|B|C|dt). Their column ranges do not end where devices'
  # shares would, so the kernel lies by rows; in use each range goes to its own columns (layers/partition.py).
  (r'\.(qkv|fc1|in_proj)\.kernel$', (('tensor', 'fsdp'), None)),
  (r'\.(mixer\.out|out_proj|fc2)\.kernel$', ('tensor', 'fsdp')),
  (r'\.kernel$', ('fsdp', None)),
  (r'\.tables_TxVxD$', ('fsdp', None)),  # of n-grams: far larger than those of bytes
  (r'', ()),  # embeddings of bytes, norms, biases and other vectors
)


def make_mesh(settings: config_lib.Config, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """The mesh of a config over these devices, by default over all of this run's.

  Raises ValueError for a shape that the devices cannot fill, or rows that cannot be shared out evenly.
  """
  shape = settings.mesh.shape
  devices = jax.devices() if devices is None else list(devices)
  if not 1 <= len(shape) <= len(AXES):
    raise ValueError(f'mesh.shape {shape} must give devices along {", ".join(AXES)}; the last ones may be left out')
  if any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
    raise ValueError(f'mesh.shape must hold sizes of at least 1, one of them may be -1 for the rest, got {shape}')
  given = math.prod(size for size in shape if size != -1)
  sizes = [max(len(devices) // given, 1) if size == -1 else size for size in shape]
  used = math.prod(sizes)
  if used > len(devices):
    raise ValueError(f'mesh.shape {shape} needs {used} devices, there are {len(devices)}')
  if used < len(devices) and -1 in shape:
    raise ValueError(f'mesh.shape {shape} cannot be filled: {given} does not divide the {len(devices)} devices')
  types = (AxisType.Auto,) * len(shape)
  mesh = jax.make_mesh(sizes, AXES[: len(shape)], axis_types=types, devices=devices[:used])
  check_batches(settings, mesh)
  return mesh


def check_batches(settings: config_lib.Config, mesh: jax.sharding.Mesh) -> None:
  """ValueError where the mesh does not divide the rows of a training or validation batch."""
  shards, accumulate = data_shards(mesh), settings.optimizer.accumulate
  named = ' x '.join(f'{name}={mesh.shape[name]}' for name in BATCH_AXES if name in mesh.shape) or 'one device'
  if settings.batch_size % (accumulate * shards):
    raise ValueError(
      f'batch_size {settings.batch_size} is not divisible by optimizer.accumulate {accumulate} x {shards} devices '
      f'(mesh {named})'
    )
  if settings.eval.batch_size % shards:
    raise ValueError(f'eval.batch_size {settings.eval.batch_size} is not divisible by {shards} devices (mesh {named})')


def data_shards(mesh: jax.sharding.Mesh) -> int:
  """Into how many pieces the rows of a batch are cut."""
  return math.prod(mesh.shape.get(name, 1) for name in BATCH_AXES)


def batch_spec(mesh: jax.sharding.Mesh) -> PartitionSpec:
  """Partition of a batch's rows."""
  return PartitionSpec(tuple(name for name in BATCH_AXES if name in mesh.shape) or None)


def partition_spec(path: str, shape: Sequence[int], mesh: Mapping[str, int], rules: Rules = RULES) -> PartitionSpec:
  """The partition of one array, from the first rule whose pattern is found in its path. mesh: axis -> devices."""
  wanted = next((spec for pattern, spec in rules if re.search(pattern, path)), ())
  wanted = ((None,) * len(shape) + tuple(wanted))[-len(shape) :] if shape else ()
  return PartitionSpec(*(_dividing(axes, size, mesh) for axes, size in zip(wanted, shape, strict=True)))


def _dividing(axes: Any, size: int, mesh: Mapping[str, int]) -> Any:
  kept = []
  for axis in axes if isinstance(axes, tuple) else (axes,):
    if axis in mesh and size % mesh[axis] == 0:
      kept.append(axis)
      size //= mesh[axis]
  return tuple(kept) if len(kept) > 1 else kept[0] if kept else None


def undivided(model: Any, flat: Mapping[str, Any], mesh: jax.sharding.Mesh, rules: Rules = RULES) -> list[str]:
  """One phrase for each parameter that a rule would cut and an axis does not divide, and each layer whose heads or
  channels the axis `tensor` does not divide, so that every device computes all of them. flat: the model's parameters.
  """
  phrases = []
  for path, leaf in flat.items():
    full = partition_spec(path, leaf.shape, dict.fromkeys(mesh.shape, 1), rules)
    kept = partition_spec(path, leaf.shape, mesh.shape, rules)
    for axis in mesh.shape:
      if mesh.shape[axis] > 1 and axis in jax.tree.leaves(tuple(full)) and axis not in jax.tree.leaves(tuple(kept)):
        phrases.append(f'{path} {list(leaf.shape)} stays whole: {axis}={mesh.shape[axis]} does not divide it')
  tensor = mesh.shape.get(TENSOR_AXIS, 1)
  shared = ((path, module) for path, module in nnx.iter_modules(model) if isinstance(module, SharedOut))
  for path, module in shared:
    for what, count in module.shared_out.items():
      if count % tensor:
        name = '.'.join(map(str, path))
        phrases.append(f'{name}: every device computes all {count} {what}, which tensor={tensor} does not divide')
  return phrases


def shardings(tree: Any, mesh: jax.sharding.Mesh, rules: Rules = RULES) -> Any:
  """A NamedSharding for every leaf: each array that belongs to a parameter (itself, its moments, its average) goes
  where the parameter goes, by the flat dict's key that it stands under; counters are on every device.
  """

  def place(path, leaf):
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    spec = partition_spec(keys[-1], leaf.shape, mesh.shape, rules) if keys else PartitionSpec()
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(place, tree)


def share_of_rows(mesh: jax.sharding.Mesh, process: int | None = None) -> tuple[int, int]:
  """(which, of how many) equal shares of a batch's rows a process reads, by default this one.

  Processes that `tensor` alone keeps apart read the same share. Raises ValueError where the mesh has no device of the
  process, or cuts the rows so that shares would overlap.
  """
  process = jax.process_index() if process is None else process
  pieces: dict[int, set[int]] = {}  # of the rows, on the devices of each process
  places = NamedSharding(mesh, batch_spec(mesh)).devices_indices_map((data_shards(mesh),))
  for device, (rows,) in places.items():
    pieces.setdefault(device.process_index, set()).add(rows.start or 0)
  if process not in pieces:
    raise ValueError(
      f'mesh.shape {tuple(mesh.shape.values())} has no device of process {process}: a run of several processes needs '
      'all of their devices'
    )
  shares = sorted({tuple(sorted(share)) for share in pieces.values()})
  if sum(map(len, shares)) != data_shards(mesh) or len({len(share) for share in shares}) > 1:
    raise ValueError(
      f'mesh {dict(mesh.shape)} gives the {len(pieces)} processes shares of the rows that overlap: let data x fsdp or '
      'the number of processes divide the other'
    )
  return shares.index(tuple(sorted(pieces[process]))), len(shares)


def put_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """This process' share of a batch's rows (numpy) as part of one global array, rows over `data` and `fsdp`."""
  sharding, (_, shares) = NamedSharding(mesh, batch_spec(mesh)), share_of_rows(mesh)
  whole = lambda rows: (rows.shape[0] * shares, *rows.shape[1:])
  with jax.transfer_guard_host_to_device('allow'):  # in several processes JAX takes this copy for an implicit one
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows, whole(rows)), batch)
