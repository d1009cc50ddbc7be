"""Compaction: the rows of an encoder where chunks start, gathered to the front of a buffer of static length.

Prefix sums say where every row goes; nothing is sorted.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from kernels.choice import choose
from kernels.mesh import over_rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chunks:
  """values_BxMxD, zero behind count. position_BxM int32: where each chunk starts, L behind count. count_B int32."""

  values_BxMxD: Array
  position_BxM: Array
  count_B: Array


def chunk(x_BxLxD: Array, mask_BxL: Array, capacity: int, *, implementation: str | None = None) -> Chunks:
  """Rows of x [B, L, D] (float32 or bfloat16) where mask is True, in order, in a buffer of `capacity` rows.

  Rows beyond the capacity are left out, and count_B counts those kept. The gradient scatters back to [B, L, D].
  implementation: 'xla', 'pallas_tpu', 'pallas_gpu' or None for the default of the mesh's devices (kernels/choice.py).
  ValueError: a capacity below 1, shapes that do not agree, an implementation that the devices cannot run.
  """
  if capacity < 1:
    raise ValueError(f'chunk: capacity {capacity} keeps nothing; write at least 1.')
  if x_BxLxD.shape[:2] != mask_BxL.shape:
    raise ValueError(f'chunk: mask {mask_BxL.shape} must cover the rows of x {x_BxLxD.shape}: [B, L] for [B, L, D].')
  name = choose('chunk', implementation)
  if name == 'xla':
    from kernels.chunk.xla import chunk as run
  elif name == 'pallas_tpu':
    from kernels.chunk.pallas_tpu import chunk as run
  else:
    from kernels.chunk.pallas_gpu import chunk as run

  def rows(x, mask):
    slot_BxL = slots(mask, capacity)
    position_BxM = positions(slot_BxL, capacity)
    return Chunks(run(x, slot_BxL, position_BxM), position_BxM, jnp.max(slot_BxL, 1) + 1)

  return over_rows(name, rows, (x_BxLxD, mask_BxL))


def chunk_index(mask_BxL: Array) -> Array:
  """The chunk of every position, [B, L] int32; -1 before the first."""
  return jnp.cumsum(mask_BxL, 1, dtype=jnp.int32) - 1


def slots(mask_BxL: Array, capacity: int) -> Array:
  """The chunk that starts at a position, [B, L] int32; -1 where none does or the buffer is full."""
  index_BxL = chunk_index(mask_BxL)
  return jnp.where(mask_BxL & (index_BxL < capacity), index_BxL, -1)


def positions(slot_BxL: Array, capacity: int) -> Array:
  """The inverse of `slots`: where every chunk starts, [B, M] int32; L where there is none."""
  length = slot_BxL.shape[1]
  index_BxL = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), slot_BxL.shape)
  return place(index_BxL, jnp.where(slot_BxL < 0, capacity, slot_BxL), capacity, length)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def at_starts(v_BxL: Array, slot_BxL: Array, position_BxM: Array, empty: float) -> Array:
  """What v holds where every chunk starts, [B, M]; `empty` where there is no chunk.

  Forwards and backwards it is a scatter of single numbers, which a TPU does for less than a gather of them.
  """
  capacity = position_BxM.shape[1]
  return place(v_BxL, jnp.where(slot_BxL < 0, capacity, slot_BxL), capacity, empty)


def _at_starts_forward(v_BxL: Array, slot_BxL: Array, position_BxM: Array, empty: float) -> tuple:
  return at_starts(v_BxL, slot_BxL, position_BxM, empty), (slot_BxL, position_BxM)


def _at_starts_backward(empty: float, saved: tuple[Array, Array], dv_BxM: Array) -> tuple:
  slot_BxL, position_BxM = saved
  return place(dv_BxM, position_BxM, slot_BxL.shape[1], 0), None, None


at_starts.defvjp(_at_starts_forward, _at_starts_backward)


def place(v_BxN: Array, target_BxN: Array, size: int, empty: float) -> Array:
  """[B, size] with every number of v at its target, `empty` elsewhere; a target of `size` drops its number."""
  rows_Bx1 = jnp.arange(v_BxN.shape[0])[:, None]
  return jnp.full((v_BxN.shape[0], size), empty, v_BxN.dtype).at[rows_Bx1, target_BxN].set(v_BxN, mode='drop')
