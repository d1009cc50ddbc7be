"""The operations at the sizes of the released models: programs to compile, and what they have to move at least."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kernels.attention import attention
from kernels.chunk import chunk
from kernels.cost import array_bytes
from kernels.dechunk import dechunk
from kernels.route import route
from kernels.ssd import ssd

OPERATIONS = ('route', 'chunk', 'dechunk', 'ssd', 'attention', 'local_attention')
OURS = OPERATIONS[:4]  # attention's kernels are those of libraries, whose calls do not say what they move
WIDTHS = (1024, 1536, 2048)
DTYPES = ('float32', 'bfloat16')
LENGTH = 8192
HEAD_DIM, STATES = 64, 128  # of the scan
HEADS, WINDOW = 16, 1023  # of attention


@dataclasses.dataclass(frozen=True)
class Case:
  """One program. gradient: the operation and its gradient, otherwise forward alone. chunks: M, or None for L / 4.
  window: of local_attention.
  """

  operation: str
  width: int
  dtype: str
  gradient: bool
  batch: int = 1
  length: int = LENGTH
  chunks: int | None = None
  window: int = WINDOW

  @property
  def capacity(self) -> int:
    """M."""
    return self.chunks or max(self.length // 4, 1)


@dataclasses.dataclass(frozen=True)
class Program:
  """fn(*arguments); least: the bytes of inputs once and outputs once, forward and backward each counted apart."""

  fn: Callable
  arguments: tuple[jax.ShapeDtypeStruct, ...]
  least: int


def program(case: Case, implementation: str | None) -> Program:
  """The case as a function of arrays, by the given implementation; ValueError: an unknown operation.

  The backward pass has to read what the gradient depends on, and the incoming gradient, and to write the gradients. It
  cannot share reads with the forward pass: in training the rest of the network lies between them.
  """
  if case.operation not in OPERATIONS:
    raise ValueError(f'operation {case.operation!r} is none of {", ".join(OPERATIONS)}.')
  fn, inputs, needed, others = globals()[f'_{case.operation}'](case, implementation)
  plain = globals()[f'_{case.operation}'](case, 'xla')[0]  # its shapes are known without a device
  outputs = jax.eval_shape(plain, *inputs, *others)
  least = array_bytes((inputs, others, outputs))
  if not case.gradient:
    return Program(fn, (*inputs, *others), least)

  def both(gradients: Any, *arguments: Any) -> tuple:
    values, others = arguments[: len(inputs)], arguments[len(inputs) :]
    outputs, pull = jax.vjp(lambda *values: fn(*values, *others), *values)
    return outputs, pull(gradients)

  return Program(both, (outputs, *inputs, *others), least + array_bytes((outputs, needed, inputs)))


# Each returns the function, what it is differentiated by, what its gradient depends on, and its other inputs.


def _route(case: Case, implementation: str | None) -> tuple:
  long, _, _, ids = _arrays(case)
  fn = lambda q, k, ids: route(q, k, ids, implementation=implementation)
  return fn, (long, long), (long, long, ids), (ids,)


def _chunk(case: Case, implementation: str | None) -> tuple:
  long, _, mask, _ = _arrays(case)
  fn = lambda x, mask: chunk(x, mask, case.capacity, implementation=implementation).values_BxMxD
  return fn, (long,), (mask,), (mask,)


def _dechunk(case: Case, implementation: str | None) -> tuple:
  long, p, mask, ids = _arrays(case)
  z = jax.ShapeDtypeStruct((case.batch, case.capacity, case.width), long.dtype)
  # The residual's gradient is the incoming one itself.
  fn = lambda z, p, selected, residual, mask, ids: dechunk(
    z, p, mask, ids, selected, residual, implementation=implementation
  )
  return fn, (z, p, p), (z, p, mask, ids), (long, mask, ids)


def _ssd(case: Case, implementation: str | None) -> tuple:
  shape = lambda *tail: (case.batch, case.length, *tail)
  array = lambda tail, dtype: jax.ShapeDtypeStruct(shape(*tail), jnp.dtype(dtype))
  heads = 2 * case.width // HEAD_DIM
  # Heads side by side, as the projection before leaves them: an operand [B, L, H, 64] would be padded to 128 lanes.
  x, dt = array((2 * case.width,), case.dtype), array((heads,), 'float32')
  a, b = jax.ShapeDtypeStruct((heads,), jnp.float32), array((STATES,), case.dtype)
  ids = array((), 'int32')

  def fn(x, dt, a, b, c, ids):
    in_heads = x.reshape(shape(heads, HEAD_DIM))
    return ssd(in_heads, dt, a, b, c, ids, implementation=implementation)[0].reshape(x.shape)

  return fn, (x, dt, a, b, b), (x, dt, a, b, b, ids), (ids,)


def _attention(case: Case, implementation: str | None, window: int = -1) -> tuple:
  _, _, _, ids = _arrays(case)
  q = jax.ShapeDtypeStruct((case.batch, case.length, HEADS, case.width // HEADS), jnp.dtype(case.dtype))
  fn = lambda q, k, v, ids: attention(q, k, v, ids, window, implementation=implementation)
  return fn, (q, q, q), (q, q, q, ids), (ids,)


def _local_attention(case: Case, implementation: str | None) -> tuple:
  return _attention(case, implementation, case.window)


def _arrays(case: Case) -> tuple[jax.ShapeDtypeStruct, ...]:
  """[B, L, D], and [B, L] of float32, bool and int32."""
  narrow = lambda dtype: jax.ShapeDtypeStruct((case.batch, case.length), jnp.dtype(dtype))
  wide = jax.ShapeDtypeStruct((case.batch, case.length, case.width), jnp.dtype(case.dtype))
  return wide, narrow('float32'), narrow('bool'), narrow('int32')
