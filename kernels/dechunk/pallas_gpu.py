"""Dechunking on a GPU: programs go along a row with a few columns of the state, and read z and write y once.

The recurrence over chunks is run over positions, s_t = keep_t s_{t-1} + weight_t z_m(t), with keep 1 and weight 0 where
no chunk starts. A tile of positions is one matrix product.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from kernels import gpu
from kernels.cost import Block, Call

TILE = 32  # positions of one matrix product; each leaves the state that enters it to the backward pass
COLUMNS = 64  # of one program


def dechunk(
  z_BxMxD: Array,
  weight_BxM: Array,
  keep_BxM: Array,
  slot_BxL: Array,
  selected_BxL: Array,
  residual_BxLxD: Array | None,
  interpret: bool = False,
) -> Array:
  """s_m = weight_m z_m + keep_m s_{m-1}, where slot (-1: none) says; times STE(selected), plus the residual."""
  length = slot_BxL.shape[1]
  before_BxL = jnp.pad(slot_BxL[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  chunk_BxL = jnp.where(slot_BxL != before_BxL, slot_BxL, -1)  # the chunk that starts here
  starts_BxL = chunk_BxL >= 0
  pick = lambda v, other: jnp.where(
    starts_BxL, jnp.take_along_axis(v, jnp.maximum(chunk_BxL, 0), axis=1, mode='clip'), other
  )
  weight_BxL, keep_BxL = pick(weight_BxM, 0.0), pick(keep_BxM, 1.0)
  # Nothing is kept where a document starts: positions of one run see each other.
  run_BxL = jnp.cumsum(keep_BxL == 0.0, axis=1, dtype=jnp.int32)
  size, width = gpu.columns(z_BxMxD.shape[2], COLUMNS), z_BxMxD.shape[2]
  narrow = lambda v, value=0: gpu.fit(v, 1, TILE, value=value)
  y = _scan(
    gpu.fit(z_BxMxD, 1, 1, size),
    narrow(weight_BxL),
    narrow(keep_BxL, 1),
    narrow(selected_BxL),
    narrow(chunk_BxL, -1),
    narrow(run_BxL, -1),
    narrow(slot_BxL, -1),
    None if residual_BxLxD is None else gpu.fit(residual_BxLxD, 1, TILE, size),
    interpret,
  )
  return y[:, :length, :width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(8,))
def _scan(z, weight, keep, selected, chunk, run, slot, residual, interpret):
  del selected  # its factor is 1
  return _run_forward(z, weight, keep, chunk, run, slot, residual, interpret, 'dechunk')[0]


def _forward(z, weight, keep, selected, chunk, run, slot, residual, interpret):
  del selected
  y, entering = _run_forward(z, weight, keep, chunk, run, slot, residual, interpret, 'dechunk_forward')
  like = None if residual is None else residual[:0]
  return y, (z, weight, keep, chunk, run, slot, entering, like)


def _run_forward(z, weight, keep, chunk, run, slot, residual, interpret, name):
  dtype = z.dtype if residual is None else residual.dtype
  call = describe(z.shape[0], slot.shape[1], *z.shape[1:], z.dtype, name, None if residual is None else dtype)
  arrays = (weight, _log(keep), chunk, run, slot, z) + (() if residual is None else (residual,))
  kernel = functools.partial(_forward_kernel, residual=residual is not None, save=name == 'dechunk_forward')
  return gpu.run(call, kernel, *arrays, interpret=interpret)


def _log(keep: Array) -> Array:
  return jnp.log(jnp.where(keep > 0, keep, 1.0))


def _tile(refs: tuple[Any, ...], g: Any) -> tuple[Array, ...]:
  return tuple(ref[pl.ds(g * TILE, TILE)] for ref in refs)


def _before(run_ref: Any, g: Any) -> Array:
  """The run that the position before the tile belongs to; at the first tile any, the state being zero."""
  return run_ref[jnp.maximum(g * TILE - 1, 0)]


def _forward_kernel(
  weight_ref, log_ref, chunk_ref, run_ref, slot_ref, z_ref, *rest, residual: bool, save: bool
) -> None:
  residual_ref, rest = (rest[0], rest[1:]) if residual else (None, rest)
  y_ref = rest[0]
  size = y_ref.shape[1]
  i, j = jnp.arange(TILE)[:, None], jnp.arange(TILE)[None]

  def step(g, state_C):
    weight_Q, log_Q, chunk_Q, run_Q, slot_Q = _tile((weight_ref, log_ref, chunk_ref, run_ref, slot_ref), g)
    if save:
      rest[1][g, :] = state_C
    z = gpu.load(z_ref, jnp.maximum(chunk_Q, 0), chunk_Q >= 0, 0, size)
    between, total_Q = gpu.decay(log_Q)
    seen = (i >= j) & (run_Q[:, None] == run_Q[None])
    from_state_Q = jnp.where(run_Q == _before(run_ref, g), jnp.exp(total_Q), 0.0)
    s = gpu.dot(jnp.where(seen, jnp.exp(between), 0.0) * weight_Q[None], z) + from_state_Q[:, None] * state_C[None]
    y = jnp.where((slot_Q >= 0)[:, None], s, 0.0)
    rows = pl.ds(g * TILE, TILE)
    if residual:
      y += residual_ref[rows, :].astype(jnp.float32)
    y_ref[rows, :] = y.astype(y_ref.dtype)
    return _row(s, TILE - 1)

  jax.lax.fori_loop(0, y_ref.shape[0] // TILE, step, jnp.zeros(size, jnp.float32))


def _row(v: Array, index: int) -> Array:
  return jnp.sum(jnp.where(jnp.arange(v.shape[0])[:, None] == index, v, 0.0), axis=0)


def _backward(interpret, saved, dy):
  z, weight, keep, chunk, run, slot, entering, like = saved
  call = describe(z.shape[0], slot.shape[1], *z.shape[1:], z.dtype, 'dechunk_gradient', dy.dtype)
  arrays = (weight, _log(keep), chunk, run, slot, z, entering, dy)
  dz, *sums = gpu.run(call, _gradient_kernel, *arrays, interpret=interpret)
  dweight, dkeep, dselected = (jnp.sum(v, axis=1) for v in sums)
  dresidual = None if like is None else dy.astype(like.dtype)
  return dz, dweight, dkeep, dselected, None, None, None, dresidual


_scan.defvjp(_forward, _backward)


def _gradient_kernel(
  weight_ref, log_ref, chunk_ref, run_ref, slot_ref, z_ref, entering_ref, dy_ref,
  dz_ref, dweight_ref, dkeep_ref, dselected_ref,
) -> None:  # fmt: skip
  """With s' = s_{t-1} and c_t the gradient in s_t: c_t = dy_t + keep_{t+1} c_{t+1}, dz = weight c, dkeep = c s'."""
  tiles, size = dy_ref.shape[0] // TILE, dy_ref.shape[1]
  i, j = jnp.arange(TILE)[:, None], jnp.arange(TILE)[None]
  capacity = dz_ref.shape[0]

  def step(n, carry):
    later_C, count = carry
    g = tiles - 1 - n
    weight_Q, log_Q, chunk_Q, run_Q, slot_Q = _tile((weight_ref, log_ref, chunk_ref, run_ref, slot_ref), g)
    rows = pl.ds(g * TILE, TILE)
    state_C = entering_ref[g, :]
    z = gpu.load(z_ref, jnp.maximum(chunk_Q, 0), chunk_Q >= 0, 0, size)
    dy = jnp.where((slot_Q >= 0)[:, None], dy_ref[rows, :].astype(jnp.float32), 0.0)
    between, total_Q = gpu.decay(log_Q)
    same = run_Q[:, None] == run_Q[None]
    decay = jnp.where((i >= j) & same, jnp.exp(between), 0.0)
    continues_Q = run_Q == _before(run_ref, g)
    from_state_Q = jnp.where(continues_Q, jnp.exp(total_Q), 0.0)
    s = gpu.dot(decay * weight_Q[None], z) + from_state_Q[:, None] * state_C[None]
    # What stands before a position: the same sums without its own factor, where it keeps anything.
    apart = jnp.where((i > j) & same, jnp.exp(between - log_Q[:, None]), 0.0)
    before = gpu.dot(apart * weight_Q[None], z)
    before += jnp.where(continues_Q, jnp.exp(total_Q - log_Q), 0.0)[:, None] * state_C[None]
    to_end_Q = jnp.sum(jnp.where(i == TILE - 1, decay, 0.0), axis=0)
    c = gpu.dot(decay.T, dy) + to_end_Q[:, None] * later_C[None]
    gpu.store(dz_ref, jnp.maximum(chunk_Q, 0), chunk_Q >= 0, 0, weight_Q[:, None] * c)
    dweight_ref[rows], dkeep_ref[rows] = jnp.sum(c * z, axis=1), jnp.sum(c * before, axis=1)
    dselected_ref[rows] = jnp.sum(dy * s, axis=1)
    survives = jnp.sum(jnp.where(jnp.arange(TILE) == TILE - 1, from_state_Q, 0.0))
    later_C = jnp.sum(from_state_Q[:, None] * dy, axis=0) + survives * later_C
    return later_C, jnp.maximum(count, jnp.max(chunk_Q) + 1)

  start = (jnp.zeros(size, jnp.float32), jnp.zeros((), jnp.int32))
  _, count = jax.lax.fori_loop(0, tiles, step, start)

  def clear(n, _):
    index_Q = count + n * TILE + jnp.arange(TILE)
    gpu.store(dz_ref, index_Q, index_Q < capacity, 0, jnp.zeros((TILE, size), jnp.float32))

  jax.lax.fori_loop(0, pl.cdiv(capacity - count, TILE), clear, None)


def describe(
  batch: int, length: int, capacity: int, width: int, dtype: Any, name: str = 'dechunk', other: Any = None
) -> Call:
  """Grid and blocks of the call. `other` is the dtype of the residual, if there is one, and of y and dy.

  name: 'dechunk', 'dechunk_forward', which also leaves the states to the backward pass, or 'dechunk_gradient'.
  """
  size = gpu.columns(width, COLUMNS)
  length, width = length + -length % TILE, width + -width % size
  float32, int32 = jnp.float32, jnp.int32
  along = lambda rows, dtype: Block(
    jax.ShapeDtypeStruct((batch, rows, width), dtype), (None, rows, size), lambda b, d: (b, 0, d)
  )
  narrow = lambda dtype: Block(jax.ShapeDtypeStruct((batch, length), dtype), (None, length), lambda b, d: (b, 0))
  numbers = (narrow(float32),) * 2 + (narrow(int32),) * 3
  states, z, y = along(length // TILE, float32), along(capacity, dtype), along(length, other or dtype)
  sums = Block(
    jax.ShapeDtypeStruct((batch, width // size, length), float32), (None, None, length), lambda b, d: (b, d, 0)
  )
  inputs, outputs = {
    'dechunk': ((z,) + ((y,) if other else ()), (y,)),
    'dechunk_forward': ((z,) + ((y,) if other else ()), (y, states)),
    'dechunk_gradient': ((z, states, y), (z, sums, sums, sums)),
  }[name]
  products = 3 if name == 'dechunk_gradient' else 1
  return Call(
    name=name,
    grid=(batch, width // size),
    inputs=numbers + inputs,
    outputs=outputs,
    flops=2 * products * batch * length * TILE * width,
    transcendentals=batch * length * TILE * (width // size),
    revisit=False,
  )
