"""Dechunking in tiles of matrix products, a gather and XLA's fusions."""

import jax
import jax.numpy as jnp
from jax import Array

HIGHEST = jax.lax.Precision.HIGHEST


def dechunk(
  z_BxMxD: Array, weight_BxM: Array, keep_BxM: Array, slot_BxL: Array, selected_BxL: Array, residual_BxLxD: Array | None
) -> Array:
  """See kernels.dechunk; weight, keep and slot as kernels.dechunk.coefficients makes them."""
  filled_BxMx1 = weight_BxM[..., None] > 0
  smooth_BxMxD = smooth(jnp.where(filled_BxMx1, z_BxMxD, 0), weight_BxM, keep_BxM)
  slot_BxLx1 = slot_BxL[..., None]
  u = jnp.take_along_axis(smooth_BxMxD, jnp.maximum(slot_BxLx1, 0), axis=1, mode='clip')
  through = 1.0 + (selected_BxL - jax.lax.stop_gradient(selected_BxL))  # exactly 1 forward, slope 1 backward
  u = jnp.where(slot_BxLx1 >= 0, u, 0.0) * through[..., None]
  if residual_BxLxD is None:
    return u.astype(z_BxMxD.dtype)
  return (u + residual_BxLxD.astype(jnp.float32)).astype(residual_BxLxD.dtype)


def smooth(z_BxMxD: Array, weight_BxM: Array, keep_BxM: Array, tile: int = 32) -> Array:
  """s_m = weight_m z_m + keep_m s_{m-1}: [B, M, D] float32.

  Tiles of the sequence are matrix products; log weights inside a tile are summed over their own range, since the
  difference of two long prefix sums would lose digits (a clamped boundary alone contributes log 1e-4).
  """
  batch, length, width = z_BxMxD.shape
  tile = min(tile, length)
  pad = -length % tile
  widen = lambda v: jnp.pad(v, ((0, 0), (0, pad)) + ((0, 0),) * (v.ndim - 2))
  split = lambda v: widen(v).reshape(batch, -1, tile, *v.shape[2:])
  z, weight, keep = split(z_BxMxD.astype(jnp.float32)), split(weight_BxM), split(keep_BxM)
  # A keep of 0 begins a new run; its logarithm never enters a gradient.
  run_BxGxQ = jnp.cumsum(keep == 0, -1)
  log_keep_BxGxQ = jnp.log(jnp.where(keep == 0, 1.0, keep))

  # log weight of chunk j in chunk i: sum of log keep over j < k <= i.
  lower = jnp.tril(jnp.ones((1, 1, tile, tile), bool))
  steps_BxGxQxQ = jnp.where(jnp.tril(lower, -1), log_keep_BxGxQ[..., None], 0.0)
  same_BxGxQxQ = lower & (run_BxGxQ[..., :, None] == run_BxGxQ[..., None, :])
  decay_BxGxQxQ = jnp.where(same_BxGxQxQ, jnp.exp(jnp.cumsum(steps_BxGxQxQ, axis=-2)), 0.0)
  s = jnp.einsum('bgij,bgjd->bgid', decay_BxGxQxQ * weight[..., None, :], z, precision=HIGHEST)

  from_start_BxGxQ = jnp.exp(jnp.cumsum(log_keep_BxGxQ, -1)) * (run_BxGxQ == 0)

  def carry(state_BxD, tile_in):
    own_BxD, survives_B = tile_in
    return survives_B[:, None] * state_BxD + own_BxD, state_BxD

  _, entering = jax.lax.scan(
    carry,
    jnp.zeros((batch, width), jnp.float32),
    (jnp.moveaxis(s[:, :, -1], 1, 0), jnp.moveaxis(from_start_BxGxQ[:, :, -1], 1, 0)),
  )
  s += from_start_BxGxQ[..., None] * jnp.moveaxis(entering, 0, 1)[:, :, None]
  return s.reshape(batch, -1, width)[:, :length]
