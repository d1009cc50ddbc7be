"""Cosines of adjacent positions on a TPU: one pass over q and k, and one more for their gradients."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.cost import Block, Call
from kernels.route import FLOOR
from kernels.tpu import column, from_tiles, in_tiles, row, row_index, run, tile_rows

HALO = 16  # rows of the next tile that a tile may look at: the least that both dtypes can be cut into


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def cosines(q_BxLxD: Array, k_BxLxD: Array, interpret: Any = False) -> Array:
  """cos(q_{t-1}, k_t), [B, L] float32; any number at the first position, where the gradient must be 0."""
  return _forward(q_BxLxD, k_BxLxD, interpret)[0]


def _forward(q_BxLxD: Array, k_BxLxD: Array, interpret: Any) -> tuple[Array, tuple[Array, ...]]:
  call = describe(*q_BxLxD.shape, q_BxLxD.dtype)
  length = q_BxLxD.shape[1]
  cosine, q_scale, k_scale = (from_tiles(v, length) for v in run(call, _kernel, q_BxLxD, k_BxLxD, interpret=interpret))
  return cosine, (q_BxLxD, k_BxLxD, cosine, q_scale, k_scale)


def _kernel(q_ref: Any, k_ref: Any, cosine_ref: Any, q_scale_ref: Any, k_scale_ref: Any, last_ref: Any) -> None:
  @pl.when(pl.program_id(1) == 0)
  def _():
    last_ref[...] = jnp.zeros_like(last_ref)

  q, k = q_ref[...].astype(jnp.float32), k_ref[...].astype(jnp.float32)
  scale = lambda v: jax.lax.rsqrt(jnp.maximum(jnp.sum(v * v, axis=1, keepdims=True), FLOOR))
  before = jnp.where(row_index(q.shape[0]) == 0, last_ref[...], pltpu.roll(q, 1, 0))
  last_ref[...] = q[-1:]
  q_scale, k_scale = scale(before), scale(k)
  cosine_ref[...] = row(jnp.sum(before * k, axis=1, keepdims=True) * q_scale * k_scale)
  q_scale_ref[...], k_scale_ref[...] = row(q_scale), row(k_scale)


def _backward(interpret: Any, saved: tuple[Array, ...], dcosine_BxL: Array) -> tuple[Array, Array]:
  """With u, w the unit vectors: d k_t = (u_{t-1} - cos w_t) dcos_t / |k_t|, and likewise d q_{t-1}.

  A norm at its floor is a constant, and its own term falls away.
  """
  q_BxLxD, k_BxLxD, cosine, q_scale, k_scale = saved
  call = describe(*q_BxLxD.shape, q_BxLxD.dtype, 'route_gradient')
  cross = dcosine_BxL * q_scale * k_scale
  own = lambda scale: jnp.where(scale < FLOOR**-0.5, -dcosine_BxL * cosine * scale * scale, 0.0)
  # Its part of q at t comes from position t + 1.
  after = lambda v_BxL: jnp.pad(v_BxL[:, 1:], ((0, 0), (0, 1)))
  tile = call.inputs[0].array.shape[-1]
  factors = [in_tiles(v, tile, 0.0) for v in (cross, own(k_scale), after(cross), after(own(q_scale)))]
  kernel = functools.partial(_gradient_kernel, length=q_BxLxD.shape[1])
  return tuple(run(call, kernel, *factors, q_BxLxD, k_BxLxD, k_BxLxD, interpret=interpret))


cosines.defvjp(_forward, _backward)


def _gradient_kernel(
  cross_ref: Any, k_own_ref: Any, next_cross_ref: Any, q_own_ref: Any,
  q_ref: Any, k_ref: Any, next_k_ref: Any, dq_ref: Any, dk_ref: Any, last_ref: Any, *, length: int,
) -> None:  # fmt: skip
  @pl.when(pl.program_id(1) == 0)
  def _():
    last_ref[...] = jnp.zeros_like(last_ref)

  q, k = q_ref[...].astype(jnp.float32), k_ref[...].astype(jnp.float32)
  tile = q.shape[0]
  index = row_index(tile)
  before = jnp.where(index == 0, last_ref[...], pltpu.roll(q, 1, 0))
  last_ref[...] = q[-1:]
  after = jnp.where(index == tile - 1, next_k_ref[...].astype(jnp.float32)[:1], pltpu.roll(k, tile - 1, 0))
  # Behind the end of the array is whatever VMEM held, and 0 * nan is nan.
  after = jnp.where(pl.program_id(1) * tile + index + 1 < length, after, 0)
  dk_ref[...] = (column(cross_ref[...]) * before + column(k_own_ref[...]) * k).astype(dk_ref.dtype)
  dq_ref[...] = (column(next_cross_ref[...]) * after + column(q_own_ref[...]) * q).astype(dq_ref.dtype)


def describe(batch: int, length: int, width: int, dtype: Any, name: str = 'route') -> Call:
  """Grid and blocks of the call; name: 'route' or 'route_gradient'."""
  tile = tile_rows('route', width)
  tiles, halos = pl.cdiv(length, tile), pl.cdiv(length, HALO)
  rows = Block(jax.ShapeDtypeStruct((batch, length, width), dtype), (None, tile, width), lambda b, i: (b, i, 0))
  narrow = Block(
    jax.ShapeDtypeStruct((batch, tiles, 1, tile), jnp.float32), (None, None, 1, tile), lambda b, i: (b, i, 0, 0)
  )
  common = {'name': name, 'grid': (batch, tiles), 'scratch': (((1, width), jnp.float32),)}
  if name == 'route':
    flops = 6 * batch * length * width
    return Call(**common, inputs=(rows, rows), outputs=(narrow,) * 3, flops=flops, transcendentals=2 * batch * length)
  clamp = lambda i: (np.minimum if isinstance(i, np.ndarray) else jnp.minimum)((i + 1) * (tile // HALO), halos - 1)
  halo = dataclasses.replace(rows, shape=(None, HALO, width), index=lambda b, i: (b, clamp(i), 0))
  inputs = (narrow,) * 4 + (rows, rows, halo)
  return Call(**common, inputs=inputs, outputs=(rows, rows), flops=6 * batch * length * width)
