"""Cosines of adjacent positions on a GPU: one pass over q and k, and one more for their gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from kernels import gpu
from kernels.cost import Block, Call
from kernels.route import FLOOR

TILE = 16  # positions of one program
COLUMNS = 128  # of them, read at a time


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def cosines(q_BxLxD: Array, k_BxLxD: Array, interpret: bool = False) -> Array:
  """cos(q_{t-1}, k_t), [B, L] float32; any number at the first position, where the gradient must be 0."""
  return _forward(q_BxLxD, k_BxLxD, interpret)[0]


def _forward(q_BxLxD: Array, k_BxLxD: Array, interpret: bool) -> tuple[Array, tuple[Array, ...]]:
  length = q_BxLxD.shape[1]
  call = describe(*q_BxLxD.shape, q_BxLxD.dtype)
  kernel = functools.partial(_kernel, length=length, size=gpu.columns(call.inputs[0].array.shape[2], COLUMNS))
  out = gpu.run(call, kernel, *_fit(call, q_BxLxD, k_BxLxD), interpret=interpret)
  cosine, q_scale, k_scale = (v[:, :length] for v in out)
  return cosine, (q_BxLxD, k_BxLxD, cosine, q_scale, k_scale)


def _fit(call: Call, *arrays: Array) -> tuple[Array, ...]:
  width = call.inputs[-1].array.shape[2]
  return tuple(gpu.fit(v, 1, 1, width) for v in arrays)


def _rows(length: int) -> tuple[Array, Array, Array]:
  """Positions of this program, those before them (the row's last before its first), and which of them exist."""
  here_Q = pl.program_id(1) * TILE + jnp.arange(TILE)
  return here_Q, jnp.where(here_Q == 0, length - 1, here_Q - 1), here_Q < length


def _kernel(
  q_ref: Any, k_ref: Any, cosine_ref: Any, q_scale_ref: Any, k_scale_ref: Any, *, length: int, size: int
) -> None:
  here_Q, before_Q, exists_Q = _rows(length)

  def add(i, sums):
    q = gpu.load(q_ref, before_Q, exists_Q, i * size, size)
    k = gpu.load(k_ref, here_Q, exists_Q, i * size, size)
    return sums[0] + q * k, sums[1] + q * q, sums[2] + k * k

  sums = jax.lax.fori_loop(0, q_ref.shape[1] // size, add, (jnp.zeros((TILE, size), jnp.float32),) * 3)
  dot_Q, q_Q, k_Q = (jnp.sum(v, axis=1) for v in sums)
  scale = lambda square_Q: jax.lax.rsqrt(jnp.maximum(square_Q, FLOOR))
  cosine_ref[...] = dot_Q * scale(q_Q) * scale(k_Q)
  q_scale_ref[...], k_scale_ref[...] = scale(q_Q), scale(k_Q)


def _backward(interpret: bool, saved: tuple[Array, ...], dcosine_BxL: Array) -> tuple[Array, Array]:
  """With u, w the unit vectors: d k_t = (u_{t-1} - cos w_t) dcos_t / |k_t|, and likewise d q_{t-1}.

  A norm at its floor is a constant, and its own term falls away.
  """
  q_BxLxD, k_BxLxD, cosine, q_scale, k_scale = saved
  batch, length, width = q_BxLxD.shape
  call = describe(batch, length, width, q_BxLxD.dtype, 'route_gradient')
  own = lambda scale: jnp.where(scale < FLOOR**-0.5, -dcosine_BxL * cosine * scale * scale, 0.0)
  # The first position, whose gradient is 0, stands for the last q, which has none either.
  factors = (gpu.fit(v, 1, TILE) for v in (dcosine_BxL * q_scale * k_scale, own(q_scale), own(k_scale)))
  kernel = functools.partial(_gradient_kernel, length=length, size=call.inputs[-1].shape[2])
  dq, dk = gpu.run(call, kernel, *factors, *_fit(call, q_BxLxD, k_BxLxD), interpret=interpret)
  return dq[..., :width], dk[..., :width]


cosines.defvjp(_forward, _backward)


def _gradient_kernel(
  cross_ref: Any, q_own_ref: Any, k_own_ref: Any, q_ref: Any, k_ref: Any, dq_ref: Any, dk_ref: Any,
  *, length: int, size: int,
) -> None:  # fmt: skip
  here_Q, before_Q, exists_Q = _rows(length)
  start = pl.program_id(2) * size
  q, k = gpu.load(q_ref, before_Q, exists_Q, start, size), gpu.load(k_ref, here_Q, exists_Q, start, size)
  cross_Qx1, q_own_Qx1, k_own_Qx1 = (ref[...][:, None] for ref in (cross_ref, q_own_ref, k_own_ref))
  gpu.store(dq_ref, before_Q, exists_Q, start, cross_Qx1 * k + q_own_Qx1 * q)
  gpu.store(dk_ref, here_Q, exists_Q, start, cross_Qx1 * q + k_own_Qx1 * k)


def describe(batch: int, length: int, width: int, dtype: Any, name: str = 'route') -> Call:
  """Grid and blocks of the call; name: 'route' or 'route_gradient'."""
  size = gpu.columns(width, COLUMNS)
  width += -width % size
  tiles = pl.cdiv(length, TILE)
  wide = jax.ShapeDtypeStruct((batch, length, width), dtype)
  narrow = Block(jax.ShapeDtypeStruct((batch, tiles * TILE), jnp.float32), (None, TILE), lambda b, i, *_: (b, i))
  common = {'flops': 6 * batch * length * width, 'revisit': False}
  if name == 'route':
    rows = gpu.Rows(wide, (None, TILE, width), lambda b, i: (b, i, 0))
    return Call(name, (batch, tiles), (rows, rows), (narrow,) * 3, transcendentals=2 * batch * length, **common)
  rows = gpu.Rows(wide, (None, TILE, size), lambda b, i, d: (b, i, d))
  return Call(name, (batch, tiles, width // size), (narrow,) * 3 + (rows, rows), (rows, rows), **common)
