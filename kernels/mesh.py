"""The device mesh in force (`jax.set_mesh`) and what its axes share out: rows over `data` and `fsdp`, heads and hidden
channels over `tensor`.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

BATCH_AXES = ('data', 'fsdp')
TENSOR_AXIS = 'tensor'
AXES = (*BATCH_AXES, TENSOR_AXIS)


def axes() -> dict[str, int]:
  """The axes that the partitioner has and that have several devices, with their sizes; {} without a mesh."""
  return {name: size for name, size in _automatic().items() if size > 1}


def _automatic() -> dict[str, int]:
  mesh = jax.sharding.get_abstract_mesh()
  kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
  return {name: mesh.shape[name] for name, kind in kinds if kind == AxisType.Auto}


def row_axes(rows: int) -> dict[str, int]:
  """The axes that share out so many rows, with their sizes: those of `data` and `fsdp` that divide them."""
  mesh, found = axes(), {}
  for name in BATCH_AXES:
    if name in mesh and rows % mesh[name] == 0:
      found[name] = mesh[name]
      rows //= mesh[name]
  return found


def over_rows(
  implementation: str,
  fn: Callable,
  batched: tuple[Any, ...],
  replicated: tuple[Any, ...] = (),
  *,
  heads: tuple[int | None, ...] = (),
  output_heads: Any = None,
) -> Any:
  """fn(*batched, *replicated) with every device of the mesh computing its own rows, and heads.

  XLA partitions its own form by itself. A Pallas call is opaque to the partitioner, which would gather its operands.
  Rows are split over the axes 'data' and 'fsdp' as far as they divide the batch, heads over 'tensor' if it divides them
  all; over other axes the work is repeated.

  batched: pytrees of arrays [B, ...] or None. Every output of fn is [B, ...]. heads: for operations that treat heads
  alike, the axis on which each of `batched` and `replicated` has them, or None; output_heads: likewise of the outputs,
  one axis or a tuple.
  """
  if implementation == 'xla' or not (mesh := axes()):
    return fn(*batched, *replicated)
  arguments = (*batched, *replicated)
  heads = heads or (None,) * len(arguments)
  counts = [x.shape[axis] for x, axis in zip(arguments, heads, strict=True) if axis is not None]
  splits = TENSOR_AXIS in mesh and counts and all(count % mesh[TENSOR_AXIS] == 0 for count in counts)

  def spec(first: tuple, axis: int | None) -> P:
    if axis is None or not splits:
      return P(*first)
    return P(*((*first, *(None,) * axis)[:axis]), TENSOR_AXIS)

  of_rows = (tuple(row_axes(jax.tree.leaves(batched)[0].shape[0])) or None,)
  in_specs = tuple(spec(of_rows, axis) for axis in heads[: len(batched)])
  in_specs += tuple(spec((), axis) for axis in heads[len(batched) :])
  outputs = output_heads if isinstance(output_heads, tuple) else (output_heads,)
  out_specs = tuple(spec(of_rows, axis) for axis in outputs)
  out_specs = out_specs if isinstance(output_heads, tuple) else out_specs[0]
  run = jax.shard_map(fn, in_specs=in_specs, out_specs=out_specs, axis_names=set(_automatic()), check_vma=False)
  return run(*arguments)
