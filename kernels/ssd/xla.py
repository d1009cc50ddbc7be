"""The state-space recurrence in chunked matrix form (Dao and Gu 2024, arXiv 2405.21060) in plain XLA operations.

The gradient is written out, since what matters on a CPU is how often memory is walked through: nothing of size
[tile, tile] is kept for the backward pass, which computes it again in the two orders that its products want, and what
crosses tiles stays in the layout of the input, all heads in one product.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

f32 = jnp.float32


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
  widen = lambda v, mode='constant': jnp.pad(v, ((0, 0), (0, pad)) + ((0, 0),) * (v.ndim - 2), mode=mode)
  split = lambda v, *mode: (widen(v, *mode) if pad else v).reshape(batch, -1, tile, *v.shape[2:])  # L -> G tiles of Q
  y, state = _tiles(
    *map(split, (x_BxLxHxP, dt_BxLxH.astype(f32))), a_H, split(b_BxLxN), split(c_BxLxN), split(segment_ids_BxL, 'edge')
  )
  return y.reshape(batch, -1, heads, head_dim)[:, :length], state


class _Decays(NamedTuple):
  """log [B, G, Q, H]: of what is left of a tile's beginning. from_start, to_end [B, G, Q, H]: what position i keeps of
  the state before the tile, and the state behind it of position j. survives [B, G, H]: of that state across the tile.
  """

  log: Array
  from_start: Array
  to_end: Array
  survives: Array


def _decays(dt: Array, a: Array, ids: Array) -> _Decays:
  log = jnp.cumsum(dt * a[None, None, None], axis=2)
  last = ids[:, :, -1]
  before = jnp.concatenate([ids[:, 0, :1], last[:, :-1]], 1)
  return _Decays(
    log,
    jnp.exp(log) * (ids == before[..., None])[..., None],
    jnp.exp(log[:, :, -1:] - log) * (ids == last[..., None])[..., None],
    jnp.exp(log[:, :, -1]) * (last == before)[..., None],
  )


def _decay(log: Array, ids: Array, transposed: bool = False) -> Array:
  """[B, G, H, Q, Q] float32: what position i keeps of position j <= i of its document, or its transpose."""
  log, tile = log.swapaxes(2, 3), ids.shape[2]
  triangle = (jnp.triu if transposed else jnp.tril)(jnp.ones((1, 1, tile, tile), bool))
  seen = triangle & (ids[..., :, None] == ids[..., None, :])
  gap = jnp.abs(log[..., :, None] - log[..., None, :])  # logarithms fall along a tile: below 0 where it is not seen
  return jnp.where(seen[:, :, None], jnp.exp(-gap), 0.0)


def _product(form: str, left: Array, right: Array) -> Array:
  return jnp.einsum(form, left, right, preferred_element_type=f32)


def _scan(added: Array, survives: Array, initial: Array, reverse: bool = False) -> tuple[Array, Array]:
  """(last, what entered each tile) of state <- survives * state + added over tiles: added [B, G, H * P, N]."""
  heads = survives.shape[-1]

  def carry(state, tile):
    own, keep = tile
    kept = keep[..., None, None] * state.reshape(state.shape[0], heads, -1, state.shape[-1])
    return kept.reshape(state.shape) + own, state

  last, entering = jax.lax.scan(carry, initial, (added.swapaxes(0, 1), survives.swapaxes(0, 1)), reverse=reverse)
  return last, entering.swapaxes(0, 1)


def _heads_joined(v: Array) -> Array:
  return v.reshape(*v.shape[:3], -1)


@jax.custom_vjp
def _tiles(x: Array, dt: Array, a: Array, b: Array, c: Array, ids: Array) -> tuple[Array, Array]:
  """x [B, G, Q, H, P], dt [B, G, Q, H], a [H], b and c [B, G, Q, N], ids [B, G, Q] -> (y like x, [B, H, P, N])."""
  return _forward(x, dt, a, b, c, ids)[0]


def _forward(x, dt, a, b, c, ids):
  dtype, decays = x.dtype, _decays(dt, a, ids)
  u = x * dt[..., None].astype(dtype)
  mixing = (_product('bgin,bgjn->bgij', c, b)[:, :, None] * _decay(decays.log, ids)).astype(dtype)
  y = _product('bghij,bghjp->bghip', mixing, u.swapaxes(2, 3)).swapaxes(2, 3)
  added = _product('bgjk,bgjn->bgkn', _heads_joined(u * decays.to_end[..., None].astype(dtype)), b)
  final, entering = _scan(added, decays.survives, jnp.zeros_like(added[:, 0]))
  entering = entering.astype(dtype)
  y += _product('bgin,bgkn->bgik', c, entering).reshape(y.shape) * decays.from_start[..., None]
  final = final.reshape(x.shape[0], *x.shape[3:], -1)
  return (y.astype(dtype), final), (x, dt, a, b, c, ids, entering)


def _backward(saved, cotangents):
  x, dt, a, b, c, ids, entering = saved
  dy, dfinal = cotangents
  dtype, decays = x.dtype, _decays(dt, a, ids)
  u = x * dt[..., None].astype(dtype)
  u_h, dy_h = u.swapaxes(2, 3), dy.swapaxes(2, 3)

  # Across tiles: what the state before a tile gives its positions, and what they give the state behind it.
  dy_from = _heads_joined(dy * decays.from_start[..., None].astype(dtype))
  dfirst, dleaving = _scan(
    _product('bgik,bgin->bgkn', dy_from, c), decays.survives, dfinal.reshape(x.shape[0], -1, b.shape[-1]), reverse=True
  )
  del dfirst
  dleaving_low = dleaving.astype(dtype)
  across = _product('bgin,bgkn->bgik', c, entering).reshape(x.shape) * decays.from_start[..., None]
  du_across = _product('bgjn,bgkn->bgjk', b, dleaving_low).reshape(x.shape) * decays.to_end[..., None]
  dc = _product('bgik,bgkn->bgin', dy_from, entering)
  db = _product('bgjk,bgkn->bgjn', _heads_joined(u * decays.to_end[..., None].astype(dtype)), dleaving_low)

  # Inside tiles.
  mixing_t = (_product('bgjn,bgin->bgji', b, c)[:, :, None] * _decay(decays.log, ids, transposed=True)).astype(dtype)
  du = _product('bghji,bghip->bghjp', mixing_t, dy_h).swapaxes(2, 3) + du_across
  weighted = _product('bghip,bghjp->bghij', dy_h, u_h) * _decay(decays.log, ids)
  # Without the diagonal, whose decay is 1 whatever the step: it would cancel, but for rounding.
  dgap = weighted * jnp.tril(_product('bgin,bgjn->bgij', c, b), -1)[:, :, None]
  dscores = jnp.sum(weighted, 2).astype(dtype)
  dc += _product('bgij,bgjn->bgin', dscores, b)
  db += _product('bgij,bgin->bgjn', dscores, c)

  # Decays: position i lost them, position j kept them, the last also carries the state across.
  gained = jnp.sum(u.astype(f32) * du_across, -1)
  dlog = (jnp.sum(dgap, 4) - jnp.sum(dgap, 3)).swapaxes(2, 3) + jnp.sum(dy.astype(f32) * across, -1) - gained
  carried = jnp.sum((entering.astype(f32) * dleaving).reshape(*decays.survives.shape, -1), -1) * decays.survives
  dlog = dlog.at[:, :, -1].add(jnp.sum(gained, 2) + carried)
  dstep = jnp.flip(jnp.cumsum(jnp.flip(dlog, 2), 2), 2)
  ddt = dstep * a[None, None, None] + jnp.sum(du * x.astype(f32), -1)
  da = jnp.sum(dstep * dt, (0, 1, 2))
  dx = (du * dt[..., None]).astype(dtype)
  return dx, ddt.astype(dt.dtype), da.astype(a.dtype), db.astype(b.dtype), dc.astype(c.dtype), None


_tiles.defvjp(_forward, _backward)
