"""The state-space recurrence on a GPU: programs go along a row with the state of one head, a tile at a time.

A tile is mixed by matrix products, and decays are made from the logarithms where they are used. For the gradient the
forward pass leaves the state that enters each tile, and a pass backwards the gradient in the state that leaves it, both
in x's dtype; the rest is then independent for every tile, and one program sums b's and c's gradients over the heads.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from kernels import gpu
from kernels.cost import Block, Call

TILE = 64  # most positions of a tile: its squares and the sums of b and c share the registers of one program
STATE_BYTES = 2**15  # of one head's state in x's dtype: more of it, and the products' operands leave shared memory


def ssd(
  x_BxLxHxP: Array,
  dt_BxLxH: Array,
  a_H: Array,
  b_BxLxN: Array,
  c_BxLxN: Array,
  segment_ids_BxL: Array,
  tile: int = TILE,
  interpret: bool = False,
) -> tuple[Array, Array]:
  """See `kernels.ssd.ssd`; on a GPU the tile is a power of two from 16 to 64."""
  batch, length, heads, head_dim = x_BxLxHxP.shape
  n, dtype = b_BxLxN.shape[2], x_BxLxHxP.dtype
  tile = max(16, min(TILE, gpu.power_of_two(min(tile, length))))
  size, state = (max(16, gpu.power_of_two(v)) for v in (head_dim, n))
  if size * state * dtype.itemsize > STATE_BYTES:
    raise ValueError(
      f'ssd: heads with states of {size} x {state} ({head_dim} x {n} as powers of two) need {size * state} numbers of '
      f"{dtype} each, and the GPU kernel holds {STATE_BYTES} bytes; write implementation='xla'."
    )
  dt_BxHxL = gpu.fit(jnp.moveaxis(dt_BxLxH.astype(jnp.float32), 1, 2), 1, 1, tile)
  tiles = (dt_BxHxL * a_H.astype(jnp.float32)[None, :, None]).reshape(batch, heads, -1, tile)
  log_BxHxL = jnp.cumsum(tiles, axis=-1).reshape(dt_BxHxL.shape)  # of the decay since the tile began
  y, final = _scan(
    gpu.fit(x_BxLxHxP, 1, tile, 1, size),
    dt_BxHxL,
    log_BxHxL,
    gpu.fit(b_BxLxN.astype(dtype), 1, tile, state),
    gpu.fit(c_BxLxN.astype(dtype), 1, tile, state),
    jnp.pad(segment_ids_BxL, ((0, 0), (0, -length % tile)), mode='edge'),
    tile,
    interpret,
  )
  return y[:, :length, :, :head_dim], final[:, :, :head_dim, :n]


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _scan(x, dt, log, b, c, ids, tile, interpret):
  return tuple(_run('ssd', _forward_kernel, (x, dt, log, b, c, ids), x, b, tile, interpret))


def _forward(x, dt, log, b, c, ids, tile, interpret):
  y, final, entering = _run('ssd_forward', _forward_kernel, (x, dt, log, b, c, ids), x, b, tile, interpret)
  return (y, final), (x, dt, log, b, c, ids, entering)


def _backward(tile, interpret, saved, cotangents):
  x, dt, log, b, c, ids, entering = saved
  dy, dfinal = cotangents
  leaving = _run('ssd_states', _states_kernel, (dy, dfinal, log, c, ids), x, b, tile, interpret)[0]
  arrays = (x, dy, dt, log, b, c, ids, entering, leaving)
  return *_run('ssd_gradient', _gradient_kernel, arrays, x, b, tile, interpret), None


_scan.defvjp(_forward, _backward)


def _run(name, kernel, arrays, x, b, tile, interpret) -> list[Array]:
  call = describe(*x.shape, b.shape[2], x.dtype, tile, name)
  # What the heads' loop reads ahead would not fit in shared memory beside the operands of its products.
  stages = 1 if name == 'ssd_gradient' else 2
  return gpu.run(call, functools.partial(kernel, tile=tile), *arrays, warps=8, stages=stages, interpret=interpret)


def _decays(log_Q: Array, ids_Q: Array, end: Array, last: Array, before: Array) -> tuple[Array, ...]:
  """Of a tile whose last position has log decay `end` and document `last`, behind a position of document `before`.

  How much of position j is left at i, of the entering state at i, of j at the end, and of the entering state there.
  """
  index_Q = jnp.arange(log_Q.shape[0])
  seen = (index_Q[:, None] >= index_Q[None]) & (ids_Q[:, None] == ids_Q[None])
  between_QxQ = jnp.where(seen, jnp.exp(log_Q[:, None] - log_Q[None]), 0.0)
  from_start_Q = jnp.where(ids_Q == before, jnp.exp(log_Q), 0.0)
  to_end_Q = jnp.where(ids_Q == last, jnp.exp(end - log_Q), 0.0)
  return between_QxQ, from_start_Q, to_end_Q, jnp.where(last == before, jnp.exp(end), 0.0)


def _tile(log_ref: Any, ids_ref: Any, start: Any, tile: int) -> tuple[Array, ...]:
  """The arguments of _decays for the tile of a row that begins at `start`."""
  rows, last = pl.ds(start, tile), start + tile - 1
  return log_ref[rows], ids_ref[rows], log_ref[last], ids_ref[last], ids_ref[jnp.maximum(start - 1, 0)]


def _forward_kernel(x_ref, dt_ref, log_ref, b_ref, c_ref, ids_ref, y_ref, final_ref, *entering_ref, tile: int) -> None:
  dtype = x_ref.dtype

  def step(g, state):
    start = g * tile
    rows = pl.ds(start, tile)
    for ref in entering_ref:
      ref[g] = state.astype(dtype)
    between, from_start, to_end, survives = _decays(*_tile(log_ref, ids_ref, start, tile))
    b, c = b_ref[rows, :], c_ref[rows, :]
    u = x_ref[rows, :].astype(jnp.float32) * dt_ref[rows][:, None]
    y = gpu.dot((gpu.dot(c, b.T) * between).astype(dtype), u.astype(dtype))
    y += from_start[:, None] * gpu.dot(c, state.astype(dtype).T)
    y_ref[rows, :] = y.astype(dtype)
    return survives * state + gpu.dot((u * to_end[:, None]).astype(dtype).T, b)

  shape = final_ref.shape
  final_ref[...] = jax.lax.fori_loop(0, y_ref.shape[0] // tile, step, jnp.zeros(shape, jnp.float32))


def _states_kernel(dy_ref, dfinal_ref, log_ref, c_ref, ids_ref, leaving_ref, *, tile: int) -> None:
  dtype, tiles = dy_ref.dtype, dy_ref.shape[0] // tile

  def step(n, dstate):
    g = tiles - 1 - n
    start = g * tile
    rows = pl.ds(start, tile)
    leaving_ref[g] = dstate.astype(dtype)
    _, from_start, _, survives = _decays(*_tile(log_ref, ids_ref, start, tile))
    dy = dy_ref[rows, :].astype(jnp.float32) * from_start[:, None]
    return survives * dstate + gpu.dot(dy.astype(dtype).T, c_ref[rows, :])

  jax.lax.fori_loop(0, tiles, step, dfinal_ref[...])


def _gradient_kernel(
  x_ref, dy_ref, dt_ref, log_ref, b_ref, c_ref, ids_ref, entering_ref, leaving_ref,
  dx_ref, ddt_ref, dlog_ref, db_ref, dc_ref, *, tile: int,
) -> None:  # fmt: skip
  dtype, f32 = x_ref.dtype, jnp.float32
  start = pl.program_id(1) * tile
  ids_Q, last, before = ids_ref[pl.ds(start, tile)], ids_ref[start + tile - 1], ids_ref[jnp.maximum(start - 1, 0)]
  b, c = b_ref[...], c_ref[...]
  scores = gpu.dot(c, b.T)

  def head(h, sums):
    dscores, db, dc = sums
    between, from_start, to_end, survives = _decays(log_ref[h, :], ids_Q, log_ref[h, tile - 1], last, before)
    x, dy, dt = x_ref[:, h, :].astype(f32), dy_ref[:, h, :].astype(f32), dt_ref[h, :]
    u, entering, leaving = x * dt[:, None], entering_ref[h], leaving_ref[h]
    dmixing = gpu.dot(dy.astype(dtype), u.astype(dtype).T)
    dc_state = gpu.dot((dy * from_start[:, None]).astype(dtype), entering)
    db_state = gpu.dot((u * to_end[:, None]).astype(dtype), leaving)
    du = gpu.dot((scores * between).astype(dtype).T, dy.astype(dtype))
    du += to_end[:, None] * gpu.dot(b, leaving.T)
    dx_ref[:, h, :] = (du * dt[:, None]).astype(dtype)
    ddt_ref[h, :] = jnp.sum(du * x, axis=1)
    dmixing *= between
    pull = dmixing * scores
    ended = jnp.sum(db_state * b.astype(f32), axis=1)
    dlog = jnp.sum(pull, axis=1) - jnp.sum(pull, axis=0) + jnp.sum(dc_state * c.astype(f32), axis=1) - ended
    at_end = jnp.sum(ended) + survives * jnp.sum(entering.astype(f32) * leaving.astype(f32))
    dlog_ref[h, :] = dlog + jnp.where(jnp.arange(tile) == tile - 1, at_end, 0.0)
    return dscores + dmixing, db + db_state, dc + dc_state

  zeros = jnp.zeros(b.shape, f32)
  dscores, db, dc = jax.lax.fori_loop(0, x_ref.shape[1], head, (jnp.zeros((tile, tile), f32), zeros, zeros))
  dscores = dscores.astype(dtype)
  db_ref[...] = (db + gpu.dot(dscores.T, c)).astype(dtype)
  dc_ref[...] = (dc + gpu.dot(dscores, b)).astype(dtype)


def describe(
  batch: int, length: int, heads: int, head_dim: int, n: int, dtype: Any, tile: int = TILE, name: str = 'ssd'
) -> Call:
  """Grid and blocks of one call, for lengths that are multiples of the tile and powers of two of head_dim and n.

  name: 'ssd', 'ssd_forward' (which leaves the entering states to the gradient), 'ssd_states' and 'ssd_gradient'. The
  programs of a row's heads read the same b, c and segment ids at about the same time: they are counted once.
  """
  f32, tiles = jnp.float32, length // tile
  shape = jax.ShapeDtypeStruct
  by_tile = name == 'ssd_gradient'
  first = lambda b, h: b + batch * (h > 0)  # out of the array, which moves nothing

  def block(array: jax.ShapeDtypeStruct, by_head: tuple, by_position: tuple, shared: bool = False) -> Block:
    """Axes of the array are named: 'b', 'h' and 'g' are of the grid, None is whole, a number is the block's length."""
    axes = by_position if by_tile else by_head
    length_of = lambda axis, whole: None if isinstance(axis, str) else whole if axis is None else axis
    sizes = tuple(map(length_of, axes, array.shape))
    index = lambda b, i: tuple(b if axis == 'b' else 0 if axis is None else i for axis in axes)
    typical = (lambda b, h: (first(b, h), *index(b, h)[1:])) if shared and not by_tile else None
    return Block(array, sizes, index, typical)

  wide = block(shape((batch, length, heads, head_dim), dtype), ('b', None, 'h', None), ('b', tile, None, None))
  narrow = block(shape((batch, heads, length), f32), ('b', 'h', None), ('b', None, tile))
  shared = block(shape((batch, length, n), dtype), ('b', None, None), ('b', tile, None), True)
  ids = block(shape((batch, length), jnp.int32), ('b', None), ('b', None), True)
  states = block(
    shape((batch, tiles, heads, head_dim, n), dtype), ('b', None, 'h', None, None), ('b', 'g', None, None, None)
  )
  final = block(shape((batch, heads, head_dim, n), f32), ('b', 'h', None, None), ('b', None, None, None))
  positions = batch * length * heads
  inside, across = 2 * positions * tile * head_dim, 2 * positions * head_dim * n
  scores = 2 * batch * length * tile * n
  inputs, outputs, flops = {
    'ssd': ((wide, narrow, narrow, shared, shared, ids), (wide, final), inside + 2 * across + heads * scores),
    'ssd_forward': (
      (wide, narrow, narrow, shared, shared, ids), (wide, final, states), inside + 2 * across + heads * scores
    ),
    'ssd_states': ((wide, final, narrow, shared, ids), (states,), across),
    'ssd_gradient': (
      (wide, wide, narrow, narrow, shared, shared, ids, states, states),
      (wide, narrow, narrow, shared, shared),
      2 * inside + 3 * across + 3 * scores,
    ),
  }[name]  # fmt: skip
  return Call(
    name=name,
    grid=(batch, tiles if by_tile else heads),
    inputs=inputs,
    outputs=outputs,
    flops=flops,
    transcendentals=positions * (tile + 2),
    revisit=False,
  )
