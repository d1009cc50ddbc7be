"""H-Net's smoothing module: an exponential moving average over chunks (arXiv 2507.07955, eq. 5; dc.py DeChunkLayer)."""

import jax
import jax.numpy as jnp
from jax import Array

HIGHEST = jax.lax.Precision.HIGHEST
CLAMP = 1e-4  # probabilities stay within [1e-4, 1 - 1e-4], as in the official code; the first chunk's 1 is clamped too


def ema(h_BxMxD: Array, p_BxM: Array, segment_ids_BxM: Array, tile: int = 32) -> Array:
  """z_m = P_m h_m + (1 - P_m) z_{m-1}, zero before each document's first chunk: [B, M, D] float32.

  Tiles of the sequence are matrix products; log weights inside a tile are summed over their own range, since the
  difference of two long prefix sums would lose digits (a clamped boundary alone contributes log 1e-4).
  """
  batch, length, width = h_BxMxD.shape
  tile = min(tile, length)
  pad = -length % tile
  widen = lambda v: jnp.pad(v, ((0, 0), (0, pad)) + ((0, 0),) * (v.ndim - 2))
  split = lambda v: widen(v).reshape(batch, -1, tile, *v.shape[2:])
  h, p, ids = split(h_BxMxD.astype(jnp.float32)), split(p_BxM.astype(jnp.float32)), split(segment_ids_BxM)
  p = jnp.clip(p, CLAMP, 1 - CLAMP)
  log_keep_BxGxQ = jnp.log1p(-p)

  # log weight of chunk j in chunk i: sum of log keep over j < k <= i.
  lower = jnp.tril(jnp.ones((tile, tile), bool))
  steps_BxGxQxQ = jnp.where(jnp.tril(lower, -1), log_keep_BxGxQ[..., None], 0.0)
  log_weight_BxGxQxQ = jnp.cumsum(steps_BxGxQxQ, axis=-2)
  same_BxGxQxQ = lower & (ids[..., :, None] == ids[..., None, :])
  weight = jnp.where(same_BxGxQxQ, jnp.exp(log_weight_BxGxQxQ), 0.0) * p[..., None, :]
  z = jnp.einsum('bgij,bgjd->bgid', weight, h, precision=HIGHEST)

  last_BxG = ids[:, :, -1]
  before_BxG = jnp.concatenate([ids[:, 0, :1], last_BxG[:, :-1]], 1)
  from_start_BxGxQ = jnp.exp(jnp.cumsum(log_keep_BxGxQ, -1)) * (ids == before_BxG[..., None])

  def carry(state_BxD, tile_in):
    own_BxD, survives_B = tile_in
    return survives_B[:, None] * state_BxD + own_BxD, state_BxD

  _, entering = jax.lax.scan(
    carry,
    jnp.zeros((batch, width), jnp.float32),
    (jnp.moveaxis(z[:, :, -1], 1, 0), jnp.moveaxis(from_start_BxGxQ[:, :, -1], 1, 0)),
  )
  z += from_start_BxGxQ[..., None] * jnp.moveaxis(entering, 0, 1)[:, :, None]
  return z.reshape(batch, -1, width)[:, :length]


def ema_step(h_BxD: Array, p_B: Array, last_BxD: Array) -> Array:
  """One chunk of the same recurrence, float32."""
  p_Bx1 = jnp.clip(p_B, CLAMP, 1 - CLAMP)[:, None]
  return p_Bx1 * h_BxD.astype(jnp.float32) + (1 - p_Bx1) * last_BxD
