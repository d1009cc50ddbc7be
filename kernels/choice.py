"""Which implementation of an operation runs: decided once, from the devices of the mesh in force."""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

PLATFORM = {'pallas_tpu': 'tpu', 'pallas_gpu': 'gpu'}
IMPLEMENTATIONS = ('xla', *PLATFORM)
# Operations whose kernel is what runs where nobody asks for an implementation: those that move fewer bytes than XLA's
# form in every row of `python -m benchmarks.kernels`; and JAX's splash attention, which that table cannot show.
DEFAULTS = {'tpu': ('route', 'chunk', 'dechunk', 'ssd', 'attention'), 'gpu': ()}
BATCH_AXES = ('data', 'fsdp')
TENSOR_AXIS = 'tensor'


def platform() -> str | None:
  """'tpu', 'gpu' or 'cpu' of the mesh in force (`jax.set_mesh`), or None without a mesh.

  Traces of one process may be meant for several devices, so the default backend says nothing here.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  if device is None:
    return None
  return 'gpu' if device.platform in ('cuda', 'rocm') else device.platform


def missing(operation: str, implementation: str) -> str:
  """What this jax lacks for an implementation of an operation, as a phrase; '' where it has all."""
  if implementation not in PLATFORM:
    return ''
  try:
    importlib.import_module(f'kernels.{operation}.{implementation}')
  except ImportError as error:
    return str(error)
  return ''


def choose(operation: str, implementation: str | None) -> str:
  """The implementation that runs: the one asked for, or the default of the mesh's platform; 'xla' without a mesh.

  Where this jax lacks what the kernel is written in, it is 'xla' too, and one warning says so.
  ValueError: an unknown implementation, or one that the devices of the mesh cannot run.
  """
  name = _wanted(operation, implementation)
  if lacks := missing(operation, name):
    _warn(f"{operation}: XLA's form runs instead of '{name}', since {lacks}")
    return 'xla'
  return name


@functools.cache
def _warn(sentence: str) -> None:
  warnings.warn(sentence, stacklevel=4)  # at the call of the operation; once, however often programs are traced


def _wanted(operation: str, implementation: str | None) -> str:
  here = platform()
  if implementation is None:
    return next((name for name, where in PLATFORM.items() if where == here and operation in DEFAULTS[where]), 'xla')
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f'{operation}: implementation {implementation!r} is none of {", ".join(IMPLEMENTATIONS)}.')
  if PLATFORM.get(implementation, here) != here:
    where = f'the mesh in force is of {here} devices' if here else 'no mesh is in force (jax.set_mesh)'
    raise ValueError(
      f'{operation}: implementation {implementation!r} runs on {PLATFORM[implementation]} devices and {where}; '
      "write implementation='xla' or None."
    )
  return implementation


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
  if implementation == 'xla':
    return fn(*batched, *replicated)
  mesh = jax.sharding.get_abstract_mesh()
  free = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual]
  if all(mesh.shape[name] == 1 for name in free):
    return fn(*batched, *replicated)
  rows, axes = jax.tree.leaves(batched)[0].shape[0], []
  for name in BATCH_AXES:
    if name in free and rows % mesh.shape[name] == 0:
      axes.append(name)
      rows //= mesh.shape[name]
  arguments = (*batched, *replicated)
  heads = heads or (None,) * len(arguments)
  counts = [x.shape[axis] for x, axis in zip(arguments, heads, strict=True) if axis is not None]
  splits = TENSOR_AXIS in free and counts and all(count % mesh.shape[TENSOR_AXIS] == 0 for count in counts)

  def spec(first: tuple, axis: int | None) -> P:
    if axis is None or not splits:
      return P(*first)
    return P(*((*first, *(None,) * axis)[:axis]), TENSOR_AXIS)

  of_rows = (tuple(axes) or None,)
  in_specs = tuple(spec(of_rows, axis) for axis in heads[: len(batched)])
  in_specs += tuple(spec((), axis) for axis in heads[len(batched) :])
  outputs = output_heads if isinstance(output_heads, tuple) else (output_heads,)
  out_specs = tuple(spec(of_rows, axis) for axis in outputs)
  out_specs = out_specs if isinstance(output_heads, tuple) else out_specs[0]
  run = jax.shard_map(fn, in_specs=in_specs, out_specs=out_specs, axis_names=set(free), check_vma=False)
  return run(*arguments)
