"""Dechunking on a TPU: reads the chunks once and writes the positions once, and the same backwards.

A tile of chunks is smoothed when the walk reaches it, by doubling steps over the whole tile with the state before it
carried in; a product with a 0/1 matrix hands the rows to their positions. The backward walk recomputes a tile from the
state before it, which is all that the forward pass saves.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.cost import Call
from kernels.tpu import HIGHEST, Walk, column, from_tiles, in_tiles, move, row, row_index, run, tile_rows

F32 = jnp.float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def dechunk(
  z_BxMxD: Array,
  weight_BxM: Array,
  keep_BxM: Array,
  slot_BxL: Array,
  selected_BxL: Array,
  residual_BxLxD: Array | None,
  interpret: Any = False,
) -> Array:
  """See kernels.dechunk; weight, keep and slot as kernels.dechunk.coefficients makes them."""
  return _forward(z_BxMxD, weight_BxM, keep_BxM, slot_BxL, selected_BxL, residual_BxLxD, interpret)[0]


def _forward(z, weight, keep, slot, selected, residual, interpret) -> tuple[Array, tuple]:
  del selected
  batch, capacity, width = z.shape
  dtype = z.dtype if residual is None else residual.dtype
  call, walk = describe(batch, slot.shape[1], capacity, width, z.dtype, None if residual is None else dtype)
  kernel = functools.partial(_kernel, walk=walk)
  if residual is None:
    kernel = lambda *refs: _kernel(*refs[:5], None, *refs[5:], walk=walk)
  tiles = walk.position_tiles(slot)
  narrow = [in_tiles(v, walk.tile, empty) for v, empty in ((slot, -1), (weight, 0), (keep, 0))]
  wide = (z,) if residual is None else (z, residual)
  y, entering = run(call, kernel, *narrow, *wide, prefetch=(tiles,), interpret=interpret)
  # The residual's gradient needs its dtype only.
  none = None if residual is None else jnp.zeros(0, residual.dtype)
  return y, (z, weight, keep, slot, entering, none)


def _kernel(
  tiles_ref: Any, slot_ref: Any, weight_ref: Any, keep_ref: Any, z_ref: Any, residual_ref: Any,
  y_ref: Any, entering_ref: Any, smooth_ref: Any, last_ref: Any, sum_ref: Any, *, walk: Walk,
) -> None:  # fmt: skip
  b, g = pl.program_id(0), pl.program_id(1)
  _, m = walk.at(tiles_ref, b, g)
  new_i, new_m = walk.enters(tiles_ref, b, g)

  @pl.when(g == 0)
  def _():
    last_ref[...] = jnp.zeros_like(last_ref)

  @pl.when(new_m)
  def _():
    entering_ref[...] = last_ref[...]
    smooth_ref[...] = _smooth(z_ref[...], weight_ref[...], keep_ref[...], last_ref[...])
    last_ref[...] = smooth_ref[walk.tile - 1 :, :]

  @pl.when(new_i)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref) if residual_ref is None else residual_ref[...].astype(F32)

  sum_ref[...] += move(walk.select(slot_ref[...], m), smooth_ref[...], transpose=True)
  y_ref[...] = sum_ref[...].astype(y_ref.dtype)


def _smooth(z_QxD: Array, weight_1xQ: Array, keep_1xQ: Array, before_1xD: Array) -> Array:
  weight = column(weight_1xQ)
  own = jnp.where(weight > 0, weight * z_QxD.astype(F32), 0.0)  # an empty chunk may hold anything
  return _scan(column(keep_1xQ), own, before_1xD)


def _scan(keep_Qx1: Array, own_QxD: Array, before_1xD: Array, backwards: bool = False) -> Array:
  """s_q = own_q + keep_q s_{q-1} (or s_{q+1}) with `before` outside the tile, in log2(Q) steps of doubled reach."""
  tile = own_QxD.shape[0]
  index = tile - 1 - row_index(tile) if backwards else row_index(tile)
  reach = 1
  while reach < tile:
    shift = tile - reach if backwards else reach
    keep = jnp.where(index >= reach, keep_Qx1, 0.0)
    own_QxD = own_QxD + keep * pltpu.roll(own_QxD, shift, 0)
    keep_Qx1 = jnp.where(index >= reach, keep_Qx1 * _roll(keep_Qx1, shift), keep_Qx1)
    reach *= 2
  return own_QxD + keep_Qx1 * before_1xD


def _roll(column_Qx1: Array, shift: int) -> Array:
  return pltpu.roll(column_Qx1, shift, 0)


def _backward(interpret: Any, saved: tuple, dy_BxLxD: Array) -> tuple:
  z, weight, keep, slot, entering, none = saved
  batch, capacity, width = z.shape
  length = slot.shape[1]
  call, walk = describe(batch, length, capacity, width, z.dtype, dy_BxLxD.dtype, 'dechunk_gradient')
  next_keep = jnp.pad(keep[:, 1:], ((0, 0), (0, 1)))
  narrow = [in_tiles(v, walk.tile, empty) for v, empty in ((slot, -1), (weight, 0), (keep, 0), (next_keep, 0))]
  kernel = functools.partial(_gradient_kernel, walk=walk)
  dz, dweight, dkeep, dselected = run(
    call, kernel, *narrow, entering, z, dy_BxLxD, prefetch=(walk.position_tiles(slot),), interpret=interpret
  )
  dresidual = None if none is None else dy_BxLxD.astype(none.dtype)
  return dz, from_tiles(dweight, capacity), from_tiles(dkeep, capacity), None, from_tiles(dselected, length), dresidual


dechunk.defvjp(_forward, _backward)


def _gradient_kernel(
  tiles_ref: Any, slot_ref: Any, weight_ref: Any, keep_ref: Any, next_keep_ref: Any, entering_ref: Any, z_ref: Any,
  dy_ref: Any, dz_ref: Any, dweight_ref: Any, dkeep_ref: Any, dselected_ref: Any,
  smooth_ref: Any, sum_ref: Any, after_ref: Any, *, walk: Walk,
) -> None:  # fmt: skip
  """Backwards: h_m = (sum of dy over m's positions) + keep_{m+1} h_{m+1} is the gradient of s_m."""
  b, g = pl.program_id(0), pl.program_id(1)
  i, m = walk.at(tiles_ref, b, g)
  new_i, new_m = walk.enters(tiles_ref, b, g)

  @pl.when(g == 0)
  def _():
    after_ref[...] = jnp.zeros_like(after_ref)

  @pl.when(new_m)
  def _():
    smooth_ref[...] = _smooth(z_ref[...], weight_ref[...], keep_ref[...], entering_ref[...])
    sum_ref[...] = jnp.zeros_like(sum_ref)

  @pl.when(new_i)
  def _():
    dselected_ref[...] = jnp.zeros_like(dselected_ref)

  select = walk.select(slot_ref[...], m)
  dy = walk.rows(dy_ref[...], i, walk.length)
  sum_ref[...] += move(select, dy)
  products_QxR = jax.lax.dot_general(
    smooth_ref[...], dy.astype(F32), (((1,), (1,)), ((), ())), precision=HIGHEST, preferred_element_type=F32
  )
  dselected_ref[...] += jnp.sum(jnp.where(select, products_QxR, 0.0), axis=0, keepdims=True)

  @pl.when(walk.leaves_chunks(tiles_ref, b, g))
  def _():
    h = _scan(column(next_keep_ref[...]), sum_ref[...], after_ref[...], backwards=True)
    after_ref[...] = h[:1]
    weight = column(weight_ref[...])
    dz_ref[...] = (weight * h).astype(dz_ref.dtype)
    z = jnp.where(weight > 0, z_ref[...].astype(F32), 0.0)
    before = jnp.where(row_index(walk.tile) == 0, entering_ref[...], pltpu.roll(smooth_ref[...], 1, 0))
    total = lambda v: row(jnp.sum(v, axis=1, keepdims=True))
    dweight_ref[...] = total(h * z)
    dkeep_ref[...] = total(h * before)


def describe(
  batch: int, length: int, capacity: int, width: int, dtype: Any, long_dtype: Any, name: str = 'dechunk'
) -> tuple[Call, Walk]:
  """Grid and blocks of the call and the walk in it.

  name: 'dechunk' or 'dechunk_gradient'. dtype: of z. long_dtype: of the residual (None: without one), or of dy.
  """
  backwards = name == 'dechunk_gradient'
  walk = Walk(batch, length, capacity, tile_rows('dechunk', width), backwards)
  tile, chunk_tiles = walk.tile, walk.steps - walk.tiles + 1
  slot = walk.block((batch, walk.tiles, 1, tile), jnp.int32, chunks=False)
  selected = walk.block((batch, walk.tiles, 1, tile), F32, chunks=False)
  scale = walk.block((batch, chunk_tiles, 1, tile), F32, chunks=True)
  entering = walk.block((batch, chunk_tiles, 1, width), F32, chunks=True)
  z = walk.block((batch, capacity, width), dtype, chunks=True)
  long = walk.block((batch, length, width), long_dtype or dtype, chunks=False)
  products = 2 * batch * walk.steps * tile**2 * width
  common = {'name': name, 'grid': walk.grid, 'scalars': 4 * batch * walk.steps}
  tile_f32, row_f32 = ((tile, width), F32), ((1, width), F32)
  if backwards:
    inputs = (slot, scale, scale, scale, entering, z, long)
    outputs = (z, scale, scale, selected)
    call = Call(**common, inputs=inputs, outputs=outputs, scratch=(tile_f32, tile_f32, row_f32), flops=2 * products)
  else:
    inputs = (slot, scale, scale, z) + ((long,) if long_dtype else ())
    scratch = (tile_f32, row_f32, tile_f32)
    call = Call(**common, inputs=inputs, outputs=(long, entering), scratch=scratch, flops=products)
  return call, walk
