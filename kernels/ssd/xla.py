"""The state-space recurrence in chunked matrix form (Dao and Gu 2024, arXiv 2405.21060) in plain XLA operations."""

import jax
import jax.numpy as jnp
from jax import Array


def ssd(
  x_BxLxHxP: Array,
  dt_BxLxH: Array,
  a_H: Array,
  b_BxLxN: Array,
  c_BxLxN: Array,
  segment_ids_BxL: Array,
  tile: int = 64,
) -> tuple[Array, Array]:
  """See `kernels.ssd.ssd`."""
  batch, length, heads, head_dim = x_BxLxHxP.shape
  tile = min(tile, length)
  pad = -length % tile
  if pad:
    widen = lambda v, mode='constant': jnp.pad(v, ((0, 0), (0, pad)) + ((0, 0),) * (v.ndim - 2), mode=mode)
    y, state = ssd(
      *map(widen, (x_BxLxHxP, dt_BxLxH)), a_H, widen(b_BxLxN), widen(c_BxLxN), widen(segment_ids_BxL, 'edge'), tile
    )
    return y[:, :length], state
  dtype, f32 = x_BxLxHxP.dtype, jnp.float32
  split = lambda v: v.reshape(batch, length // tile, tile, *v.shape[2:])  # L -> G tiles of Q
  x, dt, b, c, ids = map(split, (x_BxLxHxP, dt_BxLxH.astype(f32), b_BxLxN, c_BxLxN, segment_ids_BxL))

  # Heads before the tile from here on: each (tile, head) is then one plain matrix product.
  log_decay_BxGxHxQ = jnp.cumsum(jnp.moveaxis(dt * a_H, -1, 2), axis=-1)
  u_BxGxHxQxP = jnp.moveaxis(x * dt[..., None].astype(dtype), 3, 2)
  causal = jnp.tril(jnp.ones((tile, tile), bool))
  same_BxGxQxQ = causal & (ids[..., :, None] == ids[..., None, :])
  # Masked before the exponential: above the diagonal it would overflow, and inf * 0 is nan in the gradient.
  gap = log_decay_BxGxHxQ[..., :, None] - log_decay_BxGxHxQ[..., None, :]
  decay_BxGxHxQxQ = jnp.exp(jnp.where(same_BxGxQxQ[:, :, None], gap, -jnp.inf))
  scores_BxGxQxQ = jnp.einsum('bgin,bgjn->bgij', c, b, preferred_element_type=f32)
  mixing = (scores_BxGxQxQ[:, :, None] * decay_BxGxHxQxQ).astype(dtype)
  y_BxGxHxQxP = jnp.einsum('bghij,bghjp->bghip', mixing, u_BxGxHxQxP, preferred_element_type=f32)

  # What each tile adds to the state at its end, and how much of the state before it survives.
  last_BxG = ids[:, :, -1]
  before_BxG = jnp.concatenate([ids[:, 0, :1], last_BxG[:, :-1]], 1)
  to_end = jnp.exp(log_decay_BxGxHxQ[..., -1:] - log_decay_BxGxHxQ) * (ids == last_BxG[..., None])[:, :, None]
  added_BxGxHxPxN = jnp.einsum(
    'bghjp,bgjn->bghpn', u_BxGxHxQxP * to_end[..., None].astype(dtype), b, preferred_element_type=f32
  )
  survives_BxGxH = jnp.exp(log_decay_BxGxHxQ[..., -1]) * (last_BxG == before_BxG)[..., None]

  def carry(state, tile_in):
    added, survives = tile_in
    return survives[..., None, None] * state + added, state

  initial = jnp.zeros(added_BxGxHxPxN.shape[:1] + added_BxGxHxPxN.shape[2:], f32)
  final, entering = jax.lax.scan(
    carry, initial, (jnp.moveaxis(added_BxGxHxPxN, 1, 0), jnp.moveaxis(survives_BxGxH, 1, 0))
  )
  from_start = jnp.exp(log_decay_BxGxHxQ) * (ids == before_BxG[..., None])[:, :, None]
  entering_BxGxHxPxN = jnp.moveaxis(entering, 0, 1).astype(dtype)
  y_BxGxHxQxP += from_start[..., None] * jnp.einsum(
    'bgin,bghpn->bghip', c, entering_BxGxHxPxN, preferred_element_type=f32
  )
  y = jnp.moveaxis(y_BxGxHxQxP, 2, 3).reshape(batch, length, heads, head_dim).astype(dtype)
  return y, final
