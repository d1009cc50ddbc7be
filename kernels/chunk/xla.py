"""Compaction as a gather."""

import jax.numpy as jnp
from jax import Array


def chunk(x_BxLxD: Array, slot_BxL: Array, position_BxM: Array) -> Array:
  """Rows of x at the positions of the chunks, [B, M, D]; zero where there is none."""
  del slot_BxL
  index_BxMx1 = position_BxM[..., None]
  values_BxMxD = jnp.take_along_axis(x_BxLxD, index_BxMx1, axis=1, mode='clip')
  return jnp.where(index_BxMx1 < x_BxLxD.shape[1], values_BxMxD, 0)
