"""Where documents begin in packed rows, and positions that restart with them."""

import jax
import jax.numpy as jnp
from jax import Array


def starts(segment_ids_BxL: Array) -> Array:
  """True where a new document (or the padding) begins: [B, L] bool."""
  before = jnp.pad(segment_ids_BxL[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  return segment_ids_BxL != before


def positions(segment_ids_BxL: Array, counted_BxL: Array | None = None) -> Array:
  """Index of every position inside its document, from 0: [B, L] int32. counted: bool, how many of these stand before it
  in its document; None: all count.
  """
  if counted_BxL is None:
    index_BxL = jnp.arange(segment_ids_BxL.shape[1], dtype=jnp.int32)[None]
  else:
    index_BxL = jnp.cumsum(counted_BxL, 1, dtype=jnp.int32) - counted_BxL
  first_BxL = jax.lax.cummax(jnp.where(starts(segment_ids_BxL), index_BxL, 0), axis=1)
  return index_BxL - first_BxL
