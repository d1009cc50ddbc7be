"""Compaction on a TPU: tiles of positions stream through VMEM, and a product with a 0/1 matrix moves their rows."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from kernels.cost import Call
from kernels.tpu import Walk, in_tiles, move, run, tile_rows


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def chunk(x_BxLxD: Array, slot_BxL: Array, position_BxM: Array, interpret: Any = False) -> Array:
  """Rows of x [B, L, D] in the order of their slots, [B, M, D], zero where there is none; M from position [B, M]."""
  return _move(x_BxLxD, slot_BxL, position_BxM.shape[1], 'chunk', interpret)


def _forward(x_BxLxD: Array, slot_BxL: Array, position_BxM: Array, interpret: Any) -> tuple[Array, Array]:
  return chunk(x_BxLxD, slot_BxL, position_BxM, interpret), slot_BxL


def _backward(interpret: Any, slot_BxL: Array, dvalues_BxMxD: Array) -> tuple[Array, None, None]:
  return _move(dvalues_BxMxD, slot_BxL, None, 'chunk_gradient', interpret), None, None


chunk.defvjp(_forward, _backward)


def _move(values: Array, slot_BxL: Array, capacity: int | None, name: str, interpret: Any) -> Array:
  """[B, L, D] -> [B, capacity, D], or with no capacity the way back, [B, M, D] -> [B, L, D]."""
  batch, length = slot_BxL.shape
  call, walk = describe(batch, length, capacity or values.shape[1], values.shape[2], values.dtype, name)
  kernel = functools.partial(_kernel, walk=walk, back=capacity is None)
  slot_BxGx1xQ = in_tiles(slot_BxL, walk.tile, -1)
  return run(call, kernel, slot_BxGx1xQ, values, prefetch=(walk.position_tiles(slot_BxL),), interpret=interpret)[0]


def _kernel(tiles_ref: Any, slot_ref: Any, in_ref: Any, out_ref: Any, *, walk: Walk, back: bool) -> None:
  b, g = pl.program_id(0), pl.program_id(1)
  i, m = walk.at(tiles_ref, b, g)
  new_i, new_m = walk.enters(tiles_ref, b, g)

  @pl.when(new_i if back else new_m)
  def _():
    out_ref[...] = jnp.zeros_like(out_ref)

  tile, length = (m, walk.capacity) if back else (i, walk.length)
  rows = walk.rows(in_ref[...], tile, length)
  out_ref[...] += move(walk.select(slot_ref[...], m), rows, transpose=back).astype(out_ref.dtype)


def describe(batch: int, length: int, capacity: int, width: int, dtype: Any, name: str = 'chunk') -> tuple[Call, Walk]:
  """Grid and blocks of the call and the walk in it; name: 'chunk' or 'chunk_gradient', which runs it backwards."""
  walk = Walk(batch, length, capacity, tile_rows('chunk', width))
  long = walk.block((batch, length, width), dtype, chunks=False)
  short = walk.block((batch, capacity, width), dtype, chunks=True)
  slot = walk.block((batch, walk.tiles, 1, walk.tile), jnp.int32, chunks=False)
  source, target = (short, long) if name == 'chunk_gradient' else (long, short)
  call = Call(
    name=name,
    grid=walk.grid,
    inputs=(slot, source),
    outputs=(target,),
    scalars=4 * batch * walk.steps,
    flops=2 * batch * walk.steps * walk.tile**2 * width,
  )
  return call, walk
